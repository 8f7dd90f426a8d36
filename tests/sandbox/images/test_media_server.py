"""Tests the selection of the sandbox's server, and the installation of a real one in a machine image."""

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


def test_installer_refuses_an_archive_of_something_else(tmp_path: Path) -> None:
    archive = tmp_path / "other.zip"
    with zipfile.ZipFile(archive, "w") as other:
        other.writestr("something/else", "")
    done = subprocess.run(
        [PROJECT / "sandbox/images/install-ant-media-server.sh", archive],
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{archive} is not an Ant Media Server archive")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Layers:
    path = write_archive(tmp_path_factory.mktemp("archive") / "ant-media-server.zip", enterprise=True)
    return build_missing(read_archive(path))["ant-media"]


def run_in_image(image: Layers, folder: Path, script: str, *files: Path) -> str:
    """Runs a shell script in the image's tree, with files in /opt. What it writes goes to `folder`."""
    for layer in ("upper", "work", "root"):
        (folder / layer).mkdir()
    (folder / "upper/opt").mkdir()
    for file in files:
        shutil.copy(file, folder / "upper/opt")
    mount = f"lowerdir={':'.join(map(str, image))},upperdir={folder}/upper,workdir={folder}/work"
    commands = f"""
        mount -t overlay overlay -o {mount} {folder}/root
        mount -t proc proc {folder}/root/proc
        exec chroot {folder}/root bash -euc "$1"
    """
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-ec", commands, "bash", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
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


def test_installation_is_not_repeated_over_an_installed_server(image: Layers, tmp_path: Path) -> None:
    installer = PROJECT / "sandbox/images/install-ant-media-server.sh"
    archive = write_archive(tmp_path / "server.zip", enterprise=False)
    script = f"/opt/{installer.name} /opt/{archive.name}"
    output = run_in_image(image, tmp_path, script, installer, archive)
    assert output == "Ant Media Server is installed in /usr/local/antmedia; nothing changes.\n"
