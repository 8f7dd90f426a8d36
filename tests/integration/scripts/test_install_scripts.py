"""Tests install-scripts.sh in a Debian 13 tree, after cloud-init."""

import subprocess
from pathlib import Path

import pytest

from cluster.machine_scripts import ScriptFolder, pack, read_script

RUN_IN_TREE = """
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount --bind /dev "$FOLDER/root/dev"
mount -t proc proc "$FOLDER/root/proc"
chroot "$FOLDER/root" env SUDO_USER=root bash -c "$SCRIPT" "" /opt/scripts 16 "ssh-ed25519 AAAA" "ssh-ed25519 BBBB"
"""
# As cloud-init 22 to 25 write it.
RESULT = '{\n "v1": {\n  "datasource": "DataSourceEc2Local",\n  "errors": [%s]\n }\n}\n'
SCRIPTS = {
    "configure-system.sh": "#!/bin/sh\necho configured >>/configured\n",
    "first.sh": "#!/bin/sh\necho 'one  two' \\\\ $0\n",
    "second.py": "print('ä')\n\n",
    "without-end.sh": "#!/bin/sh\n",
}


@pytest.fixture
def tree(layers: str, tmp_path: Path) -> dict[str, str]:
    for part in ("opt/scripts", "usr/local/bin", "root/.ssh", "run/cloud-init"):
        (tmp_path / "upper" / part).mkdir(parents=True)
    for part in ("work", "root"):
        (tmp_path / part).mkdir()
    (tmp_path / "upper/opt/scripts/of-another-release.sh").touch()
    (tmp_path / "upper/run/cloud-init/result.json").write_text(RESULT % "")
    script = read_script(ScriptFolder.EVERY_MACHINE, "install-scripts.sh")
    path = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LAYERS": layers, "FOLDER": str(tmp_path), "SCRIPT": script}


