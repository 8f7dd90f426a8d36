"""Builds the `MachineArgs` of planned machines."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from cluster.derived_keys import SshKeys
from cluster.plan import MachinePlan
from components.account_facts import AccountFacts
from components.balancer_identity import BalancerIdentity
from components.machine import MachineArgs
from components.network import Network
from components.security_groups import SecurityGroups


@dataclass(frozen=True)
class Site:
    """Adds what all machines share (network, security groups, images, SSH keys) to the arguments of each planned machine."""

    cluster: str
    """First part of every `Name` tag."""
    network: Network
    groups: SecurityGroups
    account: AccountFacts
    ssh: SshKeys
    hooks: pulumi.ResourceHookBinding
    """Explains failures of AWS."""

    def machine_args(self, plan: MachinePlan, identity: BalancerIdentity | None = None) -> MachineArgs:
        """Returns the arguments of one machine; `identity` is its IAM role."""
        return MachineArgs(
            cluster=self.cluster,
            place=plan.place,
            image=self.account.images[plan.place.name],
            instance_type=plan.instance_type,
            volume_size=plan.volume_size,
            subnet_id=self.network.subnet_ids[plan.place.subnet],
            security_group_ids=[self.groups.ids[group] for group in plan.security_groups],
            ssh=self.ssh,
            hooks=self.hooks,
            instance_profile=identity.instance_profile if identity else None,
            protect=plan.protect,
            monitored=plan.monitored,
            public=plan.public,
            replaced=plan.place.name in self.account.replaced,
        )

    def list_args(self, plans: Sequence[MachinePlan]) -> list[MachineArgs]:
        """Returns the arguments of several machines."""
        return [self.machine_args(plan) for plan in plans]
