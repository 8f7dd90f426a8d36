"""The cloud itself: brings its parts up, then makes machines and networks follow what EC2's API says, until it is killed."""

import json
import os
import socket
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.cloud import (
    acme,
    addresses,
    apt,
    aws_endpoints,
    certificates,
    dns,
    ec2,
    host,
    metadata,
    network,
    security_groups,
)
from sandbox.cloud.credentials import Issuer
from sandbox.cloud.ec2 import Changes, Client, Instance, World
from sandbox.cloud.images import BASE, Layers
from sandbox.cloud.machines import REBOOT, Machine
from sandbox.cloud.process_tree import MS_BIND, HostView, mount, mount_overlay

SITE = host.STATE / "site"
"""The layer over every image: whom to trust, whom to ask for names."""
ACME, AWS = host.STATE / "acme", host.STATE / "aws"
OPERATOR = host.STATE / "operator"
OPERATOR_FILES = {
    path: OPERATOR / path.name
    for path in (Path("/etc/resolv.conf"), Path("/etc/nsswitch.conf"))
    if path.exists()
}
STATUS = host.STATE / "status.json"
BOOT_ID = host.STATE / "boot_id"


def run(images: Mapping[str, Layers], view: HostView, forwarders: Sequence[socket.socket]) -> None:
    """In a process tree of its own (process_tree.keep), this call is the cloud."""
    base = images[BASE][0]
    sources, configuration = apt.read_sources(base), (base / "etc/apt/apt.conf.d/90host").read_text()
    upstreams = apt.upstreams(sources, configuration)
    package_hosts = sorted({upstream.host for upstream in upstreams})
    network.build_internet(len(package_hosts))
    _mount_for_machines()
    _prepare_operator()

    changes = Changes()
    ec2.serve(changes)
    client = Client()
    client.create_zone(addresses.ZONE)
    names = {
        addresses.ACME_NAME: addresses.ACME,
        addresses.ROUTE53_NAME: addresses.AWS,
        addresses.SECRETS_MANAGER_NAME: addresses.AWS,
    } | {apt.name_of(name): network.package_address(number) for number, name in enumerate(package_hosts)}
    dns.serve(dns.Zones(names, client.records, changes.zones_changed))

    parts = {"pebble": acme.start(ACME), "relay": _start_relay(view, upstreams, forwarders)}
    AWS.mkdir()
    certificates.make(AWS, "AWS", [addresses.ROUTE53_NAME, addresses.SECRETS_MANAGER_NAME], addresses.AWS)
    issuer = Issuer()
    aws_endpoints.serve(aws_endpoints.Gate(issuer, client.policies_of, client.arn_of_secret), AWS)
    _build_site(base, (AWS / "ca.pem").read_bytes(), upstreams)
    _trust_for_operator()

    cloud = Cloud(client, changes, images, issuer)
    cloud.report(World())
    BOOT_ID.write_text(f"{uuid.uuid4()}\n")  # ready
    while True:
        happened = changes.happened.wait(timeout=1)
        changes.happened.clear()
        for name, part in parts.items():
            if part.poll() is not None:
                raise RuntimeError(f"{name} has ended, and with it the cloud")
        if happened or cloud.in_motion:
            try:
                cloud.follow()
            except Exception:
                traceback.print_exc()  # the next change is followed all the same
        time.sleep(0.1)  # what comes in quick succession is followed at once


def _mount_for_machines() -> None:
    # nspawn refuses to shut a machine down properly where this folder is not a mount of its own
    folder = Path("/run/systemd/nspawn")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "nspawn", folder], check=True)


def _prepare_operator() -> None:
    """Who asks for a name on the cloud's internet, as this process does, asks the cloud's DNS."""
    OPERATOR.mkdir()
    (OPERATOR / "resolv.conf").write_text(f"nameserver {addresses.DNS}\n")
    (OPERATOR / "nsswitch.conf").write_text("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")
    for path, shown in OPERATOR_FILES.items():
        mount(str(shown), str(path.resolve()), flags=MS_BIND)


def _start_relay(
    view: HostView, upstreams: Sequence[apt.Upstream], forwarders: Sequence[socket.socket]
) -> subprocess.Popen[bytes]:
    cloud_network = os.open("/proc/self/ns/net", os.O_RDONLY)
    servers = [f"{upstream.host} {upstream.port}" for upstream in upstreams]
    descriptors = [
        view.network,
        view.mounts,
        view.root,
        cloud_network,
        *(listener.fileno() for listener in forwarders),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox.cloud", "relay", *map(str, descriptors), "--", *servers],
        pass_fds=descriptors,
    )
    for listener in forwarders:
        listener.close()
    return process


def _trust_for_operator() -> None:
    """The operator trusts all that is here; the program tells machines what to trust of the certificate authority."""
    roots = acme.fetch_roots(ACME)
    (ACME / "roots.pem").write_bytes(roots)
    system = Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
    (OPERATOR / "ca-certificates.crt").write_bytes(b"\n".join([system, (AWS / "ca.pem").read_bytes(), roots]))


def _build_site(base: Path, amazon: bytes, upstreams: Sequence[apt.Upstream]) -> None:
    upper, work, root = (SITE / part for part in ("upper", "work", "root"))
    mount_overlay([base], upper, work, root)
    (root / "usr/local/share/ca-certificates/sandbox-aws.crt").write_bytes(amazon)
    subprocess.run(["chroot", root, "update-ca-certificates"], check=True, capture_output=True)
    (root / "etc/resolv.conf").write_text(
        f"nameserver {addresses.DNS}\nsearch {addresses.REGION}.compute.internal\n"
    )
    for path in (*apt.source_files(root), root / "etc/apt/apt.conf.d/90host"):
        if (renamed := apt.with_names(path.read_text(), list(upstreams))) != path.read_text():
            path.write_text(renamed)
    subprocess.run(["umount", root], check=True)


