"""Tests set-up-media-node.sh on a booted node of the stand-in, with Valkey as the cluster registry."""

import base64
import hashlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.machine_scripts import ScriptFolder, pack_scripts, unpack_scripts
from sandbox.cloud import certificates
from sandbox.cloud.images import build, build_missing
from tests.sandbox.images.ant_media_archive import write_stand_in_archive
from tests.sandbox.images.machines import Machines, enter_network, start_database

NODE, DATABASE = "10.0.0.8", "10.0.0.5"
DATABASE_NAME = "cache.ant-media.test"
HOME = "/usr/local/antmedia"
SCRIPTS = "usr/local/lib/ant-media-cluster"
STREAMS = "http://127.0.0.1:5080/LiveApp/streams/~.m3u8"
VALKEY = """\
requirepass pass:w&rd+1
protected-mode no
port 6379
tls-port 6380
tls-cert-file /etc/valkey/server.pem
tls-key-file /etc/valkey/server.key
tls-ca-cert-file /etc/valkey/ca.pem
tls-auth-clients no
"""
REDIS_URL = f"redis://:pass:w&rd+1@{DATABASE}:6379"


class Node:
    """A node, on which the program's scripts are installed."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines

    def shell(self, command: str, text: str = "") -> str:
        done = self.machines.shell(NODE, command, text, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def set_up(
        self,
        database_url: str,
        *,
        licence: str = "",
        installation: str = "installed",
        mode: str = "cluster",
        zip_url: str = "",
        before: str = "true",
        shared_secret: str = "secret-of-nodes",
        registry: str = "",
        settings: Mapping[str, object] | None = None,
        secret_settings: Mapping[str, object] | None = None,
        live_settings: Mapping[str, object] | None = None,
        password: str = "panel-password",
    ) -> subprocess.CompletedProcess[str]:
        parts = [json.dumps(part or {}) for part in (settings, live_settings)]
        arguments = shlex.join([installation, mode, "admin@ant-media.test", *parts, "LiveApp", "live"])
        command = f"{before}; timeout --verbose 300 /{SCRIPTS}/set-up-media-node.sh {arguments}"
        secret = json.dumps(secret_settings) if secret_settings else ""
        secrets = f"{licence}\n{password}\n{database_url}\n{secret}\n{zip_url}\n{shared_secret}\n{registry}\n"
        return self.machines.shell(NODE, command, secrets, timeout=300)

    def replace_command(self, name: str, text: str) -> str:
        """Returns a command that puts a script before another command: the script runs first."""
        shim = f'#!/usr/bin/env bash\n{text}\nexec /usr/bin/{name} "$@"\n'
        self.shell(f"install -D -m 755 /dev/stdin /run/shim-{name}/{name}", shim)
        return f"PATH=/run/shim-{name}:$PATH"

    def read_property(self, key: str, file: str) -> str:
        """Returns a value as Java's Properties.load does."""
        (line,) = self.shell(f"grep '^{key}=' {HOME}/{file}").splitlines()
        return re.sub(r"\\(.)", r"\1", line.partition("=")[2])


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    machines = Machines(tmp_path_factory.mktemp("machines"), build_missing()["ant-media"])
    layer = tmp_path_factory.mktemp("database")
    tls = layer / "etc/valkey"
    tls.mkdir(parents=True)
    certificates.create(tls, "database", [DATABASE_NAME], DATABASE)
    database = (layer, *build("valkey"))  # a new image needs the host's network
    try:
        with enter_network(machines):
            start_database(machines, DATABASE, database, VALKEY)
            machines.boot(NODE)
            install_scripts(machines, machines.folder / "m8/root", (tls / "ca.pem").read_text())
            yield Node(machines)
    finally:
        machines.stop()


