"""The daemon of the local cloud: starts the services, then reconciles machines and networks with the EC2 API."""

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
    api_server,
    apt,
    aws_endpoints,
    certificates,
    dns,
    host,
    metadata,
    network,
    security_groups,
)
from sandbox.cloud.api_server import Changes
from sandbox.cloud.credentials import CredentialIssuer, find_user_key
from sandbox.cloud.ec2 import Client, Instance, Snapshot
from sandbox.cloud.images import BASE, Layers
from sandbox.cloud.machines import REBOOT, Machine
from sandbox.cloud.process_tree import MS_BIND, HostView, mount, mount_overlay

SITE = host.STATE / "site"
"""A layer on top of every image: CA certificates, DNS and package sources."""
ACME, AWS = host.STATE / "acme", host.STATE / "aws"
DNS_OPTIONS = "options attempts:5\n"
"""Each attempt takes five seconds. This process answers, and it may be busy."""


def run(images: Mapping[str, Layers], view: HostView, forwarders: Sequence[socket.socket]) -> None:
    """Runs the cloud until it is killed; `process_tree.run_keeper` calls this in the cloud's namespaces."""
    base = images[BASE][0]
    sources, configuration = apt.read_sources(base), (base / "etc/apt/apt.conf.d/90host").read_text()
    upstreams = apt.find_upstreams(sources, configuration)
    package_hosts = sorted({upstream.host for upstream in upstreams})
    network.build_internet(len(package_hosts))
    _mount_nspawn_folder()
    _configure_operator_dns()

    changes = Changes()
    api_server.serve(changes)
    client = Client()
    client.create_zone(addresses.ZONE)
    names = {
        addresses.ACME_NAME: addresses.ACME,
        addresses.CHECKIP_NAME: addresses.AWS,
        addresses.ROUTE53_NAME: addresses.AWS,
        addresses.SECRETS_MANAGER_NAME: addresses.AWS,
        f"*.{addresses.S3_NAME}": addresses.AWS,
    } | {
        apt.upstream_name(name): network.package_address(number) for number, name in enumerate(package_hosts)
    }
    dns.serve(dns.Zones(names, client.list_records, changes.zones_changed))

    services = {"pebble": acme.start(ACME), "relay": _start_relay(view, upstreams, forwarders)}
    AWS.mkdir()
    certificates.create(
        AWS,
        "AWS",
        [
            addresses.ROUTE53_NAME,
            addresses.SECRETS_MANAGER_NAME,
            addresses.CHECKIP_NAME,
            f"*.{addresses.S3_NAME}",
        ],
        addresses.AWS,
    )
    issuer = CredentialIssuer()
    aws_endpoints.serve(
        aws_endpoints.AuthorizingProxy(
            lambda key: issuer.find(key) or find_user_key(key),
            client.list_policies,
            client.find_secret_arn,
            client.allows_acls,
        ),
        AWS,
    )
    _build_site(base, (AWS / "ca.pem").read_bytes(), upstreams)
    _write_operator_trust()

    cloud = Cloud(client, changes, images, issuer)
    cloud.write_status(Snapshot())
    host.BOOT_ID.write_text(f"{uuid.uuid4()}\n")  # `start` waits for this file
    while True:
        happened = changes.resources_changed.wait(timeout=1)
        started = time.monotonic()
        changes.resources_changed.clear()
        for name, service in services.items():
            if service.poll() is not None:
                raise RuntimeError(f"{name} has ended; the local cloud cannot run without it")
        if happened or cloud.has_stopping_machines:
            try:
                cloud.reconcile()
            except Exception:
                traceback.print_exc()  # the next change triggers another attempt
        # Collects changes in quick succession, for longer than they take to apply.
        time.sleep(max(0.1, 2 * (time.monotonic() - started)))


def _mount_nspawn_folder() -> None:
    # nspawn cannot shut a machine down cleanly if this folder is not a mount point
    folder = Path("/run/systemd/nspawn")
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "nspawn", folder], check=True)