def install(tree: dict[str, str], stdin: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--mount", "bash", "-c", RUN_IN_TREE]
    return subprocess.run(command, env=tree, input=stdin, capture_output=True, text=True, timeout=60)


def read_installed(tree: dict[str, str]) -> dict[str, str]:
    folder = Path(tree["FOLDER"]) / "upper/opt/scripts"
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_exactly_the_scripts_of_the_bundle_are_installed(tree: dict[str, str]) -> None:
    done = install(tree, pack(SCRIPTS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert read_installed(tree) == SCRIPTS
    folder = Path(tree["FOLDER"]) / "upper"
    assert {path.stat().st_mode & 0o777 for path in (folder / "opt/scripts").iterdir() if path.is_file()} == {
        0o755
    }
    assert (folder / "root/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAAA\nssh-ed25519 BBBB\n"
    assert (folder / "configured").read_text() == "configured\n"


@pytest.mark.parametrize(
    "stdin", ["", pack(SCRIPTS)[:-20], pack(SCRIPTS).replace("=== first.sh", "first.sh")]
)
def test_incomplete_bundle_fails_and_leaves_the_scripts_of_the_machine(
    tree: dict[str, str], stdin: str
) -> None:
    former = {**SCRIPTS, "first.sh": "former\n"}
    assert install(tree, pack(former)).returncode == 0
    assert install(tree, stdin).returncode != 0
    assert read_installed(tree) == former


@pytest.mark.parametrize(
    ("exit_code", "output"),
    [(0, ""), (2, ""), (1, "cloud-init failed on this machine:\nstatus: error\n")],
    ids=["success", "warnings", "failure"],
)
def test_the_command_of_cloud_init_explains_errors_of_the_boot(
    tree: dict[str, str], exit_code: int, output: str
) -> None:
    upper = Path(tree["FOLDER"]) / "upper"
    (upper / "run/cloud-init/result.json").write_text(RESULT % '"a module failed"')
    command = upper / "usr/local/bin/cloud-init"
    command.write_text(f"#!/bin/sh\necho 'status: error'\nexit {exit_code}\n")
    command.chmod(0o755)
    done = install(tree, pack(SCRIPTS))
    assert (done.returncode, done.stderr) == (int(bool(output)), output)
    assert (read_installed(tree) == SCRIPTS) == (not output)


# ---- the root file system

GIB = 1024 * 1024 * 1024 // 512
MOUNTPOINT = "#!/bin/sh\necho 259:1\n"
# Grows the partition to the end of the disk, without the copy of its table, as the real module. `/fails` has the module that fails.
CLOUD_INIT = """#!/bin/sh
cd /sys/devices/disk
echo "$3" >>/modules
echo "the log of $3" >>/var/log/cloud-init.log
[ "$*" = "single --name $3 --frequency always" ] || exit 3
! grep -qsx "$3" /fails || exit 1
[ "$3" != growpart ] || [ -e /keeps ] || echo $(($(cat size) - $(cat partition1/start) - 33)) >partition1/size
"""


@pytest.fixture
def machine(tree: dict[str, str]) -> Path:
    """Returns the files of a machine of the tree that boots from a disk of 8 GiB, which is enlarged while the script waits."""
    upper = Path(tree["FOLDER"]) / "upper"
    disk = upper / "sys/devices/disk"
    (disk / "partition1").mkdir(parents=True)
    (upper / "sys/dev/block").mkdir(parents=True)
    (upper / "sys/dev/block/259:1").symlink_to("../../devices/disk/partition1")
    (upper / "var/log").mkdir(parents=True)
    for name, value in {
        "size": 8 * GIB,
        "partition1/start": 8192,
        "partition1/size": 8 * GIB - 8192 - 33,
    }.items():
        (disk / name).write_text(f"{value}\n")
    (disk / "partition1/partition").write_text("1\n")
    sleep = f"#!/bin/sh\necho {16 * GIB} >/sys/devices/disk/size\n"
    for name, text in {"mountpoint": MOUNTPOINT, "cloud-init": CLOUD_INIT, "sleep": sleep}.items():
        (upper / "usr/local/bin" / name).write_text(text)
        (upper / "usr/local/bin" / name).chmod(0o755)
    return upper


def list_modules(machine: Path) -> list[str]:
    """Returns the modules of cloud-init that have run."""
    return (machine / "modules").read_text().split() if (machine / "modules").exists() else []


def test_partition_and_file_system_grow_once_the_disk_has_the_planned_size(
    tree: dict[str, str], machine: Path
) -> None:
    done = install(tree, pack(SCRIPTS))
    assert (done.returncode, done.stdout, done.stderr) == (0, "Grew the root file system to 16 GiB\n", "")
    assert list_modules(machine) == ["growpart", "resizefs"]
    assert read_installed(tree) == SCRIPTS
    again = install(tree, pack(SCRIPTS))
    assert (again.returncode, again.stdout) == (0, "")
    assert list_modules(machine) == ["growpart", "resizefs"]


def test_disk_that_is_not_enlarged_ends_the_script(tree: dict[str, str], machine: Path) -> None:
    (machine / "usr/local/bin/sleep").write_text("#!/bin/sh\n")
    done = install(tree, pack(SCRIPTS))
    assert done.returncode == 1
    assert done.stderr.startswith(
        "The disk disk has 8 GiB, and volumeSize is 16: AWS has not enlarged the volume."
    )
    assert list_modules(machine) == []
    assert "first.sh" not in read_installed(tree)


def test_run_that_ended_between_partition_and_file_system_is_completed_by_the_next(
    tree: dict[str, str], machine: Path
) -> None:
    (machine / "fails").write_text("resizefs\n")
    failed = install(tree, pack(SCRIPTS))
    assert failed.returncode == 1
    assert "on partition1 to 16 GiB" in failed.stderr
    assert failed.stderr.endswith("the log of growpart\nthe log of resizefs\n")
    (machine / "fails").unlink()
    assert install(tree, pack(SCRIPTS)).stdout == "Grew the root file system to 16 GiB\n"
    assert list_modules(machine) == ["growpart", "resizefs"] * 2


def test_partition_that_cloud_init_leaves_as_it_is_ends_the_script(
    tree: dict[str, str], machine: Path
) -> None:
    (machine / "keeps").touch()
    assert install(tree, pack(SCRIPTS)).returncode == 1
    assert "first.sh" not in read_installed(tree)
