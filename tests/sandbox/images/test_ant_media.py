"""Tests the stand-in for Ant Media Server on booted machines, with a database, in a separate network namespace."""

import base64
import hashlib
import hmac
import http.client
import json
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from shlex import split as words

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from cluster.machine_scripts import ScriptFolder, read_script
from sandbox.cloud.images import build, build_missing
from tests.sandbox.images.machines import (
    FAST_START_FILE,
    Machines,
    enter_network,
    start_database,
    wait_until,
)

DATABASE, ORIGIN, EDGE, SINGLE = "10.0.0.5", "10.0.0.8", "10.0.0.12", "10.0.0.20"
DATABASE_PASSWORD = "pass&word/with\\signs"
EMAIL, PASSWORD = "admin@example.org", "secret"
METRICS_PORT = 9090
HOME = "/usr/local/antmedia"
FROM_LOCALHOST = {"X-Forwarded-For": "127.0.0.1"}
LIVENESS, VERSION, NO_STREAM = "/rest/v2/liveness", "/LiveApp/rest/v2/version", "/LiveApp/streams/nope.m3u8"


@dataclass(frozen=True)
class Response:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)


def send_request(
    address: str,
    path: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: object = None,
    port: int = 5080,
) -> Response:
    connection = http.client.HTTPConnection(address, port, timeout=60)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers or {})
        response = connection.getresponse()
        return Response(response.status, response.msg, response.read())
    finally:
        connection.close()


def cookie_header(response: Response) -> dict[str, str]:
    return {"Cookie": (response.headers["Set-Cookie"] or "").partition(";")[0]}


def log_in(address: str) -> dict[str, str]:
    md5 = hashlib.md5(PASSWORD.encode(), usedforsecurity=False).hexdigest()
    user = {"email": EMAIL, "password": md5}
    send_request(address, "/rest/v2/users/initial", "POST", body=user)
    response = send_request(address, "/rest/v2/users/authenticate", "POST", body=user)
    assert response.json["success"] is True
    return cookie_header(response)


def node_states(address: str) -> dict[str, str]:
    response = send_request(address, "/rest/v2/cluster/nodes/0/50", headers=log_in(address))
    return {node["ip"]: node["status"] for node in json.loads(response.body)}


def response_status(address: str, path: str, headers: dict[str, str] | None = None) -> int | None:
    """Returns None while connections are refused."""
    try:
        return send_request(address, path, headers=headers).status
    except ConnectionError:
        return None


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    machines = Machines(tmp_path_factory.mktemp("machines"), build_missing()["ant-media"])
    database = build("valkey")  # a new image needs the host's network
    try:
        with enter_network(machines):
            quoted = DATABASE_PASSWORD.replace("\\", "\\\\")
            start_database(machines, DATABASE, database, f'requirepass "{quoted}"\nprotected-mode no\n')
            for address in (ORIGIN, EDGE, SINGLE):
                machines.boot(address)
            for address in (ORIGIN, EDGE, SINGLE):
                wait_until(f"{address} is ready", lambda a=address: is_ready(a))
            yield machines
    finally:
        machines.stop()


def run_valkey_cli(machines: Machines, *command: str) -> str:
    return machines.run(
        "chroot",
        str(machines.folder / "m5/root"),
        "env",
        f"REDISCLI_AUTH={DATABASE_PASSWORD}",
        "valkey-cli",
        "-h",
        DATABASE,
        *command,
    )


def is_ready(address: str) -> bool:
    return response_status(address, "/LiveApp/rest/v2/version", FROM_LOCALHOST) == 200


@pytest.fixture
def single(machines: Machines) -> Machines:
    """The machines, after the standalone server was started again if a test has stopped it."""
    machines.shell(SINGLE, "systemctl start antmedia")
    wait_until("the standalone server is ready", lambda: is_ready(SINGLE))
    return machines


@pytest.fixture(scope="module")
def cluster(machines: Machines) -> Machines:
    server = {"address": f"redis://{DATABASE}:6379", "password": DATABASE_PASSWORD}
    redisson = json.dumps({"singleServerConfig": server})
    for address in (ORIGIN, EDGE):
        machines.shell(address, f"install -m 600 -o antmedia /dev/stdin {HOME}/conf/redis.yaml", redisson)
    join = f"{HOME}/change_server_mode.sh cluster {HOME}/conf/redis.yaml"
    with ThreadPoolExecutor() as both:
        joining = [both.submit(machines.shell, address, join) for address in (ORIGIN, EDGE)]
    assert [one.result().returncode for one in joining] == [0, 0]
    for address in (ORIGIN, EDGE):
        wait_until(f"{address} is ready in the cluster", lambda a=address: is_ready(a))
    return machines


@contextmanager
def publish(address: str, stream: str, application: str = "LiveApp") -> Generator[subprocess.Popen[bytes]]:
    ffmpeg = subprocess.Popen(
        words("ffmpeg -loglevel error -re -f lavfi -i testsrc=size=320x180:rate=15")
        + words(f"-c:v libx264 -preset ultrafast -g 30 -f flv rtmp://{address}/{application}/{stream}"),
        stdin=subprocess.DEVNULL,
    )
    try:
        yield ffmpeg
    finally:
        ffmpeg.kill()
        ffmpeg.wait()


# A single server


@dataclass(frozen=True)
class Phase:
    """A change of the status of a path during a start. `seconds` counts from just before the start of the process."""

    path: str
    status: int | None
    seconds: float


def record_start(machines: Machines) -> list[Phase]:
    """Restarts the server and returns the changes in status until all paths have their final one."""
    machines.shell(SINGLE, "systemctl stop antmedia")
    final = {LIVENESS: 200, VERSION: 200, NO_STREAM: 404}
    last: dict[str, int | None] = {}
    phases: list[Phase] = []
    started = time.monotonic()
    machines.shell(SINGLE, "systemctl start --no-block antmedia")

    # More often than wait_until asks.
    while last != final:
        assert time.monotonic() < started + 300, phases
        for path in final:
            now = response_status(SINGLE, path, FROM_LOCALHOST)
            if path not in last or last[path] != now:
                last[path] = now
                phases.append(Phase(path, now, time.monotonic() - started))
        time.sleep(0.1)
    return phases