def install_scripts(machines: Machines, root: Path, authority: str) -> None:
    folder = root / SCRIPTS
    machines.run("mkdir", "-p", str(folder))
    for part in unpack_scripts(pack_scripts(ScriptFolder.NODE)).split("=== ")[1:]:
        name, _, text = part.partition("\n")
        machines.write_file(folder / name, text)
        machines.run("chmod", "755", str(folder / name))
    machines.shell(NODE, "cat >>/etc/ssl/certs/ca-certificates.crt", authority)
    machines.shell(NODE, f"echo {DATABASE} {DATABASE_NAME} >>/etc/hosts")
    # The program's scripts run after the boot: install-scripts.sh waits for cloud-init.
    machines.shell(NODE, "until systemctl is-active --quiet basic.target; do sleep 0.1; done")
    # cloud-init, which writes both files, needs a seed. Without the first one, the image's first boot creates another administrator.
    machines.shell(NODE, f"touch {HOME}/conf/initialized")
    machines.shell(NODE, "install -D /dev/stdin /var/lib/cloud/data/instance-id", "i-1\n")


@pytest.fixture
def restart_fails(node: Node) -> str:
    """A command that makes the script fail between its files and the restart of the server."""
    return node.replace_command("systemctl", '[[ "$*" != "restart antmedia" ]] || exit 1')


@pytest.mark.parametrize(
    ("url", "database_type"),
    [
        ("redis://10.0.0.5:6379", "redisdb"),
        ("redis://default:pass:w&rd+1=@cache.ant-media.test:6379/0", "redisdb"),
        ("rediss://:password@cache.ant-media.test:6380", "redisdb"),
        ("mongodb://10.0.0.5", "mongodb"),
        (
            "mongodb://ams:p%40ss%2Fw&rd+@db1.test:27017,db2.test:27018/admin?replicaSet=rs0&w=majority",
            "mongodb",
        ),
        ("mongodb+srv://ams:password@cluster0.ab1cd.mongodb.net/?retryWrites=true&w=majority", "mongodb"),
    ],
)
def test_database_url_is_written_as_given_to_the_server_and_every_application(
    node: Node, restart_fails: str, url: str, database_type: str
) -> None:
    node.set_up(url, before=restart_fails)
    assert node.read_property("clusterdb.host", "conf/red5.properties") == url
    for application in ("LiveApp", "WebRTCAppEE", "live", "root"):
        file = f"webapps/{application}/WEB-INF/red5-web.properties"
        assert node.read_property("db.host", file) == url
        assert node.read_property("db.type", file) == database_type
        assert node.shell(f"stat --format %A:%U {HOME}/{file}").strip() == "-rw-r-----:antmedia"
    assert "placeholder" not in node.shell(f"cat {HOME}/conf/*.properties {HOME}/webapps/*/WEB-INF/*")


def test_nodes_with_one_secret_start_with_the_same_keys(node: Node, restart_fails: str) -> None:
    files = f"{HOME}/webapps/{{LiveApp,live}}/WEB-INF/red5-web.properties"
    keys = "^(clusterCommunicationKey|subscriberAuthenticationKey)="

    def set_up_new(secret: str) -> list[str]:
        # A server that runs may write the files too.
        node.shell(f"systemctl stop antmedia; sed -i -E '/{keys}/d' {files}")
        node.set_up(REDIS_URL, before=restart_fails, shared_secret=secret)
        return node.shell(f"grep -hE '{keys}.{{32}}$' {files}").splitlines()

    one = set_up_new("of-a-cluster")
    assert len(set(one)) == len(one) == 4
    assert set_up_new("of-a-cluster") == one
    assert not set(set_up_new("of-another")) & set(one)


def test_node_keeps_the_keys_that_its_server_has(node: Node, restart_fails: str) -> None:
    assert node.set_up(REDIS_URL, shared_secret="one").returncode == 0
    file = "webapps/LiveApp/WEB-INF/red5-web.properties"
    before = node.read_property("clusterCommunicationKey", file)
    node.set_up(REDIS_URL, before=restart_fails, shared_secret="another")
    assert node.read_property("clusterCommunicationKey", file) == before