class Cloud:
    """What is there: machines and VPCs. `follow` makes it what EC2's API says should be there."""

    def __init__(
        self, client: Client, changes: Changes, images: Mapping[str, Layers], issuer: Issuer
    ) -> None:
        self._client = client
        self._changes = changes
        self._images = images
        self._issuer = issuer
        self._world = World()
        self._machines: dict[str, Machine] = {}
        self._vpcs: dict[str, network.Vpc] = {}
        self._metadata: dict[str, metadata.Service] = {}
        self._rules: dict[str, str] = {}
        self._reported = ""

    @property
    def in_motion(self) -> bool:
        """Whether something may be due although nobody asked for anything."""
        return any(machine.stopping for machine in self._machines.values())

    def follow(self) -> None:
        restarted = self._changes.restarted()
        world = self._world = self._client.world()
        wanted = {instance.id: instance for instance in world.instances}
        for id, machine in list(self._machines.items()):
            self._settle(machine, wanted.get(id), restart=id in restarted)
        # An address is free when the machine that had it is gone, which may be a while after its instance is.
        taken = {
            (machine.instance.vpc, machine.instance.private_address) for machine in self._machines.values()
        }
        for instance in world.instances:
            if instance.running and (instance.vpc, instance.private_address) not in taken:
                self._add(instance, world)
        self._connect(world)
        self.report(world)

    def _settle(self, machine: Machine, wanted: Instance | None, *, restart: bool) -> None:
        asked = machine.stopping
        ended = machine.gone()
        if ended is not None and ended != REBOOT and not asked and wanted and wanted.running:
            self._client.stop(wanted.id)  # switched off from inside, as on EC2
        elif machine.process:
            if wanted is None or not wanted.running or restart:
                machine.shut_down()
            machine.press_on()
        elif wanted is None:
            self._remove(machine)
        elif wanted.running:
            machine.boot()

    def _add(self, instance: Instance, world: World) -> None:
        layers = self._images.get(self._client.image_of(instance.image))
        if layers is None:
            return self._refuse(instance, f"no machine image stands behind {instance.image}")
        vpc = self._vpcs.get(instance.vpc)
        if vpc is None:
            used = {vpc.number for vpc in self._vpcs.values()}
            free = next(number for number in range(len(used) + 1) if number not in used)
            vpc = self._vpcs[instance.vpc] = network.Vpc(instance.vpc, free)
            self._metadata[vpc.id] = self._serve_metadata(vpc)
        vpc.attach(instance)
        try:
            self._guard(instance, world)
            user_data = self._client.user_data(instance.id)
            machine = Machine(instance, [SITE / "upper", *layers], user_data, self._changes.happened)
            machine.boot()
        except (OSError, RuntimeError) as error:
            vpc.detach(instance)
            return self._refuse(instance, str(error))
        self._machines[instance.id] = machine
        return None

    def _serve_metadata(self, vpc: network.Vpc) -> metadata.Service:
        def find(address: str) -> Instance | None:
            return next(
                (
                    instance
                    for instance in self._world.instances
                    if (instance.vpc, instance.private_address) == (vpc.id, address) and instance.running
                ),
                None,
            )

        return metadata.Service(vpc.listen_for_metadata(), find, self._client.role_of, self._issuer)

    def _refuse(self, instance: Instance, reason: str) -> None:
        """An instance that cannot be had is one that is off; its console says why."""
        folder = host.STATE / "machines" / instance.id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "console.log").write_text(f"the local cloud could not start {instance.name}: {reason}\n")
        self._client.stop(instance.id)

    def _remove(self, machine: Machine) -> None:
        instance = machine.instance
        machine.remove()
        self._vpcs[instance.vpc].detach(instance)
        self._machines.pop(instance.id)
        self._rules.pop(instance.id, None)

    def _guard(self, instance: Instance, world: World) -> None:
        groups = [world.groups[group] for group in instance.groups if group in world.groups]
        rules = security_groups.render(groups, world.members)
        if rules != self._rules.get(instance.id):
            network.nft(rules, instance.id)
            self._rules[instance.id] = rules

    def _connect(self, world: World) -> None:
        """Security groups and public addresses."""
        up: dict[str, list[Instance]] = {id: [] for id in self._vpcs}
        for instance in world.instances:
            if instance.id in self._machines:
                self._guard(instance, world)
                if instance.running:
                    up[instance.vpc].append(instance)
        inhabited = {machine.instance.vpc for machine in self._machines.values()}
        for id, vpc in list(self._vpcs.items()):
            vpc.translate(up[id])
            if id not in inhabited:
                self._metadata.pop(id).close()
                vpc.remove()
                del self._vpcs[id]

    def report(self, world: World) -> None:
        """Leaves for the front door what it needs to know."""
        machines = [
            {
                "name": instance.name,
                "instance_id": instance.id,
                "state": "running" if instance.running else "stopped",
                "private_address": instance.private_address,
                "public_address": instance.public_address,
                "process": machine.process.pid
                if (machine := self._machines.get(instance.id)) and machine.process
                else None,
            }
            for instance in sorted(world.instances, key=lambda instance: instance.name)
        ]
        if (text := json.dumps(machines, indent=2)) != self._reported:
            temporary = STATUS.with_suffix(".new")
            temporary.write_text(text + "\n")
            temporary.rename(STATUS)
            self._reported = text
