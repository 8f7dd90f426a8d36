"""The Ant Media Server stand-in: machines booted from its image and a database, on a network of their own."""

import base64
import hashlib
import http.client
import json
import os
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import split as words

import pytest

from sandbox.cloud.images import SCRIPTS, Layers, build_missing
from sandbox.cloud.process_tree import CLONE_NEWNET, setns

DATABASE, ORIGIN, EDGE, SINGLE = "10.0.0.5", "10.0.0.8", "10.0.0.12", "10.0.0.20"
DATABASE_PASSWORD = "pass&word/with\\signs"
HOME = "/usr/local/antmedia"
FROM_LOCALHOST = {"X-Forwarded-For": "127.0.0.1"}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)


def ask(
    address: str, path: str, method: str = "GET", headers: dict[str, str] | None = None, body: object = None
) -> Answer:
    connection = http.client.HTTPConnection(address, 5080, timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers or {})
        response = connection.getresponse()
        return Answer(response.status, response.msg, response.read())
    finally:
        connection.close()


def cookie(answer: Answer) -> dict[str, str]:
    return {"Cookie": (answer.headers["Set-Cookie"] or "").partition(";")[0]}


def log_in(address: str) -> dict[str, str]:
    md5 = hashlib.md5(b"secret", usedforsecurity=False).hexdigest()
    user = {"email": "admin@example.org", "password": md5}
    ask(address, "/rest/v2/users/initial", "POST", body=user)
    answer = ask(address, "/rest/v2/users/authenticate", "POST", body=user)
    assert answer.json["success"] is True
    return cookie(answer)


def nodes(address: str) -> dict[str, str]:
    answer = ask(address, "/rest/v2/cluster/nodes/0/50", headers=log_in(address))
    return {node["ip"]: node["status"] for node in json.loads(answer.body)}


def status(address: str, path: str, headers: dict[str, str] | None = None) -> int | None:
    """None while connections are refused."""
    try:
        return ask(address, path, headers=headers).status
    except ConnectionError:
        return None