@pytest.mark.parametrize("url", [REDIS_URL, f"rediss://default:pass:w&rd+1@{DATABASE_NAME}:6380"])
def test_node_joins_the_cluster_and_a_second_run_does_not_restart_the_server(node: Node, url: str) -> None:
    first = node.set_up(url)
    assert first.stdout.splitlines()[-1] == "Ant Media Server runs in cluster mode", (
        first.stdout + first.stderr
    )
    assert "Starting Ant Media Server" not in node.set_up(url).stdout
    # The server writes its files anew, as Java writes them.
    node.shell(
        f"systemctl restart antmedia; until curl -sf -X OPTIONS {STREAMS} -o /dev/null; do sleep 0.1; done"
    )
    assert "Starting Ant Media Server" not in node.set_up(url).stdout


@pytest.mark.parametrize(
    "url", [REDIS_URL.replace("w&rd", "wrong"), f"rediss://:pass:w&rd+1@{DATABASE}:6379"]
)
def test_failure_is_reported_with_the_last_cause_and_the_settings_taken_back_serve(
    node: Node, url: str
) -> None:
    log = "/var/log/antmedia/antmedia-error.log"
    hasty = f"truncate --size 0 {log}; sed -i s/limit=300/limit=1/ /{SCRIPTS}/set-up-media-node.sh"
    until_it_ends = f"until grep -q '^Caused by: ' {log}; do sleep 0.1; done"
    waits = node.replace_command(
        "systemctl",
        f'[[ "$*" != "restart antmedia" ]] || {{ /usr/bin/systemctl "$@"; {until_it_ends}; exit; }}',
    )
    failed = node.set_up(url, before=f"{hasty}; {waits}")
    node.shell(f"sed -i s/limit=1/limit=300/ /{SCRIPTS}/set-up-media-node.sh")
    assert failed.returncode == 1
    *_, summary, cause = failed.stderr.splitlines()
    assert summary.startswith("Ant Media Server is not ready ")
    assert summary.endswith("(liveness: 000, LiveApp: 000, live: 000). Its log says:")
    assert cause.startswith("Caused by: the database ")
    assert "pass:" not in failed.stdout + failed.stderr
    assert node.set_up(REDIS_URL).returncode == 0


def test_set_up_that_fails_after_its_files_serves_again_with_the_former_settings(
    node: Node, restart_fails: str
) -> None:
    assert node.set_up(REDIS_URL).returncode == 0
    for changed in (
        node.set_up("redis://10.0.0.5:6399", licence="licence-2", before=restart_fails),
        node.set_up("", mode="standalone", before=restart_fails),
    ):
        assert changed.returncode == 1
        back = node.set_up(REDIS_URL)
        assert back.returncode == 0, back.stdout + back.stderr
        assert node.read_property("server.licence_key", "conf/red5.properties") == ""


def test_set_up_that_fails_after_the_start_starts_the_server_with_the_former_settings(node: Node) -> None:
    """The server that started runs with the failed settings."""
    assert node.set_up(REDIS_URL).returncode == 0
    then_fails = node.replace_command(
        "systemctl", '[[ "$*" != "restart antmedia" ]] || { /usr/bin/systemctl "$@"; exit 1; }'
    )
    assert node.set_up(REDIS_URL, licence="licence-2", before=then_fails).returncode == 1
    assert "Starting Ant Media Server" in node.set_up(REDIS_URL).stdout
    assert node.read_property("server.licence_key", "conf/red5.properties") == ""