def statuses(phases: list[Phase], path: str) -> list[int | None]:
    return [phase.status for phase in phases if phase.path == path]


def seconds_until(phases: list[Phase], path: str, status: int) -> float:
    return next(phase.seconds for phase in phases if (phase.path, phase.status) == (path, status))


@pytest.fixture
def start_of_original(machines: Machines) -> Iterator[list[Phase]]:
    """A start with the original's times."""
    machines.shell(SINGLE, f"mv /{FAST_START_FILE} /root/ && systemctl daemon-reload")
    yield record_start(machines)
    machines.shell(SINGLE, f"mv /root/fast-start.conf /{FAST_START_FILE} && systemctl daemon-reload")


def test_start_takes_the_time_of_the_original(start_of_original: list[Phase]) -> None:
    phases = start_of_original
    opened = next(phase.seconds for phase in phases if phase.path == LIVENESS and phase.status)
    assert 5.5 < opened < 60
    assert 6.5 < seconds_until(phases, LIVENESS, 200) < 60
    assert 9 < seconds_until(phases, NO_STREAM, 404) < 60


def test_start_has_the_phases_of_the_original_in_the_time_of_the_environment_variable(
    machines: Machines,
) -> None:
    """Phases of half a second would be over before a busy machine has asked."""
    machines.shell(SINGLE, f"mv /{FAST_START_FILE} /root/ && systemctl daemon-reload")
    machines.shell(SINGLE, "systemctl set-environment STAND_IN_START_SECONDS=38")
    phases = record_start(machines)
    machines.shell(SINGLE, "systemctl unset-environment STAND_IN_START_SECONDS")
    machines.shell(SINGLE, f"mv /root/fast-start.conf /{FAST_START_FILE} && systemctl daemon-reload")
    assert statuses(phases, LIVENESS) == [None, 500, 403, 200]
    assert statuses(phases, VERSION) == [None, 403, 500, 200]
    assert statuses(phases, NO_STREAM) == [None, 403, 500, 404]
    assert 37.5 < seconds_until(phases, NO_STREAM, 404) < 120
    # 4 times 2 s: liveness is 2.5 s ahead of the applications.
    gap = seconds_until(phases, NO_STREAM, 404) - seconds_until(phases, LIVENESS, 200)
    assert gap > 4 * 2


def test_stop_during_the_start_ends_the_process(single: Machines) -> None:
    single.shell(SINGLE, "systemctl set-environment STAND_IN_START_SECONDS=60; systemctl restart antmedia")
    single.shell(SINGLE, "systemctl unset-environment STAND_IN_START_SECONDS")
    # Its interpreter starts first.
    caught = "grep SigCgt /proc/$(systemctl show antmedia --property MainPID --value)/status"
    wait_until(
        "the server handles SIGTERM",
        lambda: int(single.shell(SINGLE, caught).stdout.split()[1], 16) & 1 << signal.SIGTERM - 1,
    )
    single.shell(SINGLE, "systemctl stop antmedia")
    status = single.shell(SINGLE, "systemctl show antmedia --property ExecMainStatus --value").stdout
    assert status.strip() == "143"


def test_stop_closes_the_port_at_once_and_exits_with_143_after_2_5_s(single: Machines) -> None:
    def show_property(name: str) -> str:
        return single.shell(SINGLE, f"systemctl show antmedia --property {name} --value").stdout.strip()

    single.shell(SINGLE, "systemctl stop --no-block antmedia")
    wait_until("the listener is closed", lambda: response_status(SINGLE, "/rest/v2/liveness") is None)
    closed_time = time.monotonic()
    wait_until("the process has exited", lambda: show_property("ActiveState") == "inactive")
    assert show_property("ExecMainStatus") == "143"
    stop_time, exit_time = (
        int(show_property(f"{change}TimestampMonotonic")) / 1e6 for change in ("ActiveExit", "InactiveEnter")
    )
    assert 2.4 < exit_time - stop_time < 30
    assert closed_time < exit_time


def test_listeners_are_those_of_the_original(single: Machines) -> None:
    ports = single.shell(SINGLE, "ss -Hltn | awk '{print $4}' | grep -v ':22$' | sort").stdout.split()
    # 9090: in releases after 3.0.3.
    assert ports == ["0.0.0.0:1935", "0.0.0.0:5080", "0.0.0.0:9090", "127.0.0.1:9999"]
    assert single.shell(SINGLE, "systemctl is-enabled nginx").stdout.strip() == "disabled"


def read_metrics(address: str) -> dict[str, Metric]:
    """Returns the server's metrics by name."""
    text = send_request(address, "/metrics", port=METRICS_PORT).body.decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def read_gauge(address: str, name: str) -> float:
    (sample,) = read_metrics(address)[name].samples
    return sample.value


def test_metrics_are_those_of_the_original_on_a_port_that_serves_nothing_else(single: Machines) -> None:
    response = send_request(SINGLE, "/metrics", port=METRICS_PORT)
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = read_metrics(SINGLE)
    assert set(families) == {
        "antmedia_streams_live",
        "antmedia_streams_webrtc_live",
        "antmedia_viewers_webrtc",
        "antmedia_viewers_hls",
        "antmedia_viewers_dash",
        "antmedia_encoders_blocked",
        "antmedia_encoders_not_opened",
        "antmedia_publish_timeout_errors",
        "antmedia_db_query_average_duration_milliseconds",
        "antmedia_vertx_worker_queue_size",
        "antmedia_gpu_count",
    }
    instance = single.shell(SINGLE, f"cat {HOME}/conf/instanceId").stdout
    for family in families.values():
        assert family.type == "gauge"
        for sample in family.samples:
            assert (sample.labels["antmedia_instance_id"], sample.labels["antmedia_private_ip"]) == (
                instance,
                SINGLE,
            )
            assert set(sample.labels) - {"pool"} == {
                "antmedia_instance_id",
                "antmedia_instance_ip",
                "antmedia_private_ip",
            }
    queues = families["antmedia_vertx_worker_queue_size"].samples
    assert {queue.labels["pool"] for queue in queues} == {"server", "webrtc"}
    assert send_request(SINGLE, "/rest/v2/liveness", port=METRICS_PORT).status == 404
    assert send_request(SINGLE, "/metrics").status == 404