def eventually(condition: str, test: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not test():
        assert time.monotonic() < deadline, f"not within 30 s: {condition}"
        time.sleep(0.05)


class Lab:
    """Namespaces of the network and the mounts, and what runs in them."""

    def __init__(self, folder: Path, image: Layers) -> None:
        self.folder = folder
        self.image = image
        self.keeper = subprocess.Popen(
            words("unshare --mount --net --pid --fork --kill-child --mount-proc")
            + words("--propagation private sleep infinity")
        )
        children = Path(f"/proc/{self.keeper.pid}/task/{self.keeper.pid}/children")
        eventually("the namespaces are there", lambda: children.read_text().strip())
        init = children.read_text().split()[0]
        eventually(
            "the new process has its own mounts",
            lambda: Path(f"/proc/{init}/comm").read_text().strip() == "sleep",
        )
        self.enter = ["nsenter", "--target", init, "--mount", "--net", "--pid"]
        self.network = Path(f"/proc/{init}/ns/net")
        self.leaders: dict[str, str] = {}
        self.run("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
        self.run("mkdir", "-p", "/run/systemd/nspawn")
        self.run("mount", "-t", "tmpfs", "tmpfs", "/run/systemd/nspawn")
        self.run("mount", "-t", "tmpfs", "tmpfs", str(folder))
        self.ip("link set lo up")
        self.ip("link add br0 type bridge")
        self.ip("addr add 10.0.0.1/24 dev br0")
        self.ip("link set br0 up")

    def run(self, *command: str, text: str = "", check: bool = True) -> str:
        done = subprocess.run(
            [*self.enter, *command], input=text, text=True, stdout=subprocess.PIPE, check=check, timeout=30
        )
        return done.stdout

    def ip(self, arguments: str) -> None:
        self.run("ip", *words(arguments))

    def machine(self, address: str, image: Layers) -> Path:
        """A root and a network for one machine."""
        name = f"m{address.rpartition('.')[2]}"
        self.ip(f"netns add {name}")
        self.ip(f"link add v{name} type veth peer name eth0 netns {name}")
        self.ip(f"link set v{name} master br0 up")
        self.ip(f"-n {name} link set lo up")
        self.ip(f"-n {name} addr add {address}/24 dev eth0")
        self.ip(f"-n {name} link set eth0 up")
        self.ip(f"-n {name} route add default via 10.0.0.1")
        root, upper, work = (self.folder / name / part for part in ("root", "upper", "work"))
        self.run("mkdir", "-p", str(root), str(upper), str(work))
        lower = ":".join(map(str, image))
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        self.run("mount", "-t", "overlay", "overlay", "-o", options, str(root))
        return root

    def write(self, file: Path, text: str) -> None:
        self.run("tee", str(file), text=text)

    def boot(self, address: str) -> None:
        root = self.machine(address, self.image)
        name = root.parent.name
        host_name = f"ip-{address.replace('.', '-')}"
        self.write(root / "etc/hostname", f"{host_name}\n")
        self.write(root / "etc/hosts", f"127.0.0.1 localhost\n{address} {host_name}\n")
        self.write(root / "etc/cloud/cloud-init.disabled", "")
        container = subprocess.Popen(
            self.enter
            + words(
                "systemd-nspawn --quiet --boot --register=no --keep-unit --resolv-conf=off --console=pipe"
            )
            + words(f"--network-namespace-path=/run/netns/{name} --machine={name} --directory={root}"),
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.leaders[address] = str(container.pid)

    def shell(self, address: str, command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """As root on a booted machine."""
        nsenter = self.leaders[address]
        nspawn = Path(f"/proc/{nsenter}/task/{nsenter}/children").read_text().split()[0]
        init = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()[0]
        return subprocess.run(
            ["nsenter", "--all", "--target", init, "bash", "-c", command],
            input=text,
            text=True,
            capture_output=True,
            timeout=30,
            check=False,
        )

    def end(self) -> None:
        self.keeper.kill()
        self.keeper.wait()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("AMS_ZIP", raising=False)
        images = build_missing()
    database = with_valkey(tmp_path_factory.mktemp("database"), images["debian-13"])
    lab = Lab(tmp_path_factory.mktemp("machines"), images["ant-media"])
    try:
        with inside(lab):
            start_database(lab, database)
            for address in (ORIGIN, EDGE, SINGLE):
                lab.boot(address)
            for address in (ORIGIN, EDGE, SINGLE):
                eventually(f"{address} is ready", lambda a=address: ready(a))
            yield lab
    finally:
        lab.end()


def with_valkey(folder: Path, layers: Layers) -> Layers:
    """What the database runs, as a layer over `layers`."""
    upper, work, root = (folder / part for part in ("upper", "work", "root"))
    for layer in (upper, work, root):
        layer.mkdir()
    lower = ":".join(map(str, layers))
    script = f"""
        mount -t overlay overlay -o lowerdir={lower},upperdir={upper},workdir={work} {root}
        mount -t tmpfs tmpfs {root}/run
        touch {root}/etc/resolv.conf
        mount --bind /etc/resolv.conf {root}/etc/resolv.conf
        chroot {root} sh -c 'apt-get update -qq && apt-get install -qq --yes valkey-server >/dev/null'
    """
    subprocess.run(
        [*words("unshare --mount --propagation private bash -euc"), script], check=True, timeout=60
    )
    return (upper, *layers)


@contextmanager
def inside(lab: Lab) -> Generator[None]:
    """This thread, and what it starts, in the lab's network."""
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with lab.network.open() as network:
        setns(network.fileno(), CLONE_NEWNET)
    try:
        yield
    finally:
        setns(outside, CLONE_NEWNET)
        os.close(outside)


def start_database(lab: Lab, image: Layers) -> None:
    root = lab.machine(DATABASE, image)
    quoted = DATABASE_PASSWORD.replace("\\", "\\\\")
    lab.write(root / "etc/valkey/test.conf", f'requirepass "{quoted}"\nsave ""\nprotected-mode no\n')
    lab.run(
        "ip",
        "netns",
        "exec",
        "m5",
        "chroot",
        str(root),
        "valkey-server",
        "/etc/valkey/test.conf",
        "--daemonize",
        "yes",
        "--logfile",
        "/tmp/log",
    )


def database(lab: Lab, *command: str) -> str:
    return lab.run(
        "chroot",
        str(lab.folder / "m5/root"),
        "env",
        f"REDISCLI_AUTH={DATABASE_PASSWORD}",
        "valkey-cli",
        "-h",
        DATABASE,
        *command,
    )


def ready(address: str) -> bool:
    return status(address, "/LiveApp/rest/v2/version", FROM_LOCALHOST) == 200


@pytest.fixture
def single(lab: Lab) -> Lab:
    """With the standalone server running, whatever the test before did to it."""
    lab.shell(SINGLE, "systemctl start antmedia")
    eventually("the standalone server is ready", lambda: ready(SINGLE))
    return lab


@pytest.fixture(scope="module")
def cluster(lab: Lab) -> Lab:
    server = {"address": f"redis://{DATABASE}:6379", "password": DATABASE_PASSWORD}
    redisson = json.dumps({"singleServerConfig": server})
    for address in (ORIGIN, EDGE):
        lab.shell(address, f"install -m 600 -o antmedia /dev/stdin {HOME}/conf/redis.yaml", redisson)
    join = f"{HOME}/change_server_mode.sh cluster {HOME}/conf/redis.yaml"
    with ThreadPoolExecutor() as both:
        joining = [both.submit(lab.shell, address, join) for address in (ORIGIN, EDGE)]
    assert [one.result().returncode for one in joining] == [0, 0]
    for address in (ORIGIN, EDGE):
        eventually(f"{address} is ready in the cluster", lambda a=address: ready(a))
    return lab


@contextmanager
def publishing(address: str, stream: str) -> Generator[subprocess.Popen[bytes]]:
    ffmpeg = subprocess.Popen(
        words("ffmpeg -loglevel error -re -f lavfi -i testsrc=size=320x180:rate=15")
        + words(f"-c:v libx264 -preset ultrafast -g 30 -f flv rtmp://{address}/LiveApp/{stream}"),
        stdin=subprocess.DEVNULL,
    )
    try:
        yield ffmpeg
    finally:
        ffmpeg.kill()
        ffmpeg.wait()


# A single server


def phases_of_a_start(lab: Lab) -> list[tuple[str, int | None]]:
    """Whatever liveness and an application answer in turn, as it changes, until both answer 200."""
    lab.shell(SINGLE, "systemctl stop antmedia && systemctl start --no-block antmedia")
    paths = {"liveness": "/rest/v2/liveness", "application": "/LiveApp/rest/v2/version"}
    last: dict[str, int | None] = {}
    seen: list[tuple[str, int | None]] = []

    def both_answer() -> bool:
        for name, path in paths.items():
            now = status(SINGLE, path, FROM_LOCALHOST)
            if name not in last or last[name] != now:
                last[name] = now
                seen.append((name, now))
        return set(last.values()) == {200}

    eventually("liveness and the application answer 200", both_answer)
    return seen


def test_a_start_goes_from_refused_over_500_and_403_to_200_and_the_applications_follow(lab: Lab) -> None:
    def is_the_originals(seen: list[tuple[str, int | None]]) -> bool:
        return (
            [code for name, code in seen if name == "liveness"] == [None, 500, 403, 200]
            and [code for name, code in seen if name == "application"] == [None, 403, 500, 200]
            and seen[-1] == ("application", 200)
        )

    # Some phases are only 0.4 s long: a machine that stalls may sleep through one, but not three times.
    starts: list[list[tuple[str, int | None]]] = []
    while len(starts) < 3 and not (starts and is_the_originals(starts[-1])):
        starts.append(phases_of_a_start(lab))
    assert is_the_originals(starts[-1]), starts


def test_a_stop_closes_the_port_at_once_and_the_process_ends_2_s_later_with_143(single: Lab) -> None:
    def shown(name: str) -> str:
        return single.shell(SINGLE, f"systemctl show antmedia --property {name} --value").stdout.strip()

    single.shell(SINGLE, "systemctl stop --no-block antmedia")
    eventually("the listener is gone", lambda: status(SINGLE, "/rest/v2/liveness") is None)
    assert shown("ActiveState") == "deactivating"
    eventually("it has ended", lambda: shown("ActiveState") == "inactive")
    assert shown("ExecMainStatus") == "143"
    asked, ended = (
        int(shown(f"{change}TimestampMonotonic")) / 1e6 for change in ("ActiveExit", "InactiveEnter")
    )
    assert ended - asked > 1.5


def test_listeners_are_the_originals(single: Lab) -> None:
    ports = single.shell(SINGLE, "ss -Hltn | awk '{print $4}' | grep -v ':22$' | sort").stdout.split()
    assert ports == ["0.0.0.0:1935", "0.0.0.0:5080", "127.0.0.1:9999"]
    assert single.shell(SINGLE, "systemctl is-enabled nginx").stdout.strip() == "disabled"


def test_liveness_is_500_while_the_own_host_name_has_no_address(single: Lab) -> None:
    assert ask(SINGLE, "/rest/v2/liveness").json == {"host": "ip-10-0-0-20", "status": "ok"}
    single.shell(SINGLE, "cp /etc/hosts /root/ && echo 127.0.0.1 localhost >/etc/hosts")
    answer = ask(SINGLE, "/rest/v2/liveness")
    single.shell(SINGLE, "cp /root/hosts /etc/")
    assert (answer.status, answer.headers["Connection"]) == (500, "close")
    assert status(SINGLE, "/rest/v2/liveness") == 200


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
def test_paths_are_normalised_as_tomcat_does(single: Lab, path: str, expected: int) -> None:
    assert status(SINGLE, path) == expected


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
def test_forwarded_for_is_believed_from_private_addresses(
    single: Lab, forwarded_for: str | None, liveness: int, version: int
) -> None:
    headers = {"X-Forwarded-For": forwarded_for} if forwarded_for else {}
    assert status(SINGLE, "/rest/v2/liveness", headers) == liveness
    assert status(SINGLE, "/LiveApp/rest/v2/version", headers) == version


def test_every_context_has_a_session_cookie_of_its_own(single: Lab) -> None:
    https = {"X-Forwarded-Proto": "https"}
    root, secure_root = (ask(SINGLE, "/rest/v2/version", headers=headers) for headers in ({}, https))
    app, secure_app = (ask(SINGLE, "/LiveApp/streams/none.m3u8", headers=headers) for headers in ({}, https))
    attributes = [
        answer.headers["Set-Cookie"].partition(";")[2] for answer in (root, secure_root, app, secure_app)
    ]
    assert attributes == [
        " Path=/; HttpOnly",
        " Path=/; Secure; HttpOnly",
        " Path=/LiveApp; HttpOnly",
        " Path=/LiveApp; Secure; HttpOnly",
    ]
    hsts = [answer.headers["Strict-Transport-Security"] for answer in (root, secure_root, app, secure_app)]
    assert hsts == [None, "max-age=31536000;includeSubDomains", None, None]
    assert [answer.headers["X-Frame-Options"] for answer in (root, app)] == ["DENY", None]
    again = ask(SINGLE, "/LiveApp/streams/none.m3u8", headers=cookie(app))
    assert again.headers["Set-Cookie"] is None


def test_a_client_that_says_http_once_is_not_secure(single: Lab) -> None:
    answer = ask(SINGLE, "/rest/v2/version", headers={"X-Forwarded-Proto": "http, https"})
    assert "Secure" not in answer.headers["Set-Cookie"]


def test_answers_name_the_node_allow_every_origin_and_redirect_relatively(single: Lab) -> None:
    answer = ask(SINGLE, "/LiveApp")
    assert (answer.status, answer.headers["Location"]) == (302, "/LiveApp/")
    assert answer.headers["X-Stand-In-Node"] == "ip-10-0-0-20"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert b"stand-in" in ask(SINGLE, "/").body


def test_the_first_visitor_becomes_the_user_and_logs_in_with_md5_of_the_password(single: Lab) -> None:
    assert ask(SINGLE, "/rest/v2/first-login-status").json["success"] is True
    assert status(SINGLE, "/rest/v2/cluster/nodes/0/50") == 403
    assert ask(SINGLE, "/rest/v2/users/initial", "POST", body={}).status == 500
    session = log_in(SINGLE)
    assert ask(SINGLE, "/rest/v2/first-login-status").json["success"] is False
    other = {"email": "other@example.org", "password": "x"}
    assert ask(SINGLE, "/rest/v2/users/initial", "POST", body=other).json["success"] is False
    assert ask(SINGLE, "/rest/v2/cluster-mode-status", headers=session).json["success"] is False
    assert ask(SINGLE, "/rest/v2/cluster/nodes/0/50", headers=session).status == 500
    plain = {"email": "admin@example.org", "password": "secret"}
    assert ask(SINGLE, "/rest/v2/users/authenticate", "POST", body=plain).json["success"] is True


def test_failed_logins_are_200_and_block(single: Lab) -> None:
    wrong = {"email": "nobody@example.org", "password": "x"}
    answers = [ask(SINGLE, "/rest/v2/users/authenticate", "POST", body=wrong) for _ in range(4)]
    assert {(answer.status, answer.json["success"]) for answer in answers} == {(200, False)}
    assert "blocked" in str(answers[-1].json["message"])
    assert "blocked" not in str(answers[0].json["message"])


def raw(address: str, request: str) -> socket.socket:
    connection = socket.create_connection((address, 5080), timeout=5)
    connection.sendall(request.replace("\n", "\r\n").encode())
    return connection


def test_h2c_is_agreed_to(single: Lab) -> None:
    with raw(
        SINGLE,
        "GET / HTTP/1.1\nHost: x\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\n"
        "HTTP2-Settings: AAMAAABk\n\n",
    ) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")


def test_the_websocket_answers_ping_to_any_origin_and_plain_get_is_404(single: Lab) -> None:
    assert status(SINGLE, "/LiveApp/websocket") == 404
    key = base64.b64encode(bytes(16)).decode()
    with raw(
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
def test_a_database_that_looks_like_none_is_asked_about_and_the_node_stays_standalone(
    single: Lab, database: str
) -> None:
    switch = single.shell(SINGLE, f"{HOME}/change_server_mode.sh cluster {database} </dev/null")
    assert switch.returncode == 1
    assert "(y/n)" in switch.stdout
    assert status(SINGLE, "/rest/v2/liveness") == 200
    assert single.shell(SINGLE, f"grep clusterdb.host= {HOME}/conf/red5.properties").stdout.strip() == (
        "clusterdb.host=localhost"
    )


def test_a_server_that_cannot_use_its_database_stops_and_stays_stopped(single: Lab) -> None:
    state = "systemctl show antmedia --property ActiveState --property Result --value"
    for url, reason in (
        (f"redis://:wrong@{DATABASE}:6379", "refuses the password"),
        (f"redis://{DATABASE}:6379", "refuses the password"),
        ("mongodb://user:a&b@10.0.0.5/?x=1&y=2", "no MongoDB client"),
        (f"redis://{DATABASE}:6380", "cannot be reached"),
    ):
        single.shell(SINGLE, f"truncate --size 0 {HOME}/log/antmedia-error.log")
        single.shell(SINGLE, f"{HOME}/change_server_mode.sh cluster '{url}'")
        eventually(
            f"it has stopped with {url}",
            lambda: single.shell(SINGLE, state).stdout.split() == ["success", "inactive"],
        )
        assert reason in single.shell(SINGLE, f"cat {HOME}/log/antmedia-error.log").stdout
        assert f"clusterdb.host={url}\n" in single.shell(SINGLE, f"cat {HOME}/conf/red5.properties").stdout
        app = single.shell(SINGLE, f"cat {HOME}/webapps/LiveApp/WEB-INF/red5-web.properties").stdout
        assert f"db.host={url}\n" in app
    assert single.shell(SINGLE, f"{HOME}/change_server_mode.sh standalone").returncode == 0


# A cluster


def test_nodes_see_each_other_and_a_silent_one_is_dead(cluster: Lab) -> None:
    for address in (ORIGIN, EDGE):
        assert nodes(address) == {ORIGIN: "alive", EDGE: "alive"}
    for age, state in ((15, "alive"), (25, "dead")):
        silent = {"id": "10.0.0.99", "ip": "10.0.0.99", "lastUpdateTime": int((time.time() - age) * 1000)}
        database(cluster, "hset", "antmedia:nodes", "10.0.0.99", json.dumps(silent))
        assert nodes(ORIGIN)["10.0.0.99"] == state
    assert ask(ORIGIN, "/rest/v2/cluster/node/10.0.0.99", "DELETE", log_in(ORIGIN)).status == 200
    assert "10.0.0.99" not in nodes(EDGE)


def test_change_server_mode_gives_the_host_name_its_address(cluster: Lab) -> None:
    hosts = cluster.shell(ORIGIN, "cat /etc/hosts").stdout
    assert hosts.splitlines().count("10.0.0.8 ip-10-0-0-8") == 1
    assert "127.0.0.1 localhost" in hosts


def test_a_stream_published_on_the_origin_plays_from_the_edge(cluster: Lab) -> None:
    with publishing(ORIGIN, "test"):
        eventually("the edge has it", lambda: status(EDGE, "/LiveApp/streams/test.m3u8") == 200)
        playlist = ask(EDGE, "/LiveApp/streams/test.m3u8")
        assert playlist.headers["Cache-Control"] == "max-age=0"
        assert playlist.headers["Set-Cookie"]
        segment = playlist.body.decode().splitlines()[-1]
        answer = ask(EDGE, f"/LiveApp/streams/{segment}")
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "max-age=10")
        assert answer.headers["X-Stand-In-Node"] == "ip-10-0-0-12"
        assert answer.body[0] == 0x47  # MPEG-TS
        lost = cluster.shell(EDGE, f"ls {HOME}/webapps/LiveApp/streams").stdout
        assert lost == ""
    eventually("its end is known", lambda: status(EDGE, "/LiveApp/streams/test.m3u8") == 404)


def test_a_change_on_another_node_is_made_by_the_one_that_has_the_stream(cluster: Lab) -> None:
    path = "/LiveApp/rest/v2/broadcasts/kick"
    with publishing(ORIGIN, "kick") as ffmpeg:
        eventually("it is live", lambda: status(EDGE, path, FROM_LOCALHOST) == 200)
        assert ask(EDGE, path, headers=FROM_LOCALHOST).json["originAdress"] == ORIGIN
        assert ask(EDGE, path, "DELETE").status == 403
        assert ask(EDGE, path, "DELETE", FROM_LOCALHOST).status == 200
        assert ffmpeg.wait(5) != 0
    assert status(EDGE, path, FROM_LOCALHOST) == 404


def test_port_5000_is_for_streams_of_the_own_node_only(cluster: Lab) -> None:
    for path in ("/rest/v2/liveness", "/LiveApp/rest/v2/version", "/LiveApp/streams/..%2f..%2fconf"):
        connection = http.client.HTTPConnection(ORIGIN, 5000, timeout=5)
        connection.request("GET", path)
        assert connection.getresponse().status == 404


def test_a_stopped_node_leaves_the_cluster_at_once(cluster: Lab) -> None:
    cluster.shell(EDGE, "systemctl stop antmedia")
    assert nodes(ORIGIN) == {ORIGIN: "alive"}


# The real one


def test_an_archive_that_is_no_ant_media_server_is_refused_at_once(tmp_path: Path) -> None:
    archive = tmp_path / "other.zip"
    with zipfile.ZipFile(archive, "w") as other:
        other.writestr("something/else", "")
    script = SCRIPTS / "ant-media.sh"
    done = subprocess.run(
        [script, tmp_path],
        env={**os.environ, "AMS_ZIP": str(archive)},
        stderr=subprocess.PIPE,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{archive} is no Ant Media Server archive")