def test_run_that_an_interrupted_update_left_behind_is_ended(node: Node) -> None:
    hangs = node.replace_command(
        "systemctl", '[[ "$*" != "restart antmedia" ]] || { touch /run/hanging; sleep infinity; }'
    )
    with ThreadPoolExecutor() as thread:
        former = thread.submit(node.set_up, REDIS_URL, licence="licence-2", before=hangs)
        node.shell("until [[ -e /run/hanging ]]; do sleep 0.1; done")
        assert node.set_up(REDIS_URL, licence="licence-3").returncode == 0
        assert former.result().returncode != 0
    assert node.read_property("server.licence_key", "conf/red5.properties") == "licence-3"


RED5 = "conf/red5.properties"
SETTINGS = {
    "server.cpu_limit": 85,
    "server.jwtServerControlEnabled": True,
    "server.statusWebHookURL": "https://a.test/x?y=1",
}
SECRET_SETTINGS = {"server.jwtServerSecretKey": "0123456789\\abcdef:0123456789abcdef"}


def test_log_level_and_server_name_change_without_a_restart(node: Node) -> None:
    def set_up(live: Mapping[str, object], password: str = "panel-password") -> str:
        done = node.set_up(REDIS_URL, licence="licence-3", live_settings=live, password=password)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Starting Ant Media Server" not in done.stdout
        return done.stdout

    assert node.set_up(REDIS_URL, licence="licence-3").returncode == 0
    wanted = {"logLevel": "DEBUG", "server.name": "media.ant-media.test"}
    assert "Changed logLevel, server.name without" in set_up(wanted)
    assert node.read_property("logLevel", RED5) == "DEBUG"
    assert node.read_property("server.name", RED5) == "media.ant-media.test"
    # The API replaces them too.
    assert node.read_property("server.licence_key", RED5) == "licence-3"
    assert node.read_property("nodeGroup", RED5) == "default"
    # Nothing to change needs no login.
    set_up(wanted, password="changed in the panel")
    refused = node.set_up(
        REDIS_URL, licence="licence-3", live_settings={"logLevel": "WARN"}, password="wrong"
    )
    assert refused.returncode == 1
    assert (
        "cannot log in to the web panel with panelPassword, which is needed to set logLevel and server.name."
        in refused.stderr
    )
    assert "Changed logLevel, server.name without" in set_up({})
    assert node.read_property("logLevel", RED5) == "INFO"
    assert node.read_property("server.name", RED5) == ""


def test_server_settings_are_set_by_one_restart_and_get_their_former_values_back(node: Node) -> None:
    def set_up(settings: Mapping[str, object], secrets: Mapping[str, object] | None = None) -> bool:
        """Returns whether the server was restarted."""
        done = node.set_up(REDIS_URL, settings=settings, secret_settings=secrets)
        assert done.returncode == 0, done.stdout + done.stderr
        return "Starting Ant Media Server" in done.stdout

    set_up({})
    assert set_up(SETTINGS, SECRET_SETTINGS)
    assert node.read_property("server.cpu_limit", RED5) == "85"
    assert node.read_property("server.jwtServerControlEnabled", RED5) == "true"
    assert (
        node.read_property("server.jwtServerSecretKey", RED5) == SECRET_SETTINGS["server.jwtServerSecretKey"]
    )
    assert node.read_property("server.statusWebHookURL", RED5) == "https://a.test/x?y=1"
    assert node.shell(f"stat --format %A:%U {HOME}/{RED5}").strip() == "-rw-r-----:antmedia"
    # Of the program's own commands, each works with the panel's tokens switched on.
    assert not set_up(SETTINGS, SECRET_SETTINGS)
    # Changed by hand: the next run restores it.
    node.shell(f"sed -i s/^server.cpu_limit=.*/server.cpu_limit=20/ {HOME}/{RED5}")
    assert set_up(SETTINGS, SECRET_SETTINGS)
    assert node.read_property("server.cpu_limit", RED5) == "85"
    assert set_up({"server.cpu_limit": 90})
    assert node.read_property("server.cpu_limit", RED5) == "90"
    assert node.read_property("server.jwtServerControlEnabled", RED5) == "false"
    assert node.read_property("server.jwtServerSecretKey", RED5) == ""
    assert "statusWebHookURL" not in node.shell(f"cat {HOME}/{RED5}")
    assert set_up({})
    assert node.read_property("server.cpu_limit", RED5) == "75"
    assert not set_up({})