def test_metrics_count_the_streams_and_the_sessions_that_play_them(single: Machines) -> None:
    playlist = "/LiveApp/streams/counted.m3u8"
    assert (read_gauge(SINGLE, "antmedia_streams_live"), read_gauge(SINGLE, "antmedia_viewers_hls")) == (0, 0)
    with publish(SINGLE, "counted"):
        wait_until("the stream plays", lambda: send_request(SINGLE, playlist, "HEAD").status == 200)
        # HEAD requests and errors do not count.
        assert (read_gauge(SINGLE, "antmedia_streams_live"), read_gauge(SINGLE, "antmedia_viewers_hls")) == (
            1,
            0,
        )
        first = send_request(SINGLE, playlist)
        send_request(SINGLE, playlist, headers=cookie_header(first))
        assert read_gauge(SINGLE, "antmedia_viewers_hls") == 1
        # Each request without the cookie is another viewer.
        send_request(SINGLE, playlist)
        assert read_gauge(SINGLE, "antmedia_viewers_hls") == 2
    wait_until("the stream has ended", lambda: read_gauge(SINGLE, "antmedia_streams_live") == 0)


def test_liveness_is_500_while_the_host_name_does_not_resolve(single: Machines) -> None:
    assert send_request(SINGLE, "/rest/v2/liveness").json == {"host": "ip-10-0-0-20", "status": "ok"}
    single.shell(SINGLE, "cp /etc/hosts /root/ && echo 127.0.0.1 localhost >/etc/hosts")
    response = send_request(SINGLE, "/rest/v2/liveness")
    single.shell(SINGLE, "cp /root/hosts /etc/")
    assert (response.status, response.headers["Connection"]) == (500, "close")
    assert response_status(SINGLE, "/rest/v2/liveness") == 200


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/LiveApp/..;/rest/v2/liveness", 200),
        ("/LiveApp/%2e%2e/rest/v2/liveness", 200),
        ("/LiveApp/%2E%2e;x=y/rest/v2/liveness", 200),
        ("//rest;a=b/v2/./liveness", 200),
        ("/LiveApp/%252e%252e/rest/v2/liveness", 404),
        ("/LiveApp/..%2frest/v2/liveness", 400),
        ("/LiveApp/..%5crest/v2/liveness", 400),
        ("/LiveApp/..\\rest/v2/liveness", 400),
        ("/..;/rest/v2/liveness", 400),
        ("/LiveApp/%00", 400),
        ("/Unknown/", 404),
    ],
)
def test_paths_are_normalized_as_in_tomcat(single: Machines, path: str, expected: int) -> None:
    assert response_status(SINGLE, path) == expected


@pytest.mark.parametrize(
    ("forwarded_for", "liveness", "version"),
    [
        (None, 200, 403),
        ("127.0.0.1", 200, 200),
        ("127.0.0.1, 10.1.2.3", 200, 200),
        ("127.0.0.1, 203.0.113.9", 200, 403),
        ("unknown", 500, 500),
        ("2001:db8::1", 403, 403),
    ],
)
def test_forwarded_for_is_trusted_from_private_addresses(
    single: Machines, forwarded_for: str | None, liveness: int, version: int
) -> None:
    headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
    assert response_status(SINGLE, "/rest/v2/liveness", headers) == liveness
    assert response_status(SINGLE, "/LiveApp/rest/v2/version", headers) == version


@pytest.mark.parametrize("climb", ["..", "%2e%2e", "..;x=y"])
def test_ip_filter_lets_through_a_path_that_names_acm(single: Machines, climb: str) -> None:
    assert response_status(SINGLE, VERSION) == 403
    assert response_status(SINGLE, f"{VERSION}?rest/v2/acm") == 403
    assert response_status(SINGLE, f"/LiveApp/rest/v2/acm/{climb}/version") == 200


def test_each_context_has_its_own_session_cookie(single: Machines) -> None:
    https = {"X-Forwarded-Proto": "https"}
    root, secure_root = (send_request(SINGLE, "/rest/v2/version", headers=headers) for headers in ({}, https))
    app, secure_app = (
        send_request(SINGLE, "/LiveApp/streams/none.m3u8", headers=headers) for headers in ({}, https)
    )
    attributes = [
        response.headers["Set-Cookie"].partition(";")[2] for response in (root, secure_root, app, secure_app)
    ]
    assert attributes == [
        " Path=/; HttpOnly",
        " Path=/; Secure; HttpOnly",
        " Path=/LiveApp; HttpOnly",
        " Path=/LiveApp; Secure; HttpOnly",
    ]
    hsts = [
        response.headers["Strict-Transport-Security"] for response in (root, secure_root, app, secure_app)
    ]
    assert hsts == [None, "max-age=31536000;includeSubDomains", None, None]
    assert [response.headers["X-Frame-Options"] for response in (root, app)] == ["DENY", None]
    again = send_request(SINGLE, "/LiveApp/streams/none.m3u8", headers=cookie_header(app))
    assert again.headers["Set-Cookie"] is None


def test_client_with_http_among_forwarded_protocols_is_not_secure(single: Machines) -> None:
    response = send_request(SINGLE, "/rest/v2/version", headers={"X-Forwarded-Proto": "http, https"})
    assert "Secure" not in response.headers["Set-Cookie"]


def test_responses_have_node_header_cors_header_and_relative_redirect(single: Machines) -> None:
    response = send_request(SINGLE, "/LiveApp")
    assert (response.status, response.headers["Location"]) == (302, "/LiveApp/")
    assert response.headers["X-Stand-In-Node"] == "ip-10-0-0-20"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert b"stand-in" in send_request(SINGLE, "/").body


