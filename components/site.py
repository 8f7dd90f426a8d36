"""What all machines of one cluster have in common."""

from dataclasses import dataclass
from typing import Protocol

import pulumi

from cluster.address_plan import Machine
from cluster.port_table import SecurityGroup
from components.images import Image
from components.machine import MachineArgs, SshAccess
from components.network import Network
from components.security_groups import SecurityGroups


class Size(Protocol):
    """An instance type, and a root volume in GiB."""

    @property
    def instance_type(self) -> str: ...
    @property
    def volume_size(self) -> int: ...


@dataclass(frozen=True)
class Site:
    """Where a cluster's machines are, and how they are reached."""

    cluster: str
    """First part of every ``Name`` tag."""
    network: Network
    groups: SecurityGroups
    access: SshAccess

    def machine(
        self,
        planned: Machine,
        size: Size,
        image: Image,
        *member_of: SecurityGroup,
        instance_profile: pulumi.Input[str] | None = None,
        protect: bool = False,
    ) -> MachineArgs:
        """The arguments of one machine of the plan."""
        return MachineArgs(
            cluster=self.cluster,
            planned=planned,
            image=image,
            instance_type=size.instance_type,
            volume_size=size.volume_size,
            subnet_id=self.network.subnet_ids[planned.subnet],
            security_group_ids=[self.groups.ids[group] for group in member_of],
            access=self.access,
            instance_profile=instance_profile,
            protect=protect,
        )