def test_server_settings_taken_back_after_a_failed_set_up_are_the_former_ones(
    node: Node, restart_fails: str
) -> None:
    assert node.set_up(REDIS_URL).returncode == 0
    failed = node.set_up(REDIS_URL, settings=SETTINGS, before=restart_fails)
    assert failed.returncode == 1
    assert node.read_property("server.cpu_limit", RED5) == "85"
    assert node.set_up(REDIS_URL, settings=SETTINGS, before=restart_fails).returncode == 1
    back = node.set_up(REDIS_URL)
    assert back.returncode == 0, back.stdout + back.stderr
    assert "Starting Ant Media Server" in back.stdout
    assert node.read_property("server.cpu_limit", RED5) == "75"


def test_load_limits_and_applications_are_shown(node: Node) -> None:
    assert node.set_up(REDIS_URL, settings={"server.cpu_limit": 85}).returncode == 0
    show = f"/{SCRIPTS}/show-server.py admin@ant-media.test"
    node.shell("echo 90 >/run/antmedia/cpu-load; echo 40 >/run/antmedia/memory-load")
    shown = json.loads(node.shell(show, "panel-password\n"))
    assert shown == {
        "cpu_load": 90,
        "cpu_limit": 85,
        "memory_load": 40,
        "memory_limit": 75,
        "applications": ["LiveApp", "WebRTCAppEE", "live"],
    }
    refused = node.machines.shell(NODE, show, "wrong\n")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert refused.stderr == "admin@ant-media.test cannot log in to the web panel with panelPassword\n"
    node.shell("rm /run/antmedia/*-load")


def read_version(node: Node) -> str:
    return node.shell(f'grep -oP \'versionName": "\\K[^"]*\' {HOME}/standin/root.py').strip()


def test_zip_upgrades_the_server_and_one_that_does_not_start_is_taken_back(
    node: Node, tmp_path: Path
) -> None:
    sources: dict[str, tuple[str, str]] = {}
    for version in ("3.1.0", "3.2.0"):
        zip = write_stand_in_archive(tmp_path / version, version, starts=version == "3.1.0").read_bytes()
        node.shell(f"base64 -d >/opt/{version}.zip", base64.b64encode(zip).decode())
        sources[version] = f"zip:{hashlib.sha256(zip).hexdigest()}", f"file:///opt/{version}.zip"

    # A server that does not start is started again at once, and not after 5 seconds.
    node.shell(
        "install -D /dev/stdin /etc/systemd/system/antmedia.service.d/zz-at-once.conf",
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=100ms\n",
    )
    node.shell("systemctl daemon-reload")

    def set_up(version: str) -> subprocess.CompletedProcess[str]:
        source, url = sources[version]
        return node.set_up(REDIS_URL, installation=source, zip_url=url)

    assert node.set_up(REDIS_URL, licence="licence-1").returncode == 0
    assert set_up("3.2.0").returncode == 1
    assert read_version(node) == "3.2.0"
    back = node.set_up(REDIS_URL, licence="licence-1")
    assert back.returncode == 0, back.stdout + back.stderr
    assert read_version(node) == "3.0.3"
    upgraded = set_up("3.1.0")
    assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr
    assert read_version(node) == "3.1.0"
    broken = set_up("3.2.0")
    assert broken.returncode == 1
    assert broken.stderr.splitlines()[-2:] == [
        "Ant Media Server does not start: it ended 5 times. Its log says:",
        "Caused by: this version is broken",
    ]
    node.shell("rm /opt/*.zip")
    back = set_up("3.1.0")
    assert back.returncode == 0, back.stdout + back.stderr
    assert read_version(node) == "3.1.0"
    assert "Starting Ant Media Server" not in set_up("3.1.0").stdout
    assert node.set_up(REDIS_URL).stderr.startswith(
        "This machine runs the server of an amsZip, which is not set any more."
    )
    # An image of this machine.
    node.shell("echo i-2 >/var/lib/cloud/data/instance-id; echo another >/usr/local/antmedia/conf/instanceId")
    assert node.set_up(REDIS_URL, licence="licence-1").returncode == 0
    assert node.shell(f"cat {HOME}/conf/instanceId").strip() != "another"
    node.shell("rm /etc/systemd/system/antmedia.service.d/zz-at-once.conf; systemctl daemon-reload")