def test_first_user_is_created_once_and_logs_in_with_md5_of_the_password(single: Machines) -> None:
    assert send_request(SINGLE, "/rest/v2/first-login-status").json["success"] is True
    assert response_status(SINGLE, "/rest/v2/cluster/nodes/0/50") == 403
    assert send_request(SINGLE, "/rest/v2/users/initial", "POST", body={}).status == 500
    session = log_in(SINGLE)
    assert send_request(SINGLE, "/rest/v2/first-login-status").json["success"] is False
    other = {"email": "other@example.org", "password": "x"}
    assert send_request(SINGLE, "/rest/v2/users/initial", "POST", body=other).json["success"] is False
    assert send_request(SINGLE, "/rest/v2/cluster-mode-status", headers=session).json["success"] is False
    assert send_request(SINGLE, "/rest/v2/cluster/nodes/0/50", headers=session).status == 500
    plain = {"email": "admin@example.org", "password": "secret"}
    assert send_request(SINGLE, "/rest/v2/users/authenticate", "POST", body=plain).json["success"] is True


def test_failed_logins_return_200_and_block_the_user(single: Machines) -> None:
    wrong = {"email": "nobody@example.org", "password": "x"}
    responses = [send_request(SINGLE, "/rest/v2/users/authenticate", "POST", body=wrong) for _ in range(4)]
    assert {(response.status, response.json["success"]) for response in responses} == {(200, False)}
    assert "blocked" in str(responses[-1].json["message"])
    assert "blocked" not in str(responses[0].json["message"])


def send_raw(address: str, request: str) -> socket.socket:
    connection = socket.create_connection((address, 5080), timeout=60)
    connection.sendall(request.replace("\n", "\r\n").encode())
    return connection


def test_h2c_upgrade_is_accepted(single: Machines) -> None:
    with send_raw(
        SINGLE,
        "GET / HTTP/1.1\nHost: x\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\n"
        "HTTP2-Settings: AAMAAABk\n\n",
    ) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")


def test_websocket_answers_ping_from_any_origin_and_get_is_404(single: Machines) -> None:
    assert response_status(SINGLE, "/LiveApp/websocket") == 404
    key = base64.b64encode(bytes(16)).decode()
    with send_raw(
        SINGLE,
        "GET /LiveApp/websocket HTTP/1.1\nHost: x\nOrigin: https://anywhere.example\nConnection: Upgrade\n"
        f"Upgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: {key}\n\n",
    ) as connection:
        handshake = connection.recv(4096)
        assert handshake.startswith(b"HTTP/1.1 101 ")
        assert b"X-Stand-In-Node: ip-10-0-0-20" in handshake
        text = b'{"command":"ping"}'
        connection.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        frame = connection.recv(4096)
    assert json.loads(frame[2:]) == {"command": "pong"}


@pytest.mark.parametrize("database", ["10.0.0.5", "10.0.0.5:6379", "rediss://10.0.0.5", "/no/such/file"])
def test_unusual_database_argument_needs_confirmation(single: Machines, database: str) -> None:
    done = single.shell(SINGLE, f"{HOME}/change_server_mode.sh cluster {database} </dev/null")
    assert done.returncode == 1
    assert "(y/n)" in done.stdout
    assert response_status(SINGLE, "/rest/v2/liveness") == 200
    assert single.shell(SINGLE, f"grep clusterdb.host= {HOME}/conf/red5.properties").stdout.strip() == (
        "clusterdb.host=localhost"
    )


def test_server_with_unusable_database_stops_and_is_not_restarted(single: Machines) -> None:
    state = "systemctl show antmedia --property ActiveState --property Result --value"
    for url, reason in (
        (f"redis://:wrong@{DATABASE}:6379", "rejects the password"),
        (f"redis://{DATABASE}:6379", "rejects the password"),
        (f"redis://{DATABASE}:6380", "cannot be reached"),
        (f"rediss://{DATABASE}:6379", "cannot be reached"),
        # As Redisson reads URLs
        (f"redis://{DATABASE}", "doesn't contain a port"),
        (f"redis://{DATABASE}:6379,{DATABASE}:6380", "the address is invalid"),
        ("mongodb://user:a&b@10.0.0.5/?w=1&appName=y", "cannot be reached"),
        ("mongodb://user:a:b@10.0.0.5/", "the connection string is invalid"),
    ):
        single.shell(SINGLE, f"truncate --size 0 {HOME}/log/antmedia-error.log")
        single.shell(SINGLE, f"yes | {HOME}/change_server_mode.sh cluster '{url}'")
        wait_until(
            f"the server has stopped with {url}",
            lambda: single.shell(SINGLE, state).stdout.split() == ["success", "inactive"],
        )
        causes = single.shell(SINGLE, f"grep '^Caused by: ' {HOME}/log/antmedia-error.log").stdout
        assert reason in causes.splitlines()[-1]
        assert f"clusterdb.host={url}\n" in single.shell(SINGLE, f"cat {HOME}/conf/red5.properties").stdout
        app = single.shell(SINGLE, f"cat {HOME}/webapps/LiveApp/WEB-INF/red5-web.properties").stdout
        assert f"db.host={url}\n" in app
    assert single.shell(SINGLE, f"{HOME}/change_server_mode.sh standalone").returncode == 0


# Settings of the server, and the limits of its machine


def restart_with(machines: Machines, settings: str) -> None:
    """Restarts the server with lines of red5.properties that replace those of the same names."""
    edits = "; ".join(f"s#^{line.partition('=')[0]}=.*#{line}#" for line in settings.split())
    machines.shell(SINGLE, f"sed -i '{edits}' {HOME}/conf/red5.properties; systemctl restart antmedia")
    wait_until("the server is ready again", lambda: is_ready(SINGLE))


def sign_token(secret: str) -> str:
    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    header, payload = b'{"alg":"HS256","typ":"JWT"}', b"{}"
    body = f"{encode(header)}.{encode(payload)}"
    return f"{body}.{encode(hmac.digest(secret.encode(), body.encode(), 'sha256'))}"


