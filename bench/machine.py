"""Runs servers and clients from the tests' image, each on its own processors, and reads what they cost."""

import base64
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from cluster.haproxy_config import FILE_LIMIT
from sandbox.cloud import images
from sandbox.cloud.process_tree import die_with_parent, mount, mount_overlay, unshare_mounts
from tests.integration.haproxy.haproxy_process import BALANCER, CREDENTIALS, make_certificate
from tests.integration.haproxy.network_namespace import separate_networks

NODES = [f"10.0.0.{number}" for number in range(8, 12)]
CLIENTS = [f"10.0.1.{number}" for number in range(1, 9)]
HERE = Path(__file__).parent
PORT = 5443
MEASUREMENT_SECONDS = 120
OPEN_FILES = min(FILE_LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
"""Files that a program may open: as many as under systemd, or fewer, if this machine does not allow that."""


def split_processors() -> tuple[set[int], set[int]]:
    """Returns one processor for the server under test, and the others for its clients and nodes."""
    server, *others = sorted(os.sched_getaffinity(0))
    if not others:
        raise SystemExit(
            "The benchmark needs two processors: one for the server, one for its clients and nodes."
        )
    return {server}, set(others)


def raise_priority() -> None:
    """Lets this process run before others: what else the machine does would empty its caches."""
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    # Where the kernel groups processes by session, only the priority of the group counts.
    group = Path("/proc/self/autogroup")
    if group.exists():
        group.write_text("-20")


class Process:
    """A program and its children, which are one process group."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self.popen = popen

    def _members(self) -> Iterable[Path]:
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                # The name in parentheses may hold spaces.
                group = int((folder / "stat").read_text().rpartition(")")[2].split()[2])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if group == self.popen.pid:
                yield folder

    def read_cpu_seconds(self) -> float:
        """Returns the user and system time of all threads."""
        return (
            sum(
                int((task / "schedstat").read_text().split()[0])
                for folder in self._members()
                for task in (folder / "task").iterdir()
            )
            / 1e9
        )

    def read_memory_kib(self) -> int:
        """Returns the memory of all processes; what they share counts once."""
        rollups = ((folder / "smaps_rollup").read_text() for folder in self._members())
        return sum(
            int(line.split()[1])
            for rollup in rollups
            for line in rollup.splitlines()
            if line.startswith("Pss:")
        )

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.popen.pid, number)
            except ProcessLookupError:
                break
            try:
                self.popen.wait(timeout=5)
            except subprocess.TimeoutExpired:
                continue
        self.popen.wait()


@contextmanager
def open_machine() -> Generator["Machine"]:
    """Creates the machine in a temporary folder and a mount namespace of the calling process."""
    unshare_mounts()
    with tempfile.TemporaryDirectory(prefix="bench.") as folder:
        machine = Machine(Path(folder))
        try:
            yield machine
        finally:
            machine.close()


class Machine:
    """The file system of all programs, and the processors that they run on."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self._log = folder / "output"
        self.server_cpu, self.other_cpus = split_processors()
        os.sched_setaffinity(0, self.other_cpus)
        mount_overlay(images.build("haproxy"), folder / "upper", folder / "work", self.root)
        mount("proc", str(self.root / "proc"), "proc")
        mount("tmpfs", str(self.root / "var/log"), "tmpfs")
        self._write_files()
        for key_type, name in (("ecdsa", "cluster"), ("rsa", "rsa")):
            keys = folder / key_type
            keys.mkdir()
            shutil.copy(make_certificate(keys, key_type), self.root / f"etc/haproxy/certs/{name}.pem")
        self._drain_log()

    def close(self) -> None:
        subprocess.run(["umount", "--recursive", "--lazy", str(self.root)], check=True)

    def _write_files(self) -> None:
        for path in (
            "etc/haproxy/certs",
            "run/haproxy",
            "run/haproxy-tls",
            "bench",
            "var/www/LiveApp/streams",
        ):
            (self.root / path).mkdir(parents=True, exist_ok=True)
        (self.root / "var/log/nginx").mkdir()
        (self.root / "etc/haproxy/credentials.cfg").write_text(CREDENTIALS)
        (self.root / "run/haproxy/server-state").write_text("1\n")
        # As rotate-ticket-keys.sh creates them.
        ticket_keys = [base64.b64encode(os.urandom(80)).decode() for _ in range(3)]
        (self.root / "run/haproxy-tls/ticket-keys").write_text("\n".join(ticket_keys) + "\n")
        for file in (
            *HERE.glob("rivals/*"),
            HERE / "node.conf",
            HERE / "client.py",
            HERE / "websocket_node.py",
        ):
            shutil.copy(file, self.root / "bench")
        streams = self.root / "var/www/LiveApp/streams"
        playlist = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:100\n"
        playlist += "".join(f"#EXTINF:2.000000,\ntest{number:09}.ts\n" for number in range(100, 137))
        (self.root / "bench/playlist.conf").write_text(f'map "" $playlist {{ default "{playlist}"; }}\n')
        (streams / "test400k.ts").write_bytes(os.urandom(400_000))
        (streams / "test2m.ts").write_bytes(os.urandom(2_000_000))

    def _drain_log(self) -> None:
        """Receives what HAProxy logs, as journald does, and drops it."""
        journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        device = self.root / "var/lib/haproxy/dev"
        device.mkdir(parents=True, exist_ok=True)
        journal.bind(str(device / "log"))
        (device / "log").chmod(0o666)

        def drain() -> None:
            while True:
                journal.recv(65536)

        threading.Thread(target=drain, daemon=True).start()

    def spawn(self, *command: str, cpus: set[int], interactive: bool = False) -> Process:
        """Starts a program of the image on some processors, in the caller's network."""

        def prepare() -> None:
            die_with_parent()
            os.sched_setaffinity(0, cpus)
            os.setsid()
            raise_priority()
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))

        pipe = subprocess.PIPE if interactive else None
        with self._log.open("w") as log:
            return Process(
                subprocess.Popen(
                    ["chroot", str(self.root), *command],
                    stdin=pipe or subprocess.DEVNULL,
                    stdout=pipe or log,
                    stderr=log,
                    text=True,
                    preexec_fn=prepare,
                )
            )

    def run(self, *command: str) -> str:
        """Runs a client to its end and returns its output."""
        process = self.spawn(*command, cpus=self.other_cpus, interactive=True)
        try:
            output, _ = process.popen.communicate(timeout=MEASUREMENT_SECONDS)
        finally:
            process.stop()
        if process.popen.returncode != 0:
            raise SystemExit(f"{' '.join(command)} failed:\n{output}{self._log.read_text()}")
        return output

    def run_client(self, *arguments: str) -> dict[str, int]:
        """Runs client.py and returns what it counted."""
        return json.loads(self.run("python3", "/bench/client.py", *arguments).splitlines()[-1])

    def write(self, path: str, text: str) -> None:
        (self.root / path).write_text(text)

    def ask(self, path: str, command: str) -> str:
        """Returns HAProxy's response to a command on one of its sockets."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(self.root / path))
            client.sendall(command.encode() + b"\n")
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    @contextmanager
    def serve(self, server: list[str], node: list[str]) -> Generator[Process]:
        """Runs a server and its nodes in new networks, with the caller's thread in the network of server and clients."""
        with separate_networks(BALANCER, NODES, CLIENTS) as network:
            with network.enter_nodes():
                nodes = self.spawn(*node, cpus=self.other_cpus)
            try:
                wait_for_port(NODES[-1], 5080)
                process = self.spawn(*server, cpus=self.server_cpu)
                try:
                    wait_for_port(BALANCER, PORT, lambda: self._fail_if_ended(process))
                    yield process
                finally:
                    process.stop()
            finally:
                nodes.stop()

    def _fail_if_ended(self, process: Process) -> None:
        if process.popen.poll() is not None:
            raise SystemExit(f"{process.popen.args} did not start:\n{self._log.read_text()}")


def wait_for_port(address: str, port: int, check: Callable[[], None] = lambda: None) -> None:
    def connect() -> bool:
        check()
        socket.create_connection((address, port), timeout=1).close()
        return True

    wait_until(connect, f"{address}:{port}")


def wait_until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if ready():
                return
        time.sleep(0.02)
    raise SystemExit(f"{what} does not answer")
