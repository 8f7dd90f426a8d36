"""The command line of `sandbox/bin/cloud`: starts, stops and inspects the local cloud, and runs commands in it."""

import argparse
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
from sandbox.cloud.process_tree import HostView, Lock, end_tree, run_inside, run_keeper

LOCK = Lock(host.STATE / "lock")
PID_FILE = host.STATE / "pid"
LOG = host.STATE / "daemon.log"
PROGRAM = "sandbox/bin/cloud"


# Functions import other modules of the cloud only where they need them: some load slowly.


class MachineStatus(TypedDict):
    """A machine in the status file."""

    name: str
    instance_id: str
    state: str
    private_address: str
    public_address: str | None
    process: int | None


def start() -> None:
    """Builds missing machine images, starts the cloud and waits until it is ready."""
    started = time.monotonic()
    while (lock := LOCK.take()) is None:  # the cloud is running, starting or ending
        if _is_ready():
            return
        time.sleep(0.2)
    if (
        subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], check=False).returncode
        != 0
    ):
        sys.exit("the local cloud cannot create namespaces: run it on a machine or in a privileged container")
    remove_leftovers()
    from sandbox.cloud.images import build_missing
    from sandbox.cloud.media_server import read_selection
    from sandbox.cloud.relay import listen_on_loopback

    images = build_missing(read_selection())
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
    while not host.BOOT_ID.exists():
        if keeper.poll() is not None:
            sys.exit(f"the local cloud did not start:\n{LOG.read_text(errors='replace')}")
        time.sleep(0.05)
    print(f"  the local cloud is up after {time.monotonic() - started:.0f} s")


def _is_ready() -> bool:
    """True if the cloud is ready. A cloud that was killed leaves its files, and some processes for a moment."""
    if not host.BOOT_ID.exists() or not PID_FILE.exists():
        return False
    return all(Path(f"/proc/{pid}/ns/net").exists() for pid in PID_FILE.read_text().split())


def remove_leftovers() -> None:
    """Removes the files and control groups of a cloud that has ended, but not its log."""
    from sandbox.cloud.machines import remove_control_groups

    remove_control_groups()
    for file in (PID_FILE, host.BOOT_ID, host.STATUS):
        file.unlink(missing_ok=True)
    for folder in ("machines", "site", "acme", "aws", "operator", "stack-addresses"):
        shutil.rmtree(host.STATE / folder, ignore_errors=True)


def stop() -> None:
    """Stops the cloud and removes its files; the image cache remains."""
    if not host.STATE.exists():
        return
    lock = end_tree(PID_FILE, LOCK)
    if lock is None:
        sys.exit("the local cloud is still starting: wait for that to end, or interrupt it, then stop again")
    remove_leftovers()
    LOG.unlink(missing_ok=True)
    LOCK.path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        host.STATE.rmdir()  # fails if other files are left
    os.close(lock)


def status(*, as_json: bool) -> None:
    """Prints the machines and the rejected egress traffic."""
    from sandbox.cloud.network import read_escaped_traffic

    init = _read_init_pid()
    machines = _read_machines()
    packets, destinations = read_escaped_traffic(init)
    if as_json:
        answer = {
            "boot_id": host.BOOT_ID.read_text().strip(),
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
    print(
        f"{packets} packets rejected by the egress filter"
        + (f": {', '.join(destinations)}" if destinations else "")
    )


def execute(command: Sequence[str]) -> NoReturn:
    """Runs a command as the operator: in the internet namespace, with its DNS, AWS credentials and CA bundle."""
    certificates = str(host.OPERATOR / "ca-certificates.crt")
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
    sys.exit(run_inside(_read_init_pid(), lambda: command, environment, host.OPERATOR_FILES))


def address(stack: str, domain: str) -> None:
    """Assigns a loopback address to a stack's domain and prints it."""
    _read_init_pid()
    from sandbox.cloud.relay import assign_address

    print(assign_address(stack, domain).address)


def shell(name: str, command: Sequence[str]) -> NoReturn:
    """Runs a command, or a login shell, as root on a machine."""
    from sandbox.cloud.machines import find_machine_init

    process = _find_machine(name)["process"]
    if process is None:
        sys.exit(f"{name} is not running; its console: {PROGRAM} logs {name}")
    environment = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM": os.environ.get("TERM", "dumb"),
    }

    def enter() -> Sequence[str]:
        target = f"--target={find_machine_init(process)}"
        return ["nsenter", target, "--all", "--root", "--wd", *(command or ["bash", "--login"])]

    sys.exit(run_inside(_read_init_pid(), enter, environment, {}))


def logs(name: str | None) -> None:
    """Prints a machine's console, or the daemon's log."""
    path = host.STATE / "machines" / _find_machine(name)["instance_id"] / "console.log" if name else LOG
    if not path.exists():
        sys.exit("there is no log: the local cloud is not running; start it with make up")
    with path.open("rb") as log:
        shutil.copyfileobj(log, sys.stdout.buffer)


