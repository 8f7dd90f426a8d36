"""Tests configure-system.sh in a Debian 13 tree with a network of its own, and what apt and needrestart make of its files."""

import subprocess
from pathlib import Path

import pytest

from cluster.machine_scripts import ScriptFolder, pack_scripts, unpack_scripts

RUN_IN_TREE = """
set -euo pipefail
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$FOLDER/root"
mount --bind /dev "$FOLDER/root/dev"
mount -t proc proc "$FOLDER/root/proc"
chroot "$FOLDER/root" /scripts/configure-system.sh
chroot "$FOLDER/root" bash -c "$CHECK"
"""
PRINT_PARAMETERS = "sysctl --values net.ipv4.tcp_keepalive_time net.ipv4.tcp_syn_retries"
# The lock is held, as by automatic updates, until apt-get waits for it.
INSTALL_WHILE_DPKG_IS_LOCKED = """
python3 -c '
import fcntl, subprocess, sys
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
command = ["apt-get", "install", "--yes", "coreutils"]
with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0) as apt:
    output = b""
    while b"Waiting for cache lock" not in output and (data := apt.stdout.read(1000)):
        output += data
    lock.close()
    output += apt.stdout.read()
sys.stdout.buffer.write(output)
sys.exit(apt.returncode)
'
"""
# Reads the file as needrestart's own configuration does, and looks a service up as its main program does.
EVALUATE = """
perl -e '
our %nrconf = (override_rc => { qr(^dbus) => 0 });
eval do { local(@ARGV, $/) = "/etc/needrestart/conf.d/ant-media-cluster.conf"; <> };
die $@ if $@;
for my $rc (@ARGV) {
    my $restart = 1;
    foreach my $re (keys %{$nrconf{override_rc}}) {
        next unless($rc =~ /$re/);
        $restart = $nrconf{override_rc}->{$re};
        last;
    }
    print "$rc\\n" if $restart;
}' antmedia.service haproxy.service valkey-server.service dbus.service ssh.service ant-media-uploads.service \\
  haproxy-ticket-keys.service antmedia-other.service
"""


@pytest.fixture
def tree(layers: str, tmp_path: Path) -> dict[str, str]:
    for part in ("upper/scripts", "work", "root"):
        (tmp_path / part).mkdir(parents=True)
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LAYERS": layers, "FOLDER": str(tmp_path)}


def configure(tree: dict[str, str], folder: ScriptFolder, check: str) -> subprocess.CompletedProcess[str]:
    """Runs the script of a kind of machine, then the commands `check`."""
    for part in unpack_scripts(pack_scripts(folder)).split("=== ")[1:]:
        name, _, text = part.partition("\n")
        file = Path(tree["FOLDER"]) / "upper/scripts" / name
        file.write_text(text)
        file.chmod(0o755)
    return subprocess.run(
        ["unshare", "--mount", "--net", "bash", "-c", RUN_IN_TREE],
        env={**tree, "CHECK": check},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("folder", "dials"),
    [(ScriptFolder.NODE, "6"), (ScriptFolder.REGISTRY, "6"), (ScriptFolder.BALANCER, "2")],
)
def test_connections_are_kept_alive_and_the_load_balancer_gives_up_soon(
    tree: dict[str, str], folder: ScriptFolder, dials: str
) -> None:
    done = configure(tree, folder, PRINT_PARAMETERS)
    assert (done.stdout.split(), done.stderr) == (["60", dials], "")


def test_apt_waits_for_automatic_updates(tree: dict[str, str]) -> None:
    done = configure(tree, ScriptFolder.NODE, INSTALL_WHILE_DPKG_IS_LOCKED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Waiting for cache lock: Could not get lock /var/lib/dpkg/lock-frontend." in done.stdout


def test_needrestart_restarts_no_service_with_sessions(tree: dict[str, str]) -> None:
    done = configure(tree, ScriptFolder.NODE, EVALUATE)
    assert (done.stdout.split(), done.stderr) == (
        [
            "ssh.service",
            "ant-media-uploads.service",
            "haproxy-ticket-keys.service",
            "antmedia-other.service",
        ],
        "",
    )
