"""Compares the plan with the AWS account before any resource is registered."""

from collections.abc import Collection, Mapping, Sequence

import pulumi

from cluster.account import (
    Account,
    ElasticIp,
    InstanceType,
    Subnet,
    Volume,
    assign_subnet_zones,
    find_account_problems,
    find_volume_problems,
    plan_recordings,
)
from cluster.address_plan import MachinePlace
from cluster.plan import ClusterPlan, MachinePlan
from components import aws_queries
from components.account_facts import AccountFacts, EntryFacts
from components.operator_access import find_access_problem, find_agent_problem
from components.program_end import refuse


def check_account(plan: ClusterPlan, hosted_zone: str | None, admin_cidrs: Sequence[str]) -> AccountFacts:
    """Returns the facts of the account, or ends the program with all reasons why it cannot run the cluster."""
    try:
        account = _read_account(plan)
        problems = find_account_problems(plan, account)
        zone_id = aws_queries.find_hosted_zone(hosted_zone) if hosted_zone else None
        if hosted_zone and zone_id is None:
            problems.append(
                f'ant-media-cluster:route53Zone is "{hosted_zone}": give a public hosted zone of this account, and only one of that name'
            )
        # Names of another stack may begin with the same words.
        names = {f"{plan.name}-{place.name}": place for place in _list_places(plan)}
        found = aws_queries.find_stopped_instances(f"{plan.name}-")
        stopped = {name: instance_id for name, instance_id in found.items() if name in names}
        addresses = aws_queries.find_instance_addresses(f"{plan.name}-*")
        replaced = _find_replaced(plan, account, addresses)
        problems += find_volume_problems(plan, _find_other_volumes(plan, replaced) if addresses else [])
        # Without its machine, the address leads nowhere: this update creates the machine.
        load_balancer_runs = bool(plan.load_balancer.place.addresses & addresses)
        load_balancer_ip = (
            _find_load_balancer_ip(f"{plan.name}-{plan.load_balancer.place.name}", account.elastic_ip)
            if load_balancer_runs and not pulumi.runtime.is_dry_run()
            else None
        )
    except aws_queries.AwsError as error:
        refuse(
            f"Nothing was changed, because AWS refused or did not answer: {error}\n"
            "Check the credentials with aws sts get-caller-identity, and their permissions (docs/aws)."
        )
    if stopped:
        problems += _report_stopped(stopped)
    if not pulumi.runtime.is_dry_run():
        # A preview needs no SSH.
        problems += filter(None, (find_agent_problem(), find_access_problem(admin_cidrs, load_balancer_ip)))
    if problems:
        refuse("\n".join(["Nothing was changed:", *(f"  {problem}" for problem in problems)]))
    found_type = account.instance_types[plan.load_balancer.instance_type]
    vpc_ids = {subnet.vpc_id for subnet in account.subnets.values() if subnet}
    assert found_type, "find_account_problems reports missing types"
    return AccountFacts(
        images={
            machine.place.name: image
            for machine in _list_machines(plan)
            if (image := account.images[_image_key(machine, account.instance_types)])
        },
        replaced=replaced,
        zones=assign_subnet_zones(plan, account) if plan.addresses.vpc_cidr else (),
        vpc_id=next(iter(vpc_ids), None),
        entry=EntryFacts(zone_id, account.elastic_ip),
        memory_mib=found_type.memory_mib,
        running=frozenset(place.name for place in names.values() if place.addresses & addresses),
        uploads=plan_recordings(plan, account),
    )