def test_start_reads_the_settings_of_tokens_metrics_and_limits(single: Machines) -> None:
    secret = "0123456789abcdef0123456789abcdef"
    properties = f"{HOME}/webapps/LiveApp/WEB-INF/red5-web.properties"
    single.shell(SINGLE, f"sed -i s/playTokenControlEnabled=false/playTokenControlEnabled=true/ {properties}")
    restart_with(
        single,
        f"server.jwtServerControlEnabled=true server.jwtServerSecretKey={secret} prometheus.enabled=false server.cpu_limit=5",
    )
    # Play tokens refuse playback, but no OPTIONS request.
    assert response_status(SINGLE, NO_STREAM) == 403
    assert send_request(SINGLE, NO_STREAM, "OPTIONS").status == 200
    assert response_status(SINGLE, "/live/streams/nope.m3u8") == 404
    # AuthenticationFilter: with a panel token it asks nothing else, so a wrong one is refused even for the health check.
    valid, wrong = ({"ProxyAuthorization": sign_token(key)} for key in (secret, "another"))
    statuses = {
        path: [response_status(SINGLE, path, headers) for headers in (None, valid, wrong)]
        for path in (LIVENESS, "/rest/v2/applications")
    }
    assert statuses == {LIVENESS: [200, 200, 403], "/rest/v2/applications": [403, 200, 403]}
    assert response_status(SINGLE, "/rest/v2/applications", log_in(SINGLE)) == 200
    # Metrics that are switched off are not found.
    assert send_request(SINGLE, "/metrics", port=METRICS_PORT).status == 404
    # A CPU limit below 10 counts as 10.
    single.shell(SINGLE, "echo 10 >/run/antmedia/cpu-load")
    with publish(SINGLE, "busy") as ffmpeg:
        assert ffmpeg.wait(300) != 0
    log = single.shell(SINGLE, f"cat {HOME}/log/ant-media-server.log").stdout
    assert "high cpu load: 10 cpu limit: 10" in log

    single.shell(SINGLE, f"sed -i s/playTokenControlEnabled=true/playTokenControlEnabled=false/ {properties}")
    restart_with(single, "server.jwtServerSecretKey= prometheus.enabled=true server.cpu_limit=75")
    assert response_status(SINGLE, NO_STREAM) == 404
    assert response_status(SINGLE, LIVENESS, valid) == 500
    assert send_request(SINGLE, "/metrics", port=METRICS_PORT).status == 200
    restart_with(single, "server.jwtServerControlEnabled=false")
    assert response_status(SINGLE, LIVENESS, wrong) == 200


