"""What an AWS account offers, and whether a planned cluster fits into it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cluster.plan import ClusterPlan, MachinePlan
from cluster.settings.recordings import name_bucket
from cluster.zones import TooFewZonesError, assign_zones

# Service Quotas: "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", in vCPUs.
VCPU_QUOTA = "L-1216C47A"
# The instance families whose vCPUs count towards the quota of standard instances.
_STANDARD_FAMILY = re.compile(r"[acdhimrtz]\d")


@dataclass(frozen=True)
class InstanceType:
    memory_mib: int
    vcpus: int
    architectures: Sequence[str]

    @property
    def architecture(self) -> str:
        """What its image is for: `x86_64` where it can run that."""
        return "x86_64" if "x86_64" in self.architectures else self.architectures[0]


@dataclass(frozen=True)
class Image:
    """An AMI.

    `pinned` is true if the settings give its id. An image found by name is the newest one when its machine is first
    created. A newer image or another name does not replace that machine; an id in the settings does.
    """

    id: str
    pinned: bool
    root_volume_gib: int
    """Size of the root snapshot: a root volume cannot be smaller."""
    architecture: str


@dataclass(frozen=True)
class Subnet:
    """An existing subnet."""

    id: str
    cidr: str
    vpc_id: str
    zone: str
    name: str
    """The `Name` tag, empty without one."""


@dataclass(frozen=True)
class ElasticIp:
    """An Elastic IP that exists."""

    public_ip: str
    name: str
    """The `Name` tag, empty without one."""
    user: str
    """What it is associated with: the name of an instance, for example. Empty if it is free."""


@dataclass(frozen=True)
class Bucket:
    """A bucket of S3."""

    name: str
    region: str


@dataclass(frozen=True)
class Volume:
    """The root volume of an instance."""

    name: str
    """The `Name` tag. It is that of the instance."""
    gib: int


@dataclass(frozen=True)
class RecordingsPlan:
    """Where the applications upload recordings."""

    bucket: Bucket
    create: bool
    """Whether the program creates the bucket."""
    delete_with_stack: bool
    """Whether `pulumi destroy` deletes a created bucket with everything in it."""
    applications: Sequence[str]


@dataclass(frozen=True)
class Account:
    """What an account has in one region. `None` stands for something that it lacks.

    Its id and its region are empty for a cluster that does not need them.
    """

    instance_types: Mapping[str, InstanceType | None]
    images: Mapping[tuple[str, str], Image | None]
    """By their names in the settings and architecture."""
    zone_offers: Mapping[str, frozenset[str]]
    """Which of the instance types each availability zone offers."""
    subnet_zones: Mapping[str, str]
    """The zones of subnets that exist already, by CIDR."""
    subnets: Mapping[str, Subnet | None]
    """The existing subnets that the settings name, by id."""
    routes: Mapping[str, str]
    """Where the default route of each of those subnets leads to, by id: `internet`, `nat`, `other`, `unknown`, or empty without one."""
    used_addresses: Mapping[str, str]
    """The planned private addresses that others use already, with their user: an instance, for example."""
    vcpu_quota: int
    """vCPUs of standard on-demand instances that may run."""
    id: str = ""
    region: str = ""
    bucket: Bucket | None = None
    """The existing bucket that the settings name."""
    elastic_ip: ElasticIp | None = None
    """The address that the settings name."""


def find_account_problems(plan: ClusterPlan, account: Account) -> list[str]:
    """Returns why the account cannot run the cluster, one line each: key, value, remedy."""
    return [
        f"ant-media-cluster:{problem}"
        for problem in (
            *_check_instance_types(plan, account),
            *_check_images(plan, account),
            *_check_subnets(plan, account),
            *_check_zones(plan, account),
            *_check_addresses(plan, account),
            *_check_vcpus(plan, account),
            *_check_bucket(plan, account),
            *_check_elastic_ip(plan, account),
        )
    ]


def find_volume_problems(plan: ClusterPlan, existing: Sequence[Volume]) -> list[str]:
    """Returns which volumes the plan would make smaller, one line for each setting. AWS refuses that in the middle of an update."""
    problems: list[str] = []
    for setting, machines in plan.machines.items():
        size, names = machines[0].volume_size, {f"{plan.name}-{machine.place.name}" for machine in machines}
        own = [volume for volume in existing if volume.name in names]
        largest = max(own, key=lambda volume: volume.gib, default=None)
        if largest and largest.gib > size:
            problems.append(
                f"ant-media-cluster:{setting}.volumeSize is {size}: the volume of {largest.name} has {largest.gib} GiB, "
                f"and AWS does not make a volume smaller; give {largest.gib} or more"
            )
    return problems


def plan_recordings(plan: ClusterPlan, account: Account) -> RecordingsPlan | None:
    """Returns where recordings go, or `None` if they stay on the nodes."""
    if plan.recordings is None:
        return None
    create, delete = plan.recordings.creates_bucket, plan.recordings.delete_with_stack
    name = name_bucket(plan.name, account.id, account.region) if create else plan.recordings.bucket
    return RecordingsPlan(Bucket(name, account.region), create, delete, plan.node.applications)


def assign_subnet_zones(plan: ClusterPlan, account: Account) -> tuple[str, ...]:
    """Returns the availability zone of each subnet of the plan's own VPC.

    Raises:
        TooFewZonesError: Too few zones offer all instance types.
    """
    cidrs = [subnet.cidr for subnet in plan.addresses.subnets]
    return assign_zones(cidrs, account.subnet_zones, _zones_with_all_types(account))


def _zones_with_all_types(account: Account) -> list[str]:
    known = {name for name, found in account.instance_types.items() if found}
    return [zone for zone, types in account.zone_offers.items() if types >= known]


def _check_instance_types(plan: ClusterPlan, account: Account) -> Iterator[str]:
    for setting, machines in plan.machines.items():
        name = machines[0].instance_type
        found = account.instance_types[name]
        if found is None:
            yield f'{setting}.instanceType is "{name}": this region does not have it; give a type that it has'
        elif reason := _find_unsupported(setting, machines[0].image, plan.node.source, found.architecture):
            yield f'{setting}.instanceType is "{name}", whose processor is {found.architecture}: {reason}'


def _find_unsupported(setting: str, image: str, source: str, architecture: str) -> str | None:
    """Returns why machines of a setting cannot have an architecture, and the remedy, or None."""
    if architecture == "x86_64":
        return None
    if architecture != "arm64":
        return "give one of x86_64 or arm64"
    if setting not in ("origins", "edges"):
        return None
    if image == "marketplace":
        return "Ant Media's Marketplace image is for x86_64; give a type of x86_64, or an image of your own for arm64"
    if source == "install":
        # ant-media/Scripts, install_ant-media-server.sh: on aarch64 it selects Java 11, but installs 17.
        return "Ant Media's installer fails on it; give a type of x86_64, or amsZip"
    return None


def _check_images(plan: ClusterPlan, account: Account) -> Iterator[str]:
    missing: set[str] = set()
    for setting, machines in plan.machines.items():
        name, instance_type = machines[0].image, machines[0].instance_type
        found = account.instance_types[instance_type]
        if not found or _find_unsupported(setting, name, plan.node.source, found.architecture):
            continue
        image, size = account.images[name, found.architecture], machines[0].volume_size
        key = "mediaImage" if setting in ("origins", "edges") else "linuxImage"
        if image is None and name not in missing:
            missing.add(name)
            yield (
                f'{key} is "{name}": this account sees no such image in this region; '
                "subscribe to it in AWS Marketplace if it is sold there, or give the id of an image of this region"
            )
        elif image and image.architecture != found.architecture:
            yield (
                f'{setting}.instanceType is "{instance_type}", whose processor is {found.architecture}: {key} {name} is for '
                f"{image.architecture}; give a type or an image of the same architecture"
            )
        elif image and size < image.root_volume_gib:
            yield f"{setting}.volumeSize is {size}: its image needs {image.root_volume_gib} GiB or more"


def _check_subnets(plan: ClusterPlan, account: Account) -> Iterator[str]:
    for planned in plan.addresses.subnets:
        if planned.id is None:
            continue
        setting = f"network.subnets[{planned.index}]" if planned.public else "database.subnet"
        found = account.subnets[planned.id]
        if found is None:
            yield f"{setting}.id is {planned.id}: give the id of a subnet of this account and region"
        elif found.cidr != planned.cidr:
            yield f"{setting}.cidr is {planned.cidr}: {planned.id} has {found.cidr}"
        elif found.name == f"{plan.name}-{found.zone}":
            yield (
                f"{setting}.id is {planned.id}: this stack created it, and would delete it "
                "with its VPC; give a subnet of another VPC"
            )
        elif planned.public and account.routes[found.id] in ("", "nat"):
            yield (
                f"{setting}.id is {planned.id}: it has no route to an internet gateway; "
                "add one to its route table, or give a public subnet"
            )
        elif not planned.public and account.routes[found.id] == "":
            yield (
                f"{setting}.id is {planned.id}: the machine downloads Debian's packages, and this subnet has no way out; "
                "add a route to a NAT gateway to its route table, or give another subnet"
            )
        elif not planned.public and account.routes[found.id] == "internet":
            yield (
                f"{setting}.id is {planned.id}: it is public, but the machine would have no public address to reach the internet; "
                "give a subnet with a route to a NAT gateway, or leave database.subnet out"
            )
    if len({subnet.vpc_id for subnet in account.subnets.values() if subnet}) > 1:
        yield "network.subnets: these subnets are in several VPCs; give subnets of one"


def _check_zones(plan: ClusterPlan, account: Account) -> Iterator[str]:
    known = {name for name, found in account.instance_types.items() if found}
    if plan.addresses.vpc_cidr:
        try:
            assign_subnet_zones(plan, account)
        except TooFewZonesError:
            offered = _zones_with_all_types(account)
            yield (
                f"network.zones is {len(plan.addresses.subnets)}: {len(offered)} zones of this region offer "
                f"{', '.join(sorted(known))} ({', '.join(offered) or 'none'}); give at most {len(offered)}, or other types"
            )
    for setting, machines in plan.machines.items():
        name = machines[0].instance_type
        zones = dict.fromkeys(_zone_of(machine, plan, account) for machine in machines)
        for zone in zones:
            if zone and name in known and name not in account.zone_offers.get(zone, frozenset()):
                yield f'{setting}.instanceType is "{name}": zone {zone} of this stack does not offer it; give a type that it has'


def _zone_of(machine: MachinePlan, plan: ClusterPlan, account: Account) -> str | None:
    planned = plan.addresses.subnets[machine.place.subnet]
    if planned.id:
        subnet = account.subnets[planned.id]
        return subnet and subnet.zone
    return account.subnet_zones.get(planned.cidr)


def _check_addresses(plan: ClusterPlan, account: Account) -> Iterator[str]:
    """An update creates machines before it deletes others, so it cannot wait until a machine frees an address."""
    node = re.compile(rf"{re.escape(plan.name)}-(origin|edge)\d+ ")
    for setting, machines in plan.machines.items():
        for place in (machine.place for machine in machines):
            user = account.used_addresses.get(place.address)
            if user and node.match(user):
                other = "origins" if setting == "edges" else "edges"
                yield (
                    f"{setting}.count is {len(machines)}: {place.name} needs the address {place.address}, which {user} has "
                    f"until an update deletes it; reduce {other}.count in one update, and raise {setting}.count in the next"
                )
            elif user:
                yield (
                    f"network: {place.name} needs the address {place.address}, which {user} uses; "
                    "free the address, or give a subnet that nobody else uses"
                )


def _check_vcpus(plan: ClusterPlan, account: Account) -> Iterator[str]:
    needs: dict[str, int] = {}
    for setting, machines in plan.machines.items():
        found = account.instance_types[machines[0].instance_type]
        if found and _STANDARD_FAMILY.match(machines[0].instance_type):
            needs[setting] = len(machines) * found.vcpus
    if sum(needs.values()) > account.vcpu_quota:
        parts = ", ".join(f"{setting} {vcpus}" for setting, vcpus in needs.items())
        yield (
            f"instanceType: the machines need {sum(needs.values())} vCPUs ({parts}), but this account may run "
            f"{account.vcpu_quota} (quota {VCPU_QUOTA}): request more in Service Quotas, or give smaller types or fewer nodes"
        )


def _check_bucket(plan: ClusterPlan, account: Account) -> Iterator[str]:
    if plan.recordings is None or plan.recordings.creates_bucket:
        return
    start = f'recordings.bucket is "{plan.recordings.bucket}"'
    if account.bucket is None:
        yield f"{start}: this account sees no such bucket; give the name of one, or create"
    elif account.bucket.region != account.region:
        yield f"{start}: it is in {account.bucket.region}; give a bucket in {account.region}, or create"


def _check_elastic_ip(plan: ClusterPlan, account: Account) -> Iterator[str]:
    if plan.entry.elastic_ip is None:
        return
    own_name = f"{plan.name}-{plan.load_balancer.place.name}"
    start, found = f"loadBalancer.elasticIp is {plan.entry.elastic_ip}", account.elastic_ip
    if found is None:
        yield f"{start}: give the allocation id of an Elastic IP of this account and region"
    elif found.name == own_name:
        yield (
            f"{start}: this stack allocated it, and would release it; leave it out to keep this address, or give another one"
        )
    elif found.user not in ("", own_name):
        yield f"{start}: {found.user} uses it; disassociate it, or give another one"