def _configure_operator_dns() -> None:
    """Makes this process and the operator's commands resolve names with the cloud's DNS."""
    host.OPERATOR.mkdir()
    (host.OPERATOR / "resolv.conf").write_text(f"nameserver {addresses.DNS}\n{DNS_OPTIONS}")
    (host.OPERATOR / "nsswitch.conf").write_text(
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
    )
    for path, replacement in host.OPERATOR_FILES.items():
        mount(str(replacement), str(path.resolve()), flags=MS_BIND)


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


def _write_operator_trust() -> None:
    """Writes the operator's CA bundle: the host's, the AWS endpoints' and Pebble's.

    Machines trust only the AWS endpoints; the program under test installs Pebble's root.
    """
    roots = acme.fetch_roots(ACME)
    (ACME / "roots.pem").write_bytes(roots)
    system = Path("/etc/ssl/certs/ca-certificates.crt").read_bytes()
    (host.OPERATOR / "ca-certificates.crt").write_bytes(
        b"\n".join([system, (AWS / "ca.pem").read_bytes(), roots])
    )


def _build_site(base: Path, aws_ca: bytes, upstreams: Sequence[apt.Upstream]) -> None:
    upper, work, root = (SITE / part for part in ("upper", "work", "root"))
    mount_overlay([base], upper, work, root)
    _trust_in_machines(root, aws_ca)
    (root / "etc/resolv.conf").write_text(
        f"nameserver {addresses.DNS}\nsearch {addresses.REGION}.compute.internal\n{DNS_OPTIONS}"
    )
    for path in (*apt.find_source_files(root), root / "etc/apt/apt.conf.d/90host"):
        if (renamed := apt.rename_upstreams(path.read_text(), list(upstreams))) != path.read_text():
            path.write_text(renamed)
    subprocess.run(["umount", root], check=True)


def _trust_in_machines(root: Path, authority: bytes) -> None:
    """Adds a CA certificate as update-ca-certificates does, which starts several processes for each of the 150 others."""
    path, folder = Path("/usr/local/share/ca-certificates/sandbox-aws.crt"), root / "etc/ssl/certs"
    (root / path.relative_to("/")).write_bytes(authority)
    (folder / "sandbox-aws.pem").symlink_to(path)
    with (folder / "ca-certificates.crt").open("ab") as bundle:
        bundle.write(authority)
    subprocess.run(["chroot", root, "openssl", "rehash", "/etc/ssl/certs"], check=True, capture_output=True)