def _read_account(plan: ClusterPlan) -> Account:
    machines = [group[0] for group in plan.machines.values()]
    types = sorted({machine.instance_type for machine in machines})
    found = {name: aws_queries.find_instance_type(name) for name in types}
    offers = aws_queries.find_zone_offers([name for name in types if found[name]])
    own, given = _read_subnets(plan, offers)
    existing = [*own, *(subnet for subnet in given.values() if subnet)]
    return Account(
        instance_types=found,
        images={
            key: aws_queries.find_image(*key)
            for key in dict.fromkeys(_image_key(machine, found) for machine in machines)
        },
        zone_offers=offers,
        subnet_zones={subnet.cidr: subnet.zone for subnet in own},
        subnets=given,
        routes={subnet.id: aws_queries.find_default_route(subnet) for subnet in given.values() if subnet},
        used_addresses=aws_queries.find_used_addresses(
            [subnet.id for subnet in existing],
            [place.address for place in _list_places(plan)],
            [f"{plan.name}-{place.name}" for place in _list_places(plan)],
        )
        if existing
        else {},
        vcpu_quota=aws_queries.find_vcpu_quota(),
        id=aws_queries.find_account_id() if plan.recordings else "",
        region=aws_queries.find_region() if plan.recordings else "",
        bucket=aws_queries.find_bucket(plan.recordings.bucket)
        if plan.recordings and not plan.recordings.creates_bucket
        else None,
        elastic_ip=aws_queries.find_elastic_ip(plan.entry.elastic_ip) if plan.entry.elastic_ip else None,
    )


def _image_key(machine: MachinePlan, types: Mapping[str, InstanceType | None]) -> tuple[str, str]:
    """Returns the name of a machine's image in the settings, and its architecture."""
    found = types[machine.instance_type]
    return machine.image, found.architecture if found else "x86_64"


def _find_replaced(plan: ClusterPlan, account: Account, running: frozenset[str]) -> frozenset[str]:
    """Returns the running machines that this update replaces because of an input that it otherwise ignores."""
    arm = aws_queries.find_instance_addresses(f"{plan.name}-*", "arm64")
    x86 = running - arm
    replaced = {
        machine.place.name
        for machine in _list_machines(plan)
        if machine.place.addresses
        & (x86 if _image_key(machine, account.instance_types)[1] == "arm64" else arm)
    }
    if plan.database:
        # From a private subnet to a public one, or back: the address is not among the planned ones.
        addresses = aws_queries.find_instance_addresses(f"{plan.name}-{plan.database.place.name}")
        if addresses - plan.database.place.addresses:
            replaced.add(plan.database.place.name)
    return frozenset(replaced)


def _find_other_volumes(plan: ClusterPlan, replaced: Collection[str]) -> list[Volume]:
    """Returns volumes of another size than planned, of machines that this update keeps."""
    groups: dict[int, list[list[str]]] = {}
    for machines in plan.machines.values():
        kept = [f"{plan.name}-{m.place.name}" for m in machines if m.place.name not in replaced]
        groups.setdefault(machines[0].volume_size, []).append(kept)
    return [volume for gib, names in groups.items() for volume in aws_queries.find_other_volumes(names, gib)]


def _find_load_balancer_ip(name: str, own: ElasticIp | None) -> str | None:
    """Returns the Elastic IP of the load balancer of this name. The user's own leads to it only if it is associated."""
    return own.public_ip if own and own.user == name else aws_queries.find_public_ip(name)


def _read_subnets(plan: ClusterPlan, zones: Collection[str]) -> tuple[list[Subnet], dict[str, Subnet | None]]:
    """Returns the subnets that the stack created, and those that the settings name, by id."""
    subnets = plan.addresses.subnets
    if plan.addresses.vpc_cidr is None:
        return [], {subnet.id: aws_queries.find_subnet(subnet.id) for subnet in subnets if subnet.id}
    names = [f"{plan.name}-{zone}" for zone in zones]
    return aws_queries.find_own_subnets(names, [subnet.cidr for subnet in subnets]), {}


def _list_machines(plan: ClusterPlan) -> list[MachinePlan]:
    return [machine for group in plan.machines.values() for machine in group]


def _list_places(plan: ClusterPlan) -> list[MachinePlace]:
    return [machine.place for machine in _list_machines(plan)]


def _report_stopped(stopped: Mapping[str, str]) -> list[str]:
    """Returns the problem of stopped machines. A preview only warns: it shows all else that would change."""
    machines = ", ".join(f"{name} ({instance_id})" for name, instance_id in sorted(stopped.items()))
    ids = " ".join(stopped[name] for name in sorted(stopped))
    problem = (
        f"Stopped machines: {machines}. An update needs them running. Start them, then run this again: "
        f"aws ec2 start-instances --instance-ids {ids}"
    )
    if pulumi.runtime.is_dry_run():
        pulumi.log.warn(problem)
        return []
    return [problem]
