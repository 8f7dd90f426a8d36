"""Security groups and their rules."""

import copy
from typing import Any

from moto.ec2.exceptions import (
    DependencyViolationError,
    EC2ClientError,
    InvalidSecurityGroupNotFoundError,
    InvalidSecurityGroupRuleIdNotFoundError,
)
from moto.ec2.models.elastic_network_interfaces import NetworkInterfaceBackend
from moto.ec2.models.security_groups import SecurityGroupBackend, SecurityGroupRule

from sandbox.cloud.moto_corrections.correction import correct, correct_property
from sandbox.cloud.moto_corrections.instances import find_groups

PEERS = ("CidrIpv4", "CidrIpv6", "PrefixListId", "ReferencedGroupId")


@correct_property(SecurityGroupRule, "description")
def get_description(rule: Any) -> str | None:
    """A rule has its description also with a group as source (EC2 API, SecurityGroupRule); moto returns those of CIDR blocks only."""
    return rule.ip_range.get("Description") or rule.source_group.get("Description")


@correct_property(SecurityGroupRule, "referenced_group_info")
def describe_source_group(rule: Any) -> dict[str, str] | None:
    """The owner of a referenced group is the account itself (EC2 API, ReferencedSecurityGroup)."""
    group = rule.source_group
    return {"GroupId": group["GroupId"], "UserId": group["UserId"]} if group else None


@correct_property(SecurityGroupRule, "group_owner_id")
def get_group_owner(rule: Any) -> str:
    """A rule names the account that owns its group (EC2 API, SecurityGroupRule)."""
    return rule.owner_id


@correct(SecurityGroupRule, "__eq__")
def compare_rules(equal: Any, rule: Any, other: Any) -> bool:
    """A second rule with the same source is a duplicate, also with another description (EC2 API error codes, InvalidPermission.Duplicate)."""

    def without_description(rule: Any) -> Any:
        bare = copy.copy(rule)
        bare.source_group = {
            key: value for key, value in rule.source_group.items() if key in ("GroupId", "GroupName")
        }
        return bare

    # moto compares only the kinds of address that the first rule has
    return equal(without_description(rule), without_description(other)) and equal(
        without_description(other), without_description(rule)
    )


@correct(SecurityGroupBackend, "modify_security_group_rules")
def modify_rules(_: Any, backend: Any, group_id: str, rules: dict[str, dict[str, Any]]) -> None:
    """ModifySecurityGroupRules sets a rule as a whole, but cannot change its type. Rules of all protocols need no ports (provider).

    moto requires ports, and ignores a changed source group and a removed description.
    """
    group = backend.get_security_group_from_id(group_id)
    if group is None:
        raise InvalidSecurityGroupNotFoundError(group_id)
    for id, request in rules.items():
        rule = group.get_rule(id)
        if rule is None:
            raise InvalidSecurityGroupRuleIdNotFoundError(id)
        protocol = request.get("IpProtocol")
        if protocol is None:
            raise EC2ClientError(
                "InvalidParameterValue",
                "Invalid value 'null' for protocol. VPC security group rules must specify protocols explicitly.",
            )
        all_protocols = str(protocol).lower() in ("-1", "all")
        ports = request.get("FromPort"), request.get("ToPort")
        if not all_protocols and None in ports:
            raise EC2ClientError(
                "InvalidParameterValue",
                "Invalid value for portRange. Must specify both from and to ports with TCP/UDP.",
            )
        _change_peer(backend, rule, request)
        rule.ip_protocol = "-1" if all_protocols else protocol
        rule.from_port, rule.to_port = (None, None) if all_protocols else map(int, ports)  # pyright: ignore[reportArgumentType]


def _change_peer(backend: Any, rule: Any, request: dict[str, Any]) -> None:
    given = [peer for peer in PEERS if request.get(peer) is not None]
    if len(given) != 1:
        code = "InvalidParameterCombination" if given else "MissingParameter"
        raise EC2ClientError(
            code,
            "The request must contain exactly one of: cidrIp, cidrIpv6, prefixListId, or referencedGroupId",
        )
    (peer,) = given
    current = next(
        name
        for name, value in zip(
            PEERS,
            (
                rule.ip_range.get("CidrIp"),
                rule.ip_range.get("CidrIpv6"),
                rule.prefix_list_id,
                rule.source_group,
            ),
            strict=True,
        )
        if value
    )
    if peer != current:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Invalid rule type for security group rule '{rule.id}'. You may not specify {peer} for an existing {current} rule.",
        )
    description = {"Description": request["Description"]} if request.get("Description") else {}
    match peer:
        case "CidrIpv4":
            rule.ip_range = {"CidrIp": request[peer], **description}
        case "CidrIpv6":
            rule.ip_range = {"CidrIpv6": request[peer], **description}
        case "ReferencedGroupId":
            (group,) = find_groups(backend, [request[peer]])
            owner = backend.account_id
            rule.source_group = {"GroupId": group.id, "UserId": owner, "OwnerId": owner, **description}
        case _:
            rule.prefix_list_id = request[peer]


@correct(SecurityGroupBackend, "delete_security_group")
def refuse_used_group(
    delete: Any, backend: Any, name: str | None = None, group_id: str | None = None
) -> None:
    """DeleteSecurityGroup returns DependencyViolation while an interface or a rule of another group uses the group (EC2 API).

    CannotDelete for the default group of a VPC (EC2 API error codes).
    """
    group = backend.get_security_group_by_name_or_id(group_id or name)
    if group is not None:
        if group.is_default:
            raise EC2ClientError(
                "CannotDelete",
                f'the specified group: "{group.id}" name: "default" cannot be deleted by a user',
            )
        used = any(
            group.id in [used.id for used in interface._group_set] for interface in backend.enis.values()
        )
        referenced = any(
            rule.source_group.get("GroupId") == group.id
            for groups in backend.groups.values()
            for other in groups.values()
            if other.id != group.id
            for rule in (*other.ingress_rules, *other.egress_rules)
        )
        if used or referenced:
            raise DependencyViolationError(f"resource {group.id} has a dependent object")
    delete(backend, name, group_id)


@correct(NetworkInterfaceBackend, "modify_network_interface_attribute")
def refuse_unknown_group(
    modify: Any, backend: Any, eni_id: str, group_ids: list[str], *args: Any, **options: Any
) -> None:
    """ModifyNetworkInterfaceAttribute returns InvalidGroup.NotFound for an unknown group (EC2 API error codes)."""
    for _ in find_groups(backend, group_ids):
        pass
    modify(backend, eni_id, group_ids, *args, **options)