def _read_init_pid() -> int:
    """Returns the process id of the tree's init; exits if the cloud is not running."""
    try:
        _, init = PID_FILE.read_text().split()
    except (FileNotFoundError, ValueError):
        sys.exit("the local cloud is not running; start it with make up")
    return int(init)


def _read_machines() -> list[MachineStatus]:
    machines: list[MachineStatus] = json.loads(host.STATUS.read_text())
    return machines


def _find_machine(name: str) -> MachineStatus:
    """Finds a machine by full name, by its name in the stack (`edge1`) or by instance id; exits if there is not exactly one."""
    _read_init_pid()
    machines = _read_machines()
    in_stack = f"ant-media-cluster-{os.environ.get('PULUMI_STACK') or 'sandbox'}-{name}"
    for matches in (
        [machine for machine in machines if name in (machine["name"], machine["instance_id"])],
        [machine for machine in machines if machine["name"] == in_stack],
        [machine for machine in machines if machine["name"].endswith(f"-{name}")],
    ):
        if len(matches) == 1:
            return matches[0]
    sys.exit(
        f"{name} does not name exactly one machine; machines: {', '.join(machine['name'] for machine in machines) or 'none'}"
    )


def _keep(layers: str, descriptors: Sequence[str]) -> None:
    from sandbox.cloud import daemon

    images = {name: tuple(map(Path, paths)) for name, paths in json.loads(layers).items()}
    forwarders = [socket.socket(fileno=int(descriptor)) for descriptor in descriptors]
    run_keeper(lambda view: daemon.run(images, view, forwarders), PID_FILE, remove_leftovers)


def _relay(arguments: Sequence[str]) -> None:
    import asyncio

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


def new_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Returns the parser and the parser of each subcommand."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Starts, stops and inspects the local cloud, and runs commands in it.",
        epilog=f"{PROGRAM} help COMMAND prints the help of one command.",
        formatter_class=argparse.RawTextHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND")
    commands: dict[str, argparse.ArgumentParser] = {}

    def add(name: str, summary: str, example: str) -> argparse.ArgumentParser:
        example = f"{PROGRAM} {example}"
        commands[name] = subparsers.add_parser(
            name, help=f"{summary}\n  {example}", description=summary, epilog=f"example: {example}"
        )
        return commands[name]

    add("start", "Build missing machine images and start the cloud.", "start")
    add("stop", "Stop the cloud and delete its machines; cached images remain.", "stop")
    command = add("status", "List the machines and the rejected egress traffic.", "status")
    command.add_argument("--json", action="store_true", help="print JSON")
    command = add(
        "exec",
        "Run a command with the cloud's network, DNS, credentials and CA certificates (default: bash).",
        "exec -- curl https://live.ant-media.test:5443/LiveApp/",
    )
    command.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD …", help="command and arguments")
    machine = "name in the stack (edge1), full name or instance id"
    command = add("shell", "Run a command on a machine as root (default: a login shell).", "shell edge1")
    command.add_argument("machine", metavar="MACHINE", help=machine)
    command.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD …", help="command and arguments")
    command = add("logs", "Print a machine's console (default: the cloud's log).", "logs edge1")
    command.add_argument("machine", nargs="?", metavar="MACHINE", help=machine)
    command = add(
        "address",
        "Assign a loopback address to a stack's domain and print it.",
        "address pr-123 pr-123.ant-media.test",
    )
    command.add_argument("stack", metavar="STACK", help="name of the stack")
    command.add_argument("domain", metavar="DOMAIN", help="domain of its cluster")
    command = add("help", "Print this help, or the help of one command.", "help shell")
    command.add_argument("topic", nargs="?", choices=[*commands], metavar="COMMAND", help="name of a command")
    return parser, commands


def main() -> None:
    arguments = sys.argv[1:]
    # Started by the cloud itself; not part of the command line.
    if arguments[:1] == ["keep"]:
        return _keep(arguments[1], arguments[2:])
    if arguments[:1] == ["relay"]:
        return _relay(arguments[1:])

    parser, commands = new_parser()
    options = parser.parse_args(arguments)
    if options.command in (None, "help"):
        topic = getattr(options, "topic", None)
        return (commands[topic] if topic else parser).print_help()
    if requirement := host.find_unmet_requirement():
        sys.exit(requirement)
    argv: list[str] = getattr(options, "argv", [])
    command = argv[1:] if argv[:1] == ["--"] else argv
    match options.command:
        case "start":
            try:
                start()
            except KeyboardInterrupt:
                sys.exit(130)  # the next start completes or cleans up
        case "stop":
            stop()
        case "status":
            status(as_json=options.json)
        case "exec":
            execute(command or ["bash"])
        case "address":
            address(options.stack, options.domain)
        case "shell":
            shell(options.machine, command)
        case _:
            logs(options.machine)
    return None