class Cloud:
    """The machines and VPCs that exist. `reconcile` makes them match the EC2 API."""

    def __init__(
        self, client: Client, changes: Changes, images: Mapping[str, Layers], issuer: CredentialIssuer
    ) -> None:
        self._client = client
        self._changes = changes
        self._images = images
        self._issuer = issuer
        self._snapshot = Snapshot()
        self._machines: dict[str, Machine] = {}
        self._vpcs: dict[str, network.Vpc] = {}
        self._metadata: dict[str, metadata.MetadataService] = {}
        self._rules: dict[str, str] = {}
        self._written_status = ""

    @property
    def has_stopping_machines(self) -> bool:
        """True while a machine is shutting down, since its timeout triggers no event."""
        return any(machine.is_stopping for machine in self._machines.values())

    def reconcile(self) -> None:
        restarted = self._changes.take_restarted()
        snapshot = self._snapshot = self._client.read_snapshot()
        wanted = {instance.id: instance for instance in snapshot.instances}
        for id, machine in list(self._machines.items()):
            self._reconcile_machine(machine, wanted.get(id), restart=id in restarted)
        # A machine may use its address for a while after its instance was terminated.
        taken = {
            (machine.instance.vpc, machine.instance.private_address) for machine in self._machines.values()
        }
        for instance in snapshot.instances:
            if instance.running and (instance.vpc, instance.private_address) not in taken:
                self._launch(instance, snapshot)
        self._update_networks(snapshot)
        self.write_status(snapshot)

    def _reconcile_machine(self, machine: Machine, wanted: Instance | None, *, restart: bool) -> None:
        exit_code = machine.find_exit_code()
        if exit_code not in (None, REBOOT) and not machine.is_stopping and wanted and wanted.running:
            # Shut down from inside, as on EC2. If this fails, the next round does it.
            self._client.stop_instance(wanted.id)
            machine.clean_up()
            return
        if exit_code is not None:
            machine.clean_up()
        if machine.process:
            if wanted is None or not wanted.running or restart:
                machine.shut_down()
            machine.kill_if_overdue()
        elif wanted is None:
            self._remove(machine)
        elif wanted.running:
            machine.boot()

    def _launch(self, instance: Instance, snapshot: Snapshot) -> None:
        layers = self._images.get(self._client.find_image(instance.image))
        if layers is None:
            return self._fail_launch(instance, f"no machine image exists for {instance.image}")
        vpc = self._vpcs.get(instance.vpc)
        if vpc is None:
            used = {vpc.number for vpc in self._vpcs.values()}
            free = next(number for number in range(len(used) + 1) if number not in used)
            vpc = self._vpcs[instance.vpc] = network.Vpc(instance.vpc, free)
            self._metadata[vpc.id] = self._serve_metadata(vpc)
        vpc.attach(instance)
        try:
            self._apply_security_groups(instance, snapshot)
            user_data = self._client.get_user_data(instance.id)
            machine = Machine(instance, [SITE / "upper", *layers], user_data, self._changes.resources_changed)
            machine.boot()
        except (OSError, RuntimeError) as error:
            vpc.detach(instance)
            return self._fail_launch(instance, str(error))
        self._machines[instance.id] = machine
        return None

    def _serve_metadata(self, vpc: network.Vpc) -> metadata.MetadataService:
        def find(address: str) -> Instance | None:
            return next(
                (
                    instance
                    for instance in self._snapshot.instances
                    if (instance.vpc, instance.private_address) == (vpc.id, address) and instance.running
                ),
                None,
            )

        return metadata.MetadataService(
            vpc.open_metadata_listener(), find, self._client.find_role, self._issuer
        )

    def _fail_launch(self, instance: Instance, reason: str) -> None:
        """Stops an instance whose machine cannot start, and writes the reason to its console."""
        folder = host.STATE / "machines" / instance.id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "console.log").write_text(f"the local cloud cannot start {instance.name}: {reason}\n")
        self._client.stop_instance(instance.id)

    def _remove(self, machine: Machine) -> None:
        instance = machine.instance
        machine.remove()
        self._vpcs[instance.vpc].detach(instance)
        self._machines.pop(instance.id)
        self._rules.pop(instance.id, None)

    def _apply_security_groups(self, instance: Instance, snapshot: Snapshot) -> None:
        groups = [snapshot.groups[group] for group in instance.groups if group in snapshot.groups]
        rules = security_groups.render(groups, snapshot.members)
        if rules != self._rules.get(instance.id):
            network.nft(rules, instance.id)
            self._rules[instance.id] = rules

    def _update_networks(self, snapshot: Snapshot) -> None:
        """Applies security groups and public addresses; removes VPCs without machines."""
        running: dict[str, list[Instance]] = {id: [] for id in self._vpcs}
        for instance in snapshot.instances:
            if instance.id in self._machines:
                self._apply_security_groups(instance, snapshot)
                if instance.running:
                    running[instance.vpc].append(instance)
        used_vpcs = {machine.instance.vpc for machine in self._machines.values()}
        for id, vpc in list(self._vpcs.items()):
            vpc.update_nat(running[id])
            if id not in used_vpcs:
                self._metadata.pop(id).close()
                vpc.remove()
                del self._vpcs[id]

    def write_status(self, snapshot: Snapshot) -> None:
        """Writes the status file for `sandbox/bin/cloud`, if it has changed."""
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
            for instance in sorted(snapshot.instances, key=lambda instance: instance.name)
        ]
        if (text := json.dumps(machines, indent=2)) != self._written_status:
            temporary = host.STATUS.with_suffix(".new")
            temporary.write_text(text + "\n")
            temporary.rename(host.STATUS)
            self._written_status = text
