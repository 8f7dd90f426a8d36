"""Booted machines of the sandbox's images in a separate network namespace, without a local cloud."""

import os
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from shlex import split as words

from sandbox.cloud.images import Layers
from sandbox.cloud.process_tree import CLONE_NEWNET, setns

# Tests that do not measure a start use a faster one than the original's.
FAST_START = "[Service]\nEnvironment=STAND_IN_START_SECONDS=1.5\n"
FAST_START_FILE = "etc/systemd/system/antmedia.service.d/fast-start.conf"


def wait_until(description: str, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while True:
        asked = time.monotonic()
        if condition():
            return
        assert time.monotonic() < deadline, f"not within 300 s: {description}"
        # A condition that takes long is asked less often.
        time.sleep(max(0.05, 4 * (time.monotonic() - asked)))


class Machines:
    """Machines in a network, a mount and a PID namespace."""

    def __init__(self, folder: Path, image: Layers) -> None:
        self.folder = folder
        self.image = image
        self.holder = subprocess.Popen(
            words("unshare --mount --net --pid --fork --kill-child --mount-proc")
            + words("--propagation private sleep infinity")
        )
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        wait_until("the namespaces exist", lambda: children.read_text().strip())
        init = children.read_text().split()[0]
        wait_until(
            "the process in the namespaces runs sleep",
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
            [*self.enter, *command], input=text, text=True, stdout=subprocess.PIPE, check=check, timeout=300
        )
        return done.stdout

    def ip(self, arguments: str) -> None:
        self.run("ip", *words(arguments))

    def create_machine(self, address: str, image: Layers) -> Path:
        """Creates the file system and the network interface of a machine, and returns its root."""
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

    def write_file(self, file: Path, text: str) -> None:
        self.run("tee", str(file), text=text)

    def boot(self, address: str, image: Layers | None = None) -> None:
        root = self.create_machine(address, image or self.image)
        name = root.parent.name
        host_name = f"ip-{address.replace('.', '-')}"
        self.write_file(root / "etc/hostname", f"{host_name}\n")
        self.write_file(root / "etc/hosts", f"127.0.0.1 localhost\n{address} {host_name}\n")
        self.write_file(root / "etc/cloud/cloud-init.disabled", "")
        self.run("mkdir", "-p", str((root / FAST_START_FILE).parent))
        self.write_file(root / FAST_START_FILE, FAST_START)
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

    def shell(
        self, address: str, command: str, text: str = "", timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command as root on a booted machine."""
        return subprocess.run(
            [*self.enter_machine(address), "bash", "-c", command],
            input=text,
            text=True,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def enter_machine(self, address: str) -> list[str]:
        """Returns the command before which another one runs on a booted machine."""
        wait_until("the machine has a first process", lambda: self._find_init(address))
        return ["nsenter", "--all", "--target", self._find_init(address)]

    def _find_init(self, address: str) -> str:
        """Returns the machine's first process, or "" before it runs systemd: until then it may see the files of this machine."""
        try:
            nsenter = self.leaders[address]
            nspawn = Path(f"/proc/{nsenter}/task/{nsenter}/children").read_text().split()[0]
            init = Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()[0]
            return init if Path(f"/proc/{init}/comm").read_text().strip() == "systemd" else ""
        except (IndexError, FileNotFoundError, ProcessLookupError):
            return ""

    def stop(self) -> None:
        self.holder.kill()
        self.holder.wait()


@contextmanager
def enter_network(machines: Machines) -> Generator[None]:
    """Moves this thread, and the processes that it starts, to the machines' network."""
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with machines.network.open() as network:
        setns(network.fileno(), CLONE_NEWNET)
    try:
        yield
    finally:
        setns(outside, CLONE_NEWNET)
        os.close(outside)


def start_database(machines: Machines, address: str, image: Layers, config: str) -> None:
    """Starts Valkey in a machine that is not booted."""
    root = machines.create_machine(address, image)
    machines.write_file(root / "etc/valkey/test.conf", f'{config}save ""\n')
    command = f"chroot {root} valkey-server /etc/valkey/test.conf --daemonize yes --logfile /tmp/log"
    machines.run(*words(f"ip netns exec {root.parent.name} {command}"))
