"""What `sandbox/bin/cloud` does: start and stop the cloud, look at it, work in it."""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TypedDict

from sandbox.cloud import addresses, host
from sandbox.cloud.process_tree import HostView, Lock, end, keep, run_inside

LOCK = Lock(host.STATE / "lock")
PID_FILE = host.STATE / "pid"
LOG = host.STATE / "daemon.log"
BOOT_ID = host.STATE / "boot_id"
STATUS = host.STATE / "status.json"


class MachineStatus(TypedDict):
    name: str
    instance_id: str
    state: str
    private_address: str
    public_address: str | None
    process: int | None


def start() -> None:
    """Build machine images where they are missing, start the cloud, wait until it is ready."""
    started = time.monotonic()
    while (lock := LOCK.take()) is None:  # it runs, or another start is at work on it
        if BOOT_ID.exists():
            return
        time.sleep(0.2)
    if (
        subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False).returncode
        != 0
    ):
        sys.exit("the local cloud needs to make namespaces: use a machine, or a container that is privileged")
    sweep()
    from sandbox.cloud.images import build_missing
    from sandbox.cloud.relay import listen_on_loopback

    images = build_missing()
    try:
        listeners = listen_on_loopback(host.LOOPBACK_ADDRESS)
    except OSError as error:
        sys.exit(str(error.strerror))
    descriptors = [lock, *(listener.fileno() for listener in listeners)]
    layers = {name: [str(layer) for layer in layers] for name, layers in images.items()}
    with LOG.open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "sandbox.cloud", "keep", json.dumps(layers), *map(str, descriptors[1:])],
            pass_fds=descriptors,
            start_new_session=True,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    while not BOOT_ID.exists():
        if keeper.poll() is not None:
            sys.exit(f"the local cloud did not start:\n{LOG.read_text(errors='replace')}")
        time.sleep(0.05)
    print(f"  the local cloud is up after {time.monotonic() - started:.0f} s")


def sweep() -> None:
    """Takes away what a cloud leaves when it ends, however it ended; its log stays for whoever wants to know why."""
    from sandbox.cloud.machines import remove_control_groups

    remove_control_groups()
    for left in (PID_FILE, BOOT_ID, STATUS):
        left.unlink(missing_ok=True)
    for folder in ("machines", "site", "acme", "aws", "operator", "entrances"):
        shutil.rmtree(host.STATE / folder, ignore_errors=True)


def stop() -> None:
    """End the cloud and everything in it; only the cached images stay."""
    if not host.STATE.exists():
        return
    lock = end(PID_FILE, LOCK)
    if lock is None:
        sys.exit("the local cloud is still being started: stop it when that has ended, or end that first")
    sweep()
    LOG.unlink(missing_ok=True)
    LOCK.path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        host.STATE.rmdir()  # unless it holds something of somebody else's
    os.close(lock)


def status(*, as_json: bool) -> None:
    """Show the machines, and what tried to leave."""
    from sandbox.cloud.network import escaped

    init = _init()
    machines = _machines()
    packets, destinations = escaped(init)
    if as_json:
        answer = {
            "boot_id": BOOT_ID.read_text().strip(),
            "machines": machines,
            "escaped_packets": packets,
            "escaped_destinations": destinations,
        }
        print(json.dumps(answer, indent=2))
        return
    for machine in machines:
        print(
            f"{machine['name']:40} {machine['instance_id']:20} {machine['state']:8}"
            f" {machine['private_address']:15} {machine['public_address'] or '-'}"
        )
    print(f"{packets} packets tried to leave" + (f": {', '.join(destinations)}" if destinations else ""))


def execute(command: Sequence[str]) -> NoReturn:
    """Run a command as the operator: on the cloud's internet, with its DNS, credentials and certificate authorities."""
    operator = host.STATE / "operator"
    certificates = str(operator / "ca-certificates.crt")
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and name != "AWS_PROFILE"
        },
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": addresses.REGION,
        "AWS_DEFAULT_REGION": addresses.REGION,
        "AWS_ENDPOINT_URL": addresses.API_URL,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SSL_CERT_FILE": certificates,
        "AWS_CA_BUNDLE": certificates,
        "CURL_CA_BUNDLE": certificates,
        "REQUESTS_CA_BUNDLE": certificates,
    }
    etc = {Path("/etc") / name: operator / name for name in ("resolv.conf", "nsswitch.conf")}
    shown = {path: instead for path, instead in etc.items() if path.exists()}
    sys.exit(run_inside(_init(), lambda: command, environment, shown))


def entrance(stack: str, domain: str) -> None:
    """Give a stack's domain a loopback address of its own, and print it."""
    _init()
    from sandbox.cloud.relay import open_entrance

    print(open_entrance(stack, domain).address)


