"""Security groups and their rules."""

import secrets
from collections.abc import Callable
from typing import Any

from sandbox.plugins.aws.client import Cloud, described, renamed, tag_specifications, tags_of
from sandbox.plugins.aws.resource_type import Kind
from sandbox.plugins.properties import Properties


def _create_group(cloud: Cloud, inputs: Properties) -> str:
    name = inputs.get("name") or f"{inputs['namePrefix']}{secrets.token_hex(13)}"
    vpc = {"VpcId": inputs["vpcId"]} if "vpcId" in inputs else {}
    created = cloud.ec2.create_security_group(
        GroupName=name,
        Description=inputs["description"],
        TagSpecifications=tag_specifications("security-group", inputs.get("tags")),
        **vpc,
    )
    return str(created["GroupId"])


def _let_nothing_out(cloud: Cloud, group_id: str, inputs: Properties) -> None:
    """AWS lets everything out of a new group. The official provider takes that rule away: only its own count."""
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    cloud.ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=[everything])


def _read_group(cloud: Cloud, group_id: str, known: Properties) -> Properties | None:
    found = described(lambda: cloud.ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"])
    return found and {
        "arn": cloud.arn(found["OwnerId"], f"security-group/{group_id}"),
        "description": found["Description"],
        "name": found["GroupName"],
        "ownerId": found["OwnerId"],
        "tags": tags_of(found),
        "vpcId": found.get("VpcId", ""),
    }


def _delete_group(cloud: Cloud, group_id: str, state: Properties) -> None:
    if state.get("revokeRulesOnDelete"):
        rules = cloud.ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group_id]}])
        for rule in rules["SecurityGroupRules"]:
            _revoke(cloud, rule["IsEgress"], group_id, rule["SecurityGroupRuleId"])
    cloud.when_free("Security Group", lambda: cloud.ec2.delete_security_group(GroupId=group_id))


SECURITY_GROUP = Kind(
    token="aws:ec2/securityGroup:SecurityGroup",
    called="Security Group",
    replacing=frozenset({"name", "namePrefix", "description", "vpcId"}),
    in_place=frozenset({"revokeRulesOnDelete"}),
    chosen=frozenset({"vpcId"}),
    defaults={"description": "Managed by Pulumi", "revokeRulesOnDelete": False},
    auto_named=True,
    outputs=frozenset({"arn", "name", "ownerId"}),
    create=_create_group,
    ready=_let_nothing_out,
    read=_read_group,
    delete=_delete_group,
)

# The ends of a rule: the input, its name where rules are described or modified, and where they are authorised.
ENDS: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "cidrIpv4": ("CidrIpv4", lambda end: {"IpRanges": [{"CidrIp": end}]}),
    "cidrIpv6": ("CidrIpv6", lambda end: {"Ipv6Ranges": [{"CidrIpv6": end}]}),
    "prefixListId": ("PrefixListId", lambda end: {"PrefixListIds": [{"PrefixListId": end}]}),
    "referencedSecurityGroupId": ("ReferencedGroupId", lambda end: {"UserIdGroupPairs": [{"GroupId": end}]}),
}


def _revoke(cloud: Cloud, egress: bool, group_id: object, rule_id: str) -> None:
    revoke = cloud.ec2.revoke_security_group_egress if egress else cloud.ec2.revoke_security_group_ingress
    revoke(GroupId=group_id, SecurityGroupRuleIds=[rule_id])


def _permission(inputs: Properties) -> dict[str, Any]:
    permission: dict[str, Any] = {"IpProtocol": inputs["ipProtocol"]}
    if "fromPort" in inputs:
        permission |= {"FromPort": inputs["fromPort"], "ToPort": inputs["toPort"]}
    for name, (_, end) in ENDS.items():
        if name in inputs:
            ((where, (range_,)),) = end(inputs[name]).items()
            permission[where] = [range_ | renamed(inputs, {"description": "Description"})]
    return permission


def _create_rule(cloud: Cloud, inputs: Properties, egress: bool) -> str:
    authorize = (
        cloud.ec2.authorize_security_group_egress if egress else cloud.ec2.authorize_security_group_ingress
    )
    created = authorize(
        GroupId=inputs["securityGroupId"],
        IpPermissions=[_permission(inputs)],
        TagSpecifications=tag_specifications("security-group-rule", inputs.get("tags")),
    )
    return str(created["SecurityGroupRules"][0]["SecurityGroupRuleId"])


def _read_rule(cloud: Cloud, rule_id: str, known: Properties) -> Properties | None:
    found = described(
        lambda: cloud.ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule_id])["SecurityGroupRules"]
    )
    if found is None:
        return None
    state: Properties = {
        "arn": cloud.arn(found.get("GroupOwnerId", ""), f"security-group-rule/{rule_id}"),
        "ipProtocol": found["IpProtocol"],
        "securityGroupId": found["GroupId"],
        "securityGroupRuleId": rule_id,
        "tags": tags_of(found),
    }
    state |= {name: found[theirs] for name, (theirs, _) in ENDS.items() if theirs in found}
    if "ReferencedGroupInfo" in found:
        state["referencedSecurityGroupId"] = found["ReferencedGroupInfo"]["GroupId"]
    if "Description" in found:  # moto forgets it where the other end is a group
        state["description"] = found["Description"]
    if found["IpProtocol"] != "-1":
        state |= {"fromPort": found["FromPort"], "toPort": found["ToPort"]}
    return state


def _update_rule(
    cloud: Cloud, rule_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if changed - {"tags"}:
        rule = {"IpProtocol": inputs["ipProtocol"], "Description": inputs.get("description", "")}
        if "fromPort" in inputs:
            rule |= {"FromPort": inputs["fromPort"], "ToPort": inputs["toPort"]}
        rule |= {theirs: inputs[name] for name, (theirs, _) in ENDS.items() if name in inputs}
        cloud.ec2.modify_security_group_rules(
            GroupId=inputs["securityGroupId"],
            SecurityGroupRules=[{"SecurityGroupRuleId": rule_id, "SecurityGroupRule": rule}],
        )


def _rule_kind(direction: str, egress: bool) -> Kind:
    called = f"VPC Security Group {direction} Rule"
    return Kind(
        token=f"aws:vpc/securityGroup{direction}Rule:SecurityGroup{direction}Rule",
        called=called,
        required=frozenset({"securityGroupId", "ipProtocol"}),
        replacing=frozenset({"securityGroupId"}),
        in_place=frozenset({"ipProtocol", "fromPort", "toPort", "description", *ENDS}),
        outputs=frozenset({"arn", "securityGroupRuleId"}),
        create=lambda cloud, inputs: _create_rule(cloud, inputs, egress),
        read=_read_rule,
        update=_update_rule,
        delete=lambda cloud, rule_id, state: cloud.when_free(
            called, lambda: _revoke(cloud, egress, state["securityGroupId"], rule_id)
        ),
    )


INGRESS_RULE = _rule_kind("Ingress", egress=False)
EGRESS_RULE = _rule_kind("Egress", egress=True)