INSTALLER = f"""
if [[ -d {HOME} ]]; then mv {HOME} {HOME}-backup-$RANDOM; fi
mkdir {HOME}
[[ -e /run/installer-works ]] || exit 1
rmdir {HOME}
cp -a /opt/antmedia {HOME}
systemctl start antmedia
echo "Ant Media Server is installed and started."
"""


def test_installer_that_failed_halfway_runs_again(node: Node) -> None:
    node.shell(f"systemctl stop antmedia; mv {HOME} /opt/antmedia; rm -r /var/lib/ant-media-cluster")
    node.shell("cat >/opt/installer", INSTALLER)
    download = node.replace_command(
        "curl",
        """[[ "$*" != *install_ant-media-server.sh ]] || while shift; do
            [[ $1 != --output ]] || { cp /opt/installer "$2"; exit; }
        done""",
    )
    other = node.set_up("", installation="install", mode="standalone", before=download)
    assert "WARNING: 1 computed checksum did NOT match" in other.stderr
    checksum = hashlib.sha256(INSTALLER.encode()).hexdigest()
    node.shell(
        f"sed -i 's/^readonly installer_sha256=.*/readonly installer_sha256={checksum}/' /{SCRIPTS}/set-up-media-node.sh"
    )
    failed = node.set_up("", installation="install", mode="standalone", before=download)
    assert failed.stderr.startswith(
        "Ant Media's installer failed. The end of /var/log/install-ant-media.log:"
    )
    node.shell("touch /run/installer-works")
    again = node.set_up("", installation="install", mode="standalone", before=download)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Installing Ant Media Server" in again.stdout
    third = node.set_up("", installation="install", mode="standalone", before=download)
    assert "Installing Ant Media Server" not in third.stdout


def test_server_stops_when_its_finished_recordings_are_uploaded(node: Node) -> None:
    """The server deletes a recording when it is uploaded. Here the test does."""
    assert node.set_up(REDIS_URL).returncode == 0
    recording, properties = (
        f"{HOME}/webapps/LiveApp/{path}" for path in ("streams/a.mp4", "WEB-INF/red5-web.properties")
    )
    node.shell(f"install -D -o antmedia /dev/null {recording}")
    node.shell(f"sed -i '/^s3RecordingEnabled/d' {properties} && echo s3RecordingEnabled=true >>{properties}")
    node.shell("systemctl stop --no-block antmedia")
    node.shell("until systemctl show -p SubState ant-media-uploads | grep stop; do sleep 0.1; done")
    assert node.shell("systemctl is-active antmedia").strip() == "active"
    node.shell(f"rm {recording}")
    node.shell("until [[ $(systemctl is-active antmedia) == inactive ]]; do sleep 0.1; done")
    # A recording that S3 refused is older, and does not hold the server up. Nor does one that is not to be uploaded.
    for prepare in (
        f"touch -d '-1 hour' {recording}",
        f"touch {recording} && sed -i 's/^s3RecordingEnabled=.*/s3RecordingEnabled=false/' {properties}",
    ):
        assert node.set_up(REDIS_URL).returncode == 0
        node.shell(f"{prepare} && timeout 60 systemctl stop antmedia")