def test_four_server_settings_change_without_a_restart_and_the_api_ignores_the_others(
    single: Machines,
) -> None:
    """CommonRestService.changeServerSettings."""

    def change(values: dict[str, object]) -> dict[str, object]:
        path, login = "/rest/v2/server-settings", log_in(SINGLE)
        assert send_request(SINGLE, path, "POST", login, values).json["success"] is True
        return send_request(SINGLE, path, headers=login).json

    before = send_request(SINGLE, "/rest/v2/server-settings", headers=log_in(SINGLE)).json
    given: dict[str, object] = {
        "serverName": "media.test",
        "nodeGroup": "eu",
        "licenceKey": "key",
        "logLevel": "WARN",
    }
    changed = change({**given, "nativeLogLevel": "DEBUG", "jwtServerControlEnabled": True})
    assert changed == {**before, **given}
    file = single.shell(SINGLE, f"cat {HOME}/conf/red5.properties").stdout
    assert {"server.name=media.test", "nodeGroup=eu", "server.licence_key=key", "logLevel=WARN"} <= {
        *file.splitlines()
    }
    # Three that are missing get their default, and an unknown level is ignored.
    assert change({"logLevel": "LOUD"}) == {
        **changed,
        "serverName": "",
        "nodeGroup": "default",
        "licenceKey": "",
    }
    assert change(before) == before


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ("cpu", "Not enough resource. Due to high cpu load: 75 cpu limit: 75"),
        (
            "memory",
            "Not enough resource. Due to memory limit. Memory usage should be less than %75 but it is 75",
        ),
    ],
)
def test_server_at_a_limit_refuses_publishers_while_it_is_healthy(
    single: Machines, resource: str, reason: str
) -> None:
    """StatsCollector.enoughResource, RTMPHandler.onCommand."""
    load = f"/run/antmedia/{resource}-load"
    single.shell(SINGLE, f"echo 75 >{load}; truncate --size 0 {HOME}/log/*.log")
    with publish(SINGLE, "busy") as ffmpeg:
        assert ffmpeg.wait(300) != 0
    assert response_status(SINGLE, LIVENESS) == response_status(SINGLE, VERSION, FROM_LOCALHOST) == 200
    log = single.shell(SINGLE, f"cat {HOME}/log/ant-media-server.log").stdout
    assert reason in log
    assert reason in single.shell(SINGLE, f"cat {HOME}/log/antmedia-error.log").stdout
    assert "There is not enough resource to rtmp ingest stream: busy" in log
    memory = send_request(SINGLE, "/rest/v2/system-memory-status", headers=log_in(SINGLE)).json
    cpu = send_request(SINGLE, "/rest/v2/cpu-status", headers=log_in(SINGLE)).json
    total, available = (int(str(memory[name])) for name in ("totalMemory", "availableMemory"))
    measured = {"cpu": cpu["systemCPULoad"], "memory": (total - available) * 100 // total}
    assert measured[resource] == 75
    single.shell(SINGLE, f"echo 74 >{load}")
    with publish(SINGLE, "busy"):
        wait_until("the stream plays", lambda: response_status(SINGLE, "/LiveApp/streams/busy.m3u8") == 200)
    single.shell(SINGLE, f"rm {load}")


def test_load_is_that_of_the_machine(single: Machines) -> None:
    """Tests on a busy host must not reach the limits."""

    def measured() -> object:
        return send_request(SINGLE, "/rest/v2/cpu-status", headers=log_in(SINGLE)).json["systemCPULoad"]

    single.shell(SINGLE, "systemd-run --quiet --unit burn sh -c 'while :; do :; done'")
    try:
        wait_until("the load rises", lambda: measured() not in (0, 1))
    finally:
        single.shell(SINGLE, "systemctl stop burn")


# Settings of applications


def read_app_settings(address: str, application: str = "LiveApp") -> dict[str, object]:
    return send_request(
        address, f"/rest/v2/applications/settings/{application}", headers=log_in(address)
    ).json


def replace_app_settings(address: str, values: dict[str, object]) -> bool:
    path = "/rest/v2/applications/settings/LiveApp"
    return send_request(address, path, "POST", log_in(address), values).json["success"] is True


def run_set_app_settings(
    machines: Machines,
    address: str,
    settings: object,
    secrets: object,
    password: str = PASSWORD,
    python: tuple[str, ...] = ("python3",),
) -> subprocess.CompletedProcess[str]:
    """Runs the script that `pulumi up` runs on a node."""
    for script in ("set-app-settings.py", "management_api.py"):
        machines.shell(address, f"cat >/tmp/{script}", read_script(ScriptFolder.NODE, script))
    # python3 -c finds modules in the working directory.
    command = "cd /tmp; " + shlex.join([*python, "/tmp/set-app-settings.py", EMAIL, json.dumps(settings)])
    return machines.shell(address, command, f"{password}\n{json.dumps(secrets)}\n")


# Runs a script that is killed after a number of requests: python3 -c … NUMBER SCRIPT ARGUMENT...
KILL_AFTER_REQUESTS = """
import os, runpy, signal, sys

requests = int(sys.argv.pop(1))
del sys.argv[0]

def count(event, _):
    global requests
    if event == "urllib.Request":
        if requests == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        requests -= 1

sys.addaudithook(count)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_settings_api_resets_what_is_missing_and_ignores_unknown_names(single: Machines) -> None:
    before = read_app_settings(SINGLE)
    assert replace_app_settings(SINGLE, {**before, "gopSize": 60, "settings.gopSize": 30})
    changed = read_app_settings(SINGLE)
    assert (changed["gopSize"], "settings.gopSize" in changed) == (60, False)
    assert replace_app_settings(SINGLE, {"hlsTime": "4"})
    reset = read_app_settings(SINGLE)
    assert (reset["gopSize"], reset["hlsTime"]) == (0, "4")
    assert reset["clusterCommunicationKey"] != before["clusterCommunicationKey"]
    assert not replace_app_settings(
        SINGLE, {"publishTokenControlEnabled": True, "publishJwtControlEnabled": True}
    )
    assert replace_app_settings(SINGLE, before)


def test_settings_of_the_stack_take_effect_without_restart_and_keep_those_of_the_panel(
    single: Machines,
) -> None:
    main_process = "systemctl show --property MainPID --value antmedia"
    started = single.shell(SINGLE, main_process).stdout
    before = read_app_settings(SINGLE)
    assert replace_app_settings(SINGLE, {**before, "gopSize": 60})  # in the panel
    assert response_status(SINGLE, VERSION, {"X-Forwarded-For": "203.0.113.9"}) == 403
    settings, secrets = (
        {"LiveApp": {"remoteAllowedCIDR": "203.0.113.0/24"}},
        {"LiveApp": {"jwtSecretKey": "hunter2"}},
    )
    first = run_set_app_settings(single, SINGLE, settings, secrets)
    assert first.stdout == "LiveApp: changed jwtSecretKey, remoteAllowedCIDR\n"
    assert response_status(SINGLE, VERSION, {"X-Forwarded-For": "203.0.113.9"}) == 200
    now = read_app_settings(SINGLE)
    assert (now["gopSize"], now["jwtSecretKey"]) == (60, "hunter2")
    assert run_set_app_settings(single, SINGLE, settings, secrets).stdout == "LiveApp: unchanged\n"
    assert single.shell(SINGLE, main_process).stdout == started
    single.shell(SINGLE, "systemctl restart antmedia")
    wait_until("the server is ready again", lambda: response_status(SINGLE, LIVENESS) == 200)
    wait_until("the settings outlive a restart", lambda: read_app_settings(SINGLE)["gopSize"] == 60)
    assert replace_app_settings(SINGLE, before)


@pytest.mark.parametrize(
    ("settings", "password", "message"),
    [
        ({"LiveApp": {}}, "another password", "cannot log in to the web panel with panelPassword"),
        ({"Missing": {}}, PASSWORD, "has no application Missing (status 500)"),
        ({"LiveApp": {"colour": "red"}}, PASSWORD, "ignores the settings colour: remove them"),
        (
            {"LiveApp": {"playTokenControlEnabled": True, "playJwtControlEnabled": True}},
            PASSWORD,
            "refused the settings of LiveApp (playJwtControlEnabled, playTokenControlEnabled)",
        ),
    ],
)
def test_settings_that_the_server_cannot_have_fail_with_the_reason(
    single: Machines, settings: dict[str, object], password: str, message: str
) -> None:
    log_in(SINGLE)
    result = run_set_app_settings(single, SINGLE, settings, {name: {} for name in settings}, password)
    assert result.returncode == 1
    assert message in result.stderr


def test_settings_are_as_wanted_when_the_step_runs_again_after_it_was_killed(single: Machines) -> None:
    log_in(SINGLE)
    former: dict[str, object] = {name: {"hlsTime": "2"} for name in ("LiveApp", "live")}
    changed: dict[str, object] = {name: {"hlsTime": "4"} for name in former}
    none: dict[str, object] = {name: {} for name in former}
    assert run_set_app_settings(single, SINGLE, former, none).returncode == 0
    before = [{**read_app_settings(SINGLE, name), "updateTime": 0} for name in former]
    # A login, then for each application: read, write, read.
    for requests in range(7):
        killed = ("python3", "-c", KILL_AFTER_REQUESTS, str(requests))
        assert run_set_app_settings(single, SINGLE, changed, none, python=killed).returncode != 0
        assert run_set_app_settings(single, SINGLE, former, none).returncode == 0
        assert [{**read_app_settings(SINGLE, name), "updateTime": 0} for name in former] == before


def test_settings_fail_with_the_reason_when_the_server_does_not_answer(single: Machines) -> None:
    single.shell(SINGLE, "systemctl stop antmedia")
    result = run_set_app_settings(single, SINGLE, {"LiveApp": {}}, {"LiveApp": {}})
    single.shell(SINGLE, "systemctl start antmedia")
    wait_until("the server is ready again", lambda: response_status(SINGLE, NO_STREAM) == 404)
    assert result.returncode == 1
    assert result.stderr.startswith("Ant Media Server's REST API failed: ")


STREAMS = f"{HOME}/webapps/LiveApp/streams"


def list_recordings(machines: Machines) -> list[str]:
    return sorted(machines.shell(SINGLE, f"cd {STREAMS} && ls | grep mp4").stdout.split())


def test_recordings_are_finished_when_their_stream_ends_and_numbered(single: Machines) -> None:
    before = read_app_settings(SINGLE)
    with publish(SINGLE, "unrecorded"):
        wait_until("it is live", lambda: response_status(SINGLE, "/LiveApp/streams/unrecorded.m3u8") == 200)
    assert replace_app_settings(SINGLE, {**before, "mp4MuxingEnabled": True})
    for finished in (["cam.mp4"], ["cam.mp4", "cam_1.mp4"]):
        with publish(SINGLE, "cam"):
            wait_until("it is recorded", lambda: "cam.mp4.tmp_extension" in list_recordings(single))
        wait_until("it is finished", lambda finished=finished: list_recordings(single) == finished)
    assert response_status(SINGLE, "/LiveApp/streams/cam_1.mp4") == 200
    assert response_status(SINGLE, "/LiveApp/streams/cam_2.mp4") == 404
    # Where recordings are in S3, the original redirects to it.
    bucket = {"httpForwardingBaseURL": "https://b.s3.amazonaws.com/", "httpForwardingExtension": "mp4,m3u8"}
    assert replace_app_settings(SINGLE, {**before, **bucket})
    redirect = send_request(SINGLE, "/LiveApp/streams/cam.mp4")
    location = redirect.headers["Location"]
    assert (redirect.status, location) == (302, "https://b.s3.amazonaws.com/streams/cam.mp4")
    assert replace_app_settings(SINGLE, before)


def test_recording_is_left_unfinished_when_s3_does_not_tell_which_name_is_free(single: Machines) -> None:
    before = read_app_settings(SINGLE)
    uploading = {
        "mp4MuxingEnabled": True,
        "s3RecordingEnabled": True,
        "s3BucketName": "b",
        "s3RegionName": "eu-west-1",
    }
    assert replace_app_settings(SINGLE, {**before, **uploading})
    with publish(SINGLE, "lost"):
        wait_until("it is recorded", lambda: "lost.mp4.tmp_extension" in list_recordings(single))
    log = "grep -c 'lost.mp4.tmp_extension is not finished' /var/log/antmedia/ant-media-server.log"
    wait_until("S3 did not answer", lambda: single.shell(SINGLE, log).stdout.strip() == "1")
    assert "lost.mp4.tmp_extension" in list_recordings(single)
    assert replace_app_settings(SINGLE, before)


# A cluster


def test_nodes_list_each_other_and_a_node_without_heartbeat_is_dead(cluster: Machines) -> None:
    for address in (ORIGIN, EDGE):
        assert node_states(address) == {ORIGIN: "alive", EDGE: "alive"}
    for age, state in ((15, "alive"), (25, "dead")):
        silent = {"id": "10.0.0.99", "ip": "10.0.0.99", "lastUpdateTime": int((time.time() - age) * 1000)}
        run_valkey_cli(cluster, "hset", "antmedia:nodes", "10.0.0.99", json.dumps(silent))
        assert node_states(ORIGIN)["10.0.0.99"] == state
    assert send_request(ORIGIN, "/rest/v2/cluster/node/10.0.0.99", "DELETE", log_in(ORIGIN)).status == 200
    assert "10.0.0.99" not in node_states(EDGE)


def test_start_in_cluster_mode_writes_the_applications_settings_as_java_does(cluster: Machines) -> None:
    url = f"redis://default:pass:1@{DATABASE}:6379"
    file = f"{HOME}/webapps/{{}}/WEB-INF/red5-web.properties"
    edit = f"sed -i 's|^db.host=.*|db.host={url}|; 1i# a comment'"
    cluster.shell(EDGE, f"{edit} {file.format('LiveApp')} {file.format('root')}; systemctl restart antmedia")
    wait_until("the edge is ready", lambda: is_ready(EDGE))
    lines = cluster.shell(EDGE, f"cat {file.format('LiveApp')}").stdout.splitlines()
    escaped = url.replace(":", "\\:")
    assert f"db.host={escaped}" in lines
    assert "# a comment" not in lines
    assert url in cluster.shell(EDGE, f"cat {file.format('root')}").stdout


def test_change_server_mode_adds_the_host_name_to_hosts(cluster: Machines) -> None:
    hosts = cluster.shell(ORIGIN, "cat /etc/hosts").stdout
    assert hosts.splitlines().count("10.0.0.8 ip-10-0-0-8") == 1
    assert "127.0.0.1 localhost" in hosts


def test_stream_published_on_the_origin_plays_from_the_edge(cluster: Machines) -> None:
    with publish(ORIGIN, "test"):
        wait_until(
            "the edge serves the stream", lambda: response_status(EDGE, "/LiveApp/streams/test.m3u8") == 200
        )
        playlist = send_request(EDGE, "/LiveApp/streams/test.m3u8")
        assert playlist.headers["Cache-Control"] == "max-age=0"
        assert playlist.headers["Set-Cookie"]
        segment = playlist.body.decode().splitlines()[-1]
        response = send_request(EDGE, f"/LiveApp/streams/{segment}")
        assert (response.status, response.headers["Cache-Control"]) == (200, "max-age=10")
        assert response.headers["X-Stand-In-Node"] == "ip-10-0-0-12"
        assert response.body[0] == 0x47  # MPEG-TS
        files = cluster.shell(EDGE, f"ls {HOME}/webapps/LiveApp/streams").stdout
        assert files == ""
    wait_until(
        "the edge returns 404 after the end",
        lambda: response_status(EDGE, "/LiveApp/streams/test.m3u8") == 404,
    )


def test_change_is_forwarded_to_the_node_that_has_the_stream(cluster: Machines) -> None:
    path = "/LiveApp/rest/v2/broadcasts/kick"
    with publish(ORIGIN, "kick") as ffmpeg:
        wait_until("the stream is live", lambda: response_status(EDGE, path, FROM_LOCALHOST) == 200)
        assert send_request(EDGE, path, headers=FROM_LOCALHOST).json["originAdress"] == ORIGIN
        assert send_request(EDGE, path, "DELETE").status == 403
        assert send_request(EDGE, path, "DELETE", FROM_LOCALHOST).status == 200
        assert ffmpeg.wait(60) != 0
    assert response_status(EDGE, path, FROM_LOCALHOST) == 404


def test_port_5000_serves_only_streams_of_its_node(cluster: Machines) -> None:
    for path in ("/rest/v2/liveness", "/LiveApp/rest/v2/version", "/LiveApp/streams/..%2f..%2fconf"):
        connection = http.client.HTTPConnection(ORIGIN, 5000, timeout=60)
        connection.request("GET", path)
        assert connection.getresponse().status == 404


def test_settings_reach_all_nodes_and_a_new_one_starts_with_them(cluster: Machines) -> None:
    log_in(ORIGIN)
    settings, none = {"live": {"gopSize": 60}}, {"live": {}}
    assert run_set_app_settings(cluster, ORIGIN, settings, none).returncode == 0
    wait_until("the edge has the setting", lambda: read_app_settings(EDGE, "live")["gopSize"] == 60)
    properties = f"{HOME}/webapps/live/WEB-INF/red5-web.properties"
    cluster.shell(EDGE, f"sed -i s/^gopSize=60/gopSize=30/ {properties}; systemctl restart antmedia")
    wait_until("the edge is ready again", lambda: is_ready(EDGE))
    assert read_app_settings(EDGE, "live")["gopSize"] == 60


def test_new_application_runs_on_all_nodes_and_live_streams_go_on(cluster: Machines) -> None:
    """RestServiceV2.createApplication. Other nodes find the application's settings in the cluster's database."""
    path = "/rest/v2/applications/fresh"

    def plays_new_stream() -> bool:
        # Until the RTMP server has read the new application, it refuses the publisher, which then ends.
        with publish(ORIGIN, "new", "fresh") as new:
            wait_until(
                "the stream plays or was refused",
                lambda: new.poll() is not None or response_status(EDGE, "/fresh/streams/new.m3u8") == 200,
            )
            return new.poll() is None

    with publish(ORIGIN, "before") as before:
        wait_until("a stream is live", lambda: response_status(EDGE, "/LiveApp/streams/before.m3u8") == 200)
        assert send_request(ORIGIN, path, "POST", log_in(ORIGIN)).json["success"] is True
        assert send_request(ORIGIN, path, "POST", log_in(ORIGIN)).json["success"] is False
        assert "fresh" in str(send_request(ORIGIN, "/rest/v2/applications", headers=log_in(ORIGIN)).json)
        wait_until("its stream plays on the edge", plays_new_stream)
        assert before.poll() is None
        assert response_status(EDGE, "/LiveApp/streams/before.m3u8") == 200
    cluster.shell(EDGE, "systemctl restart antmedia")
    wait_until("the edge is ready again", lambda: is_ready(EDGE))
    assert response_status(EDGE, "/fresh/streams/nope.m3u8") == 404


def read_key(machines: Machines, address: str) -> str:
    file = f"{HOME}/webapps/LiveApp/WEB-INF/red5-web.properties"
    return machines.shell(address, f"sed -n s/^clusterCommunicationKey=//p {file}").stdout


def test_nodes_agree_on_the_key_of_an_application_and_write_it_to_its_settings(cluster: Machines) -> None:
    assert len(read_key(cluster, ORIGIN)) > 30
    wait_until("they agree", lambda: read_key(cluster, ORIGIN) == read_key(cluster, EDGE))


def test_emptied_registry_knows_a_live_stream_only_after_its_server_restarts(cluster: Machines) -> None:
    playlist = "/LiveApp/streams/forgotten.m3u8"
    key = read_key(cluster, ORIGIN)
    with publish(ORIGIN, "forgotten"):
        wait_until("the edge serves the stream", lambda: response_status(EDGE, playlist) == 200)
        run_valkey_cli(cluster, "flushall")
        wait_until("both nodes are back", lambda: node_states(ORIGIN) == {ORIGIN: "alive", EDGE: "alive"})
        assert (response_status(ORIGIN, playlist), response_status(EDGE, playlist)) == (200, 404)
    cluster.shell(ORIGIN, "systemctl restart antmedia")
    wait_until("the origin is ready", lambda: is_ready(ORIGIN))
    assert read_key(cluster, ORIGIN) == key
    with publish(ORIGIN, "forgotten"):
        wait_until("the edge serves the stream", lambda: response_status(EDGE, playlist) == 200)


def test_without_its_database_a_node_serves_no_playlist_and_stays_healthy(cluster: Machines) -> None:
    playlist = "/LiveApp/streams/alone.m3u8"
    with publish(ORIGIN, "alone") as ffmpeg:
        wait_until("the edge serves the stream", lambda: response_status(EDGE, playlist) == 200)
        run_valkey_cli(cluster, "shutdown", "nosave")
        assert (response_status(ORIGIN, playlist), response_status(EDGE, playlist)) == (500, 500)
        assert response_status(EDGE, LIVENESS) == 200
        assert ffmpeg.poll() is None
        valkey = f"chroot {cluster.folder}/m5/root valkey-server /etc/valkey/test.conf"
        cluster.run(*words(f"ip netns exec m5 {valkey} --daemonize yes --logfile /tmp/log"))
        wait_until("the origin serves the stream again", lambda: response_status(ORIGIN, playlist) == 200)


def test_stopped_node_leaves_the_cluster_at_once(cluster: Machines) -> None:
    wait_until("both nodes are alive", lambda: node_states(ORIGIN) == {ORIGIN: "alive", EDGE: "alive"})
    cluster.shell(EDGE, "systemctl stop antmedia")
    assert node_states(ORIGIN) == {ORIGIN: "alive"}