def shell(name: str, command: Sequence[str]) -> NoReturn:
    """A root shell in a machine, or a command in it."""
    from sandbox.cloud.machines import leader

    process = _machine(name)["process"]
    if process is None:
        sys.exit(f"{name} is not running: sandbox/bin/cloud logs {name}")
    environment = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM": os.environ.get("TERM", "dumb"),
    }

    def enter() -> Sequence[str]:
        target = f"--target={leader(process)}"
        return ["nsenter", target, "--all", "--root", "--wd", *(command or ["bash", "--login"])]

    sys.exit(run_inside(_init(), enter, environment, {}))


def logs(name: str | None) -> None:
    """Print a machine's console, or the cloud's own log."""
    path = host.STATE / "machines" / _machine(name)["instance_id"] / "console.log" if name else LOG
    if not path.exists():
        sys.exit("there is no log: the local cloud is not running, make up brings it up")
    with path.open("rb") as log:
        shutil.copyfileobj(log, sys.stdout.buffer)


def _init() -> int:
    try:
        _, init = PID_FILE.read_text().split()
    except (FileNotFoundError, ValueError):
        sys.exit("the local cloud is not running: make up brings it up")
    return int(init)


def _machines() -> list[MachineStatus]:
    machines: list[MachineStatus] = json.loads(STATUS.read_text())
    return machines


def _machine(name: str) -> MachineStatus:
    """By name, by what comes after the stack's in it (`edge1`), or by instance id."""
    _init()
    machines = _machines()
    in_stack = f"ant-media-cluster-{os.environ.get('PULUMI_STACK') or 'sandbox'}-{name}"
    for matches in (
        [machine for machine in machines if name in (machine["name"], machine["instance_id"])],
        [machine for machine in machines if machine["name"] == in_stack],
        [machine for machine in machines if machine["name"].endswith(f"-{name}")],
    ):
        if len(matches) == 1:
            return matches[0]
    sys.exit(
        f"no one machine is called {name}; there are: {', '.join(machine['name'] for machine in machines) or 'none'}"
    )


def _keep(layers: str, descriptors: Sequence[str]) -> None:
    from sandbox.cloud import daemon

    images = {name: tuple(map(Path, paths)) for name, paths in json.loads(layers).items()}
    forwarders = [socket.socket(fileno=int(descriptor)) for descriptor in descriptors]
    keep(lambda view: daemon.run(images, view, forwarders), PID_FILE, sweep)


def _relay(arguments: Sequence[str]) -> None:
    from sandbox.cloud.apt import Upstream
    from sandbox.cloud.relay import Relay

    split = arguments.index("--")
    network, mounts, root, cloud_network, *listeners = map(int, arguments[:split])
    HostView(network, mounts, root).enter()
    upstreams = [
        Upstream(name, int(port)) for name, port in (server.split() for server in arguments[split + 1 :])
    ]
    sockets = [socket.socket(fileno=descriptor) for descriptor in listeners]
    asyncio.run(Relay(network, cloud_network).serve(upstreams, sockets))


def main() -> None:
    arguments = sys.argv[1:]
    # The cloud's own processes; nobody types these.
    if arguments[:1] == ["keep"]:
        return _keep(arguments[1], arguments[2:])
    if arguments[:1] == ["relay"]:
        return _relay(arguments[1:])

    parser = argparse.ArgumentParser(prog="sandbox/bin/cloud", description="The local cloud.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, function in (("start", start), ("stop", stop)):
        commands.add_parser(name, help=function.__doc__)
    status_parser = commands.add_parser("status", help=status.__doc__)
    status_parser.add_argument("--json", action="store_true")
    exec_parser = commands.add_parser("exec", help=execute.__doc__)
    exec_parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD …")
    entrance_parser = commands.add_parser("entrance", help=entrance.__doc__)
    entrance_parser.add_argument("stack")
    entrance_parser.add_argument("domain")
    shell_parser = commands.add_parser("shell", help=shell.__doc__)
    shell_parser.add_argument("machine")
    shell_parser.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD …")
    logs_parser = commands.add_parser("logs", help=logs.__doc__)
    logs_parser.add_argument("machine", nargs="?")
    chosen = parser.parse_args(arguments)

    if complaint := host.complaint():
        sys.exit(complaint)
    command = [
        argument for number, argument in enumerate(getattr(chosen, "argv", [])) if number or argument != "--"
    ]
    match chosen.command:
        case "start":
            try:
                start()
            except KeyboardInterrupt:
                sys.exit(130)  # whatever was begun is completed or cleaned up by the next start
        case "stop":
            stop()
        case "status":
            status(as_json=chosen.json)
        case "exec":
            execute(command or ["bash"])
        case "entrance":
            entrance(chosen.stack, chosen.domain)
        case "shell":
            shell(chosen.machine, command)
        case _:
            logs(chosen.machine)
    return None
