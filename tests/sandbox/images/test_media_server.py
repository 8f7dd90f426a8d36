"""Tests the selection of the sandbox's server, and the installation of a real one in a machine image."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cloud.images import Layers, build_missing
from sandbox.cloud.media_server import (
    Archive,
    add_applications,
    check,
    find_cluster_settings,
    read_archive,
)
from tests.project import PROJECT
from tests.sandbox.images.ant_media_archive import CLUSTER_CLASS, write_archive

NAMESPACE = "ant-media-cluster"


def settings(**values: object) -> dict[str, Any]:
    return {"config": {f"{NAMESPACE}:{key}": value for key, value in values.items()}}


@pytest.fixture
def community(tmp_path: Path) -> Archive:
    return read_archive(write_archive(tmp_path / "ant-media-server.zip", enterprise=False))


@pytest.fixture
def enterprise(tmp_path: Path) -> Archive:
    return read_archive(write_archive(tmp_path / "ant-media-server.zip", enterprise=True))


# The edition


def test_edition_is_read_from_the_jars_and_not_from_the_file_name(tmp_path: Path) -> None:
    misnamed = {"ant-media-server-enterprise.zip": False, "ant-media-server-community.zip": True}
    editions = {
        name: read_archive(write_archive(tmp_path / name, enterprise=enterprise)).edition
        for name, enterprise in misnamed.items()
    }
    assert editions == {
        "ant-media-server-enterprise.zip": "Community",
        "ant-media-server-community.zip": "Enterprise",
    }


@pytest.mark.parametrize("content", [None, b"", b"not a zip", b"PK\5\6" + bytes(18)])
def test_file_that_is_no_archive_of_the_server_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as refused:
        read_archive(path)
    reason = "the file does not exist" if content is None else "not an archive of Ant Media Server"
    assert str(refused.value).startswith(f"AMS_ZIP={path}: {reason}")
    assert str(refused.value).endswith("give the path of an ant-media-server-….zip, or AMS_ZIP=stand-in.")


def test_community_edition_with_several_nodes_is_refused_with_the_settings_to_change(
    community: Archive,
) -> None:
    with pytest.raises(SystemExit) as refused:
        check(community, [settings(edges={"count": 3})])
    assert str(refused.value) == (
        f"AMS_ZIP={community.path} is the Community Edition, which has no cluster mode (no jar contains"
        f" {CLUSTER_CLASS}) and runs as a single node. Nothing was changed.\n"
        "  ant-media-cluster:origins.count is 2; set ant-media-cluster:origins: {count: 1} in Pulumi.sandbox.yaml.\n"
        "  ant-media-cluster:edges.count is 3; set ant-media-cluster:edges: {count: 0} in Pulumi.sandbox.yaml.\n"
        "  Or give the path of an Enterprise Edition."
    )


def test_community_edition_with_a_database_is_refused() -> None:
    single_node = settings(origins='{"count": 1}', edges={"count": 0})
    assert find_cluster_settings([single_node]) == []
    assert find_cluster_settings([single_node, settings(databaseUrl={"secure": "v1:…"})]) == [
        "ant-media-cluster:databaseUrl is set; run sandbox/bin/pulumi config rm databaseUrl."
    ]


def test_enterprise_edition_and_stand_in_run_with_any_number_of_nodes(enterprise: Archive) -> None:
    for server in (enterprise, None):
        check(server, [settings(origins={"count": 9})])


# The applications


def test_applications_default_to_those_of_the_edition(community: Archive, enterprise: Archive) -> None:
    key = f"{NAMESPACE}:applications"
    assert add_applications(None, settings()) == settings()
    assert add_applications(community, settings())["config"][key] == ["LiveApp", "live", "WebRTCApp"]
    assert add_applications(enterprise, {})["config"][key] == ["LiveApp", "WebRTCAppEE", "live"]
    assert add_applications(community, settings(applications=["live"])) == settings(applications=["live"])


# The selection


class State:
    """A state folder of a sandbox. A `boot_id` in it stands for a running cloud."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.boot_id = folder / "boot_id"

    def run(self, *arguments: str, text: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sandbox.cloud.media_server", *arguments],
            cwd=PROJECT,
            env={**os.environ, "SANDBOX_STATE": str(self.folder)},
            input=text,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def select(self, ams_zip: str, *options: str, code: int = 0) -> str:
        """Selects a server as `make up` does, and returns what it prints."""
        requested = ["--requested"] if ams_zip else []
        server = self.run("select", ams_zip)
        return self.run("use", "--server", server, *requested, *options, code=code)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


def test_plain_make_up_keeps_the_server_that_runs(state: State, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "server.zip", enterprise=True)
    assert state.select("") == ""
    assert state.select(str(path)) == f"==> Installing {path} (Enterprise Edition) instead of the stand-in\n"
    state.boot_id.touch()
    keeping = f"==> Keeping the Ant Media Server of the sandbox: {path} (Enterprise Edition). AMS_ZIP=stand-in removes it.\n"
    assert state.select("") == keeping
    assert state.select(str(path)) == ""
    path.rename(tmp_path / "moved.zip")
    assert state.select("") == keeping
    assert state.select(str(tmp_path / "moved.zip")) == ""
    assert state.boot_id.exists()


def test_change_of_the_server_is_announced_and_stops_the_cloud(state: State, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "server.zip", enterprise=True)
    state.select(str(path))
    state.boot_id.touch()
    refusal = state.select("stand-in", "--beside-others", code=1)
    assert refusal == (
        f"AMS_ZIP=stand-in: the local cloud runs another Ant Media Server, {path} (Enterprise Edition);"
        " leave out AMS_ZIP, or run make down first.\n"
    )
    assert state.boot_id.exists()
    announcement, loss, *_ = state.select("stand-in").splitlines()
    assert announcement == (
        f"==> Replacing the Ant Media Server of the sandbox: {path} (Enterprise Edition) -> the stand-in"
    )
    assert loss == "    The local cloud restarts: users, settings and recordings of the nodes are deleted."
    assert not state.boot_id.exists()
    assert json.loads(state.run("select", "")) is None


def test_archive_that_was_rebuilt_at_the_same_path_is_noticed(state: State, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "server.zip", enterprise=True, version="3.0.2")
    state.select(str(path))
    before, times = path.stat().st_size, path.stat()
    write_archive(path, enterprise=True)  # the tests of the image build this one too
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_size == before
    state.boot_id.touch()
    assert (
        f"    The file has changed since it was installed: make up AMS_ZIP={path} installs it again."
        in state.select("").splitlines()
    )
    assert state.boot_id.exists()
    announcement = state.select(str(path)).splitlines()[0]
    assert announcement == f"==> Replacing the Ant Media Server of the sandbox: {path} has changed"
    assert not state.boot_id.exists()


def test_make_up_refuses_an_unusable_server_before_it_changes_anything(state: State, tmp_path: Path) -> None:
    def run_up(ams_zip: Path) -> str:
        done = subprocess.run(
            [PROJECT / "sandbox/bin/up"],
            env={**os.environ, "SANDBOX_STATE": str(state.folder), "AMS_ZIP": str(ams_zip)},
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert not state.folder.exists()
        return done.stderr

    community = write_archive(tmp_path / "server.zip", enterprise=False)
    assert "ant-media-cluster:origins.count is 2; set ant-media-cluster:origins: {count: 1}" in run_up(
        community
    )
    assert "the file does not exist" in run_up(tmp_path / "missing.zip")


def test_settings_command_adds_applications_of_the_recorded_server(state: State, tmp_path: Path) -> None:
    path = write_archive(tmp_path / "server.zip", enterprise=False)
    state.select(str(path))
    text = yaml.safe_dump(settings(origins={"count": 1}, edges={"count": 0}))
    written = yaml.safe_load(state.run("settings", text=text))
    assert written["config"][f"{NAMESPACE}:applications"] == ["LiveApp", "live", "WebRTCApp"]
    file = tmp_path / "Pulumi.sandbox.yaml"
    file.write_text(text)
    assert state.run("check", str(file)) == ""
    file.write_text(yaml.safe_dump(settings()))
    assert "ant-media-cluster:origins.count is 2; set " in state.run("check", str(file), code=1)


# The installation


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Layers:
    path = write_archive(
        tmp_path_factory.mktemp("archive") / "ant-media-server.zip", enterprise=True, version="A"
    )
    return build_missing(read_archive(path))["ant-media"]


def run_on_overlay(image: Layers, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a shell script in the image's tree. What it writes stays in `folder`/upper."""
    mount = f"lowerdir={':'.join(map(str, image))},upperdir={folder}/upper,workdir={folder}/work"
    commands = f"""
        mount -t overlay overlay -o {mount} {folder}/root
        mount -t proc proc {folder}/root/proc
        chroot {folder}/root bash -euc "$1"
    """
    return subprocess.run(
        # systemctl recognizes the chroot by process 1.
        ["unshare", "--mount", "--pid", "--fork", "bash", "-ec", commands, "bash", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )


def run_in_image(image: Layers, folder: Path, script: str) -> str:
    """Runs a shell script in the image's tree. What it writes goes to `folder`."""
    for layer in ("upper", "work", "root"):
        (folder / layer).mkdir()
    done = run_on_overlay(image, folder, script)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_native_libraries_are_where_the_unit_expects_them(image: Layers) -> None:
    library = image[0] / "usr/local/antmedia/lib"
    assert sorted(path.name for path in library.glob("native*")) == ["native"]
    assert (library / "native/libtcnative-1.so").read_text() == f"{os.uname().machine}\n"


def test_files_belong_to_the_servers_user(image: Layers, tmp_path: Path) -> None:
    script = """
        cd /usr/local/antmedia
        stat --format '%U:%G %a %n' . conf/red5.properties create_app.sh /var/log/antmedia
        readlink log
        getent passwd antmedia | cut -d : -f 6,7
        ls conf
        ls -d /usr/local/antmedia*
        stat --format '%U:%G %a' /etc/systemd/system/antmedia.service
        systemctl is-enabled antmedia 2>/dev/null
    """
    assert run_in_image(image, tmp_path, script).splitlines() == [
        "antmedia:antmedia 755 .",
        "antmedia:antmedia 640 conf/red5.properties",
        "antmedia:antmedia 755 create_app.sh",
        "antmedia:antmedia 755 /var/log/antmedia",
        "/var/log/antmedia",
        "/usr/local/antmedia:/bin/false",
        "jee-container.xml",
        "red5.properties",
        "/usr/local/antmedia",
        "root:root 644",
        "enabled",
    ]


def test_java_accepts_the_options_of_the_unit(image: Layers, tmp_path: Path) -> None:
    script = """
        export $(sed -n 's/^Environment=//p' /etc/systemd/system/antmedia.service.d/java.conf)
        "$JAVA_HOME/bin/java" -XX:+UseBiasedLocking -version
    """
    assert 'openjdk version "' in run_in_image(image, tmp_path, script)


def test_packages_for_new_applications_are_installed(image: Layers, tmp_path: Path) -> None:
    script = "cd /tmp && touch file && zip -q app.war file && unzip -l app.war && curl --version"
    assert "file" in run_in_image(image, tmp_path, script)


def test_logs_are_rotated(image: Layers, tmp_path: Path) -> None:
    script = """
        cd /var/log/antmedia
        for log in antmedia-error.log 0.0.0.0_access.2026-11-26.log; do echo text >$log; chown antmedia: $log; done
        logrotate --force /etc/logrotate.d/antmedia
        stat --format '%U %s %n' *
    """
    assert run_in_image(image, tmp_path, script).splitlines() == [
        "antmedia 0 0.0.0.0_access.2026-11-26.log",
        "antmedia 5 0.0.0.0_access.2026-11-26.log.1",
        "antmedia 0 antmedia-error.log",
        "antmedia 5 antmedia-error.log.1",
    ]


# The upgrade


class Node:
    """A machine's tree with the server A. Its changes stay from one command to the next."""

    def __init__(self, image: Layers, folder: Path) -> None:
        self.folder = folder
        for layer in ("upper", "work", "root"):
            (folder / layer).mkdir()
        (folder / "upper/opt").mkdir()
        for name in ("every-machine/prelude.sh", "node/install-ant-media-server.sh"):
            shutil.copy(PROJECT / "templates/scripts" / name, folder / "upper/opt")
        self._layers = image

    def try_to_run(self, script: str) -> subprocess.CompletedProcess[str]:
        return run_on_overlay(self._layers, self.folder, script)

    def run(self, script: str) -> str:
        done = self.try_to_run(script)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install(self, zip: Path, *, checksum: str = "", mode: str = "cluster") -> str:
        """Installs a zip, and returns the last line of the output that systemctl did not print."""
        (self.folder / "upper/opt/server.zip").write_bytes(zip.read_bytes())
        checksum = checksum or hashlib.sha256(zip.read_bytes()).hexdigest()
        script = f"/opt/install-ant-media-server.sh {checksum} {mode} <<<file:///opt/server.zip"
        lines = self.try_to_run(script).stdout.splitlines()
        return ["", *(line for line in lines if not line.startswith("Running in chroot"))][-1]

    def list_servers(self) -> dict[str, str]:
        """Returns the version of each folder of a server."""
        script = "cd /usr/local && for f in antmedia*; do echo $f $(cat $f/webapps/LiveApp/index.html); done"
        return dict(line.split() for line in self.run(script).splitlines())


@pytest.fixture
def node(image: Layers, tmp_path: Path) -> Node:
    (tmp_path / "node").mkdir()
    return Node(image, tmp_path / "node")


@pytest.fixture
def b(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "b.zip", enterprise=True, version="B")


def test_upgrade_keeps_what_ant_medias_installer_keeps(node: Node, b: Path) -> None:
    node.run("""
        cd /usr/local/antmedia
        sed -i s/5080/5081/ conf/red5.properties
        echo "<!-- the user's -->" >conf/jee-container.xml
        echo key=users >>webapps/LiveApp/WEB-INF/red5-web.properties
        install -D -m 0600 /dev/stdin webapps/mine/WEB-INF/red5-web.properties <<<"key=mine"
        mkdir webapps/LiveApp/streams /mnt/storage
        echo recording >webapps/LiveApp/streams/a.mp4
        ln -s /mnt/storage webapps/mine/streams
        touch server.db conf/instanceId conf/initialized
    """)
    assert node.install(b) == "Upgrading Ant Media Server"
    assert node.list_servers() == {"antmedia": "B", "antmedia.previous": "A"}
    settings = """
        cd /usr/local/antmedia
        cat conf/red5.properties conf/jee-container.xml webapps/{LiveApp,mine}/WEB-INF/red5-web.properties
        cat webapps/LiveApp/streams/a.mp4
        readlink webapps/mine/streams
        ls conf *.db
        stat --format %U webapps/mine/WEB-INF/red5-web.properties
    """
    assert node.run(settings).splitlines() == [
        "server.licence_key=", "http.port=5081", "onlyInA=true", "", "onlyInB=true",
        "<!-- the user's -->",
        "webapp.contextPath=/LiveApp", "key=users", "key=mine",
        "recording",
        "/mnt/storage",
        "server.db", "", "conf:", "initialized", "jee-container.xml", "red5.properties",
        "antmedia",
    ]  # fmt: skip


def test_nothing_changes_if_the_zip_is_installed(node: Node, b: Path) -> None:
    node.install(b)
    before = node.run("stat --format %i /usr/local/antmedia")
    assert node.install(b) == ""
    assert node.run("stat --format %i /usr/local/antmedia") == before


def test_server_that_was_never_ready_is_replaced_by_the_one_before_without_a_download(
    node: Node, image: Layers, b: Path
) -> None:
    a = (image[0] / "usr/local/antmedia/zip.sha256").read_text().strip()
    node.run("cd /usr/local/antmedia/webapps/LiveApp && mkdir streams && echo 1 >streams/1.mp4")
    node.install(b)
    # HAProxy may have sent it publishers all the same, if it became ready later.
    node.run(
        "cd /usr/local/antmedia/webapps/LiveApp && echo 2 >streams/2.mp4 && echo broken=true >>WEB-INF/red5-web.properties"
    )
    b.write_bytes(b"the zip of A is not there any more")
    assert node.install(b, checksum=a) == "Putting back the server that ran before the last upgrade"
    assert node.list_servers() == {"antmedia": "A"}
    script = "cd /usr/local/antmedia/webapps/LiveApp && cat streams/* WEB-INF/red5-web.properties"
    assert node.run(script).splitlines() == ["1", "2", "webapp.contextPath=/LiveApp"]


@pytest.mark.parametrize(
    "moved", ["mv antmedia antmedia.previous", "mv antmedia antmedia.previous; mkdir antmedia"]
)
def test_interrupted_upgrade_is_repeated(node: Node, b: Path, moved: str) -> None:
    node.run(f"cd /usr/local && echo key=users >>antmedia/conf/red5.properties && {moved}")
    assert node.install(b) == "Upgrading Ant Media Server"
    assert node.list_servers() == {"antmedia": "B", "antmedia.previous": "A"}
    assert "key=users" in node.run("cat /usr/local/antmedia/conf/red5.properties").splitlines()


def test_wrong_zip_is_refused_and_the_server_is_as_it_was(node: Node, tmp_path: Path, b: Path) -> None:
    community = write_archive(tmp_path / "community.zip", enterprise=False, version="C")
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("something/else", "")
    half = tmp_path / "half.zip"
    half.write_bytes(b.read_bytes()[:1000])
    checksum = hashlib.sha256(b.read_bytes()).hexdigest()
    found = hashlib.sha256(half.read_bytes()).hexdigest()
    assert node.install(half, checksum=checksum) == (
        f"amsZip.sha256 is {checksum}, but the file at amsZip.url has {found}, so Ant Media Server is as it was."
        " If this is the right file, give its checksum."
    )
    assert node.install(half).startswith("The file at amsZip.url is not an archive of Ant Media Server: ")
    assert node.install(other).startswith("The file at amsZip.url is not an archive of Ant Media Server: ")
    assert node.install(community).startswith(
        "The file at amsZip.url is the Community Edition, which has no cluster mode."
    )
    assert node.list_servers() == {"antmedia": "A"}
    assert node.run("ls -A /var/lib/ant-media-cluster /usr/local | grep antmedia") == "antmedia\n"
    assert node.install(community, mode="standalone") == "Upgrading Ant Media Server"


def test_failed_download_is_reported_without_the_url(node: Node) -> None:
    script = "/opt/install-ant-media-server.sh 00 cluster <<<file:///the-key-in-the-url.zip"
    done = node.try_to_run(script)
    assert done.returncode == 1
    assert done.stdout.startswith("The download of amsZip.url failed, so Ant Media Server is as it was: ")
    assert node.list_servers() == {"antmedia": "A"}
