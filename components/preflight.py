"""Compares the plan with the AWS account before any resource is registered."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pulumi

from cluster.account import (
    Account,
    Image,
    RecordingsPlan,
    Subnet,
    assign_subnet_zones,
    find_account_problems,
    plan_recordings,
)
from cluster.address_plan import Machine
from cluster.plan import ClusterPlan
from components import aws_queries
from components.operator_access import find_access_problem, find_agent_problem
from components.program_end import refuse


@dataclass(frozen=True)
class AccountFacts:
    """What components need to know of the account."""

    images: Mapping[str, Image]
    """By their names in the settings."""
    zones: Sequence[str]
    """Availability zones of the VPC's subnets."""
    vpc_id: str | None
    """The VPC of existing subnets."""
    hosted_zone_id: str | None
    memory_mib: int
    """Memory of the load balancer."""
    running: frozenset[str]
    """Names of the planned machines that run already."""
    bucket: RecordingsPlan | None
    """Where recordings go."""

    @property
    def outputs(self) -> dict[str, str]:
        """Stack outputs by name."""
        return {"recordings_bucket": self.bucket.bucket.name} if self.bucket else {}


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
        addresses = aws_queries.find_instance_addresses(f"{plan.name}-")
        # Without its machine, the address leads nowhere: this update creates the machine.
        load_balancer_runs = bool(plan.load_balancer.place.addresses & addresses)
        load_balancer_ip = (
            aws_queries.find_elastic_ip(f"{plan.name}-{plan.load_balancer.place.name}")
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
        images={name: image for name, image in account.images.items() if image},
        zones=assign_subnet_zones(plan, account) if plan.addresses.vpc_cidr else (),
        vpc_id=next(iter(vpc_ids), None),
        hosted_zone_id=zone_id,
        memory_mib=found_type.memory_mib,
        running=frozenset(place.name for place in names.values() if place.addresses & addresses),
        bucket=plan_recordings(plan, account),
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
            name: aws_queries.find_image(name)
            for name in dict.fromkeys(machine.image for machine in machines)
        },
        zone_offers=offers,
        subnet_zones={subnet.cidr: subnet.zone for subnet in own},
        subnets=given,
        private_subnets=frozenset(
            subnet.id for subnet in given.values() if subnet and not aws_queries.has_internet_route(subnet)
        ),
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
    )


def _read_subnets(plan: ClusterPlan, zones: Collection[str]) -> tuple[list[Subnet], dict[str, Subnet | None]]:
    """Returns the subnets that the stack created, and those that the settings name, by id."""
    subnets = plan.addresses.subnets
    if plan.addresses.vpc_cidr is None:
        return [], {subnet.id: aws_queries.find_subnet(subnet.id) for subnet in subnets if subnet.id}
    names = [f"{plan.name}-{zone}" for zone in zones]
    return aws_queries.find_own_subnets(names, [subnet.cidr for subnet in subnets]), {}


def _list_places(plan: ClusterPlan) -> list[Machine]:
    return [machine.place for group in plan.machines.values() for machine in group]


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
