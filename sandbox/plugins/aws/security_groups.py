"""Security groups and their rules."""

import secrets
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import (
    AwsClient,
    describe_one,
    error_code,
    get_tags,
    is_not_found,
    rename_keys,
    tag_specifications,
    to_tag_list,
)
from sandbox.plugins.aws.resource_type import AwsResourceType
from sandbox.plugins.properties import Properties


def _create_group(client: AwsClient, inputs: Properties) -> str:
    name = inputs.get("name") or f"{inputs['namePrefix']}{secrets.token_hex(13)}"
    vpc = {"VpcId": inputs["vpcId"]} if "vpcId" in inputs else {}
    created = client.ec2.create_security_group(
        GroupName=name,
        Description=inputs["description"],
        TagSpecifications=tag_specifications("security-group", client.merge_tags(inputs.get("tags"))),
        **vpc,
    )
    return str(created["GroupId"])


def _revoke_default_egress(client: AwsClient, group_id: str, inputs: Properties) -> None:
    """Revokes the egress rules that AWS gives a new group, as the official provider does."""
    for world in ({"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}, {"Ipv6Ranges": [{"CidrIpv6": "::/0"}]}):
        rule = {"IpProtocol": "-1", "FromPort": 0, "ToPort": 0, **world}
        try:
            client.ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=[rule])
        except ClientError as problem:
            # Only a VPC with IPv6 addresses has the second one.
            if not is_not_found(problem) and error_code(problem) != "InvalidParameterValue":
                raise


def _read_group(client: AwsClient, group_id: str, known: Properties) -> Properties | None:
    found = describe_one(lambda: client.ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"])
    return found and {
        "arn": client.arn(found["OwnerId"], f"security-group/{group_id}"),
        "description": found["Description"],
        "name": found["GroupName"],
        "ownerId": found["OwnerId"],
        "tags": get_tags(found),
        "vpcId": found.get("VpcId", ""),
    }


def _delete_group(client: AwsClient, group_id: str, state: Properties) -> None:
    if state.get("revokeRulesOnDelete"):
        rules = client.ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group_id]}])
        for rule in rules["SecurityGroupRules"]:
            _revoke(client, rule["IsEgress"], group_id, rule["SecurityGroupRuleId"])
    of_group = [{"Name": "group-id", "Values": [group_id]}]
    client.ec2.describe_network_interfaces(
        Filters=of_group
    )  # the official provider deletes those of other services
    client.delete_when_unused("Security Group", lambda: client.ec2.delete_security_group(GroupId=group_id))


SECURITY_GROUP = AwsResourceType(
    token="aws:ec2/securityGroup:SecurityGroup",
    label="Security Group",
    replace_on_change=frozenset({"name", "namePrefix", "description", "vpcId"}),
    update_on_change=frozenset({"revokeRulesOnDelete"}),
    chosen_by_aws=frozenset({"vpcId"}),
    defaults={"description": "Managed by Pulumi", "revokeRulesOnDelete": False},
    auto_named=True,
    outputs=frozenset({"arn", "name", "ownerId"}),
    create=_create_group,
    finish_create=_revoke_default_egress,
    read=_read_group,
    delete=_delete_group,
)


def _group_pair(peer: str) -> dict[str, str]:
    """Returns a group as source or destination, given as `sg-…` or `ACCOUNT/sg-…`."""
    account, _, group = peer.rpartition("/")
    return {"GroupId": group, **({"UserId": account} if account else {})}


# The sources and destinations of a rule: the input, its name in DescribeSecurityGroupRules and ModifySecurityGroupRules, and
# its form in the Authorize requests.
PEERS: dict[str, tuple[str, Callable[[Any], dict[str, Any]]]] = {
    "cidrIpv4": ("CidrIpv4", lambda peer: {"IpRanges": [{"CidrIp": peer}]}),
    "cidrIpv6": ("CidrIpv6", lambda peer: {"Ipv6Ranges": [{"CidrIpv6": peer}]}),
    "prefixListId": ("PrefixListId", lambda peer: {"PrefixListIds": [{"PrefixListId": peer}]}),
    "referencedSecurityGroupId": (
        "ReferencedGroupId",
        lambda peer: {"UserIdGroupPairs": [_group_pair(peer)]},
    ),
}


def _revoke(client: AwsClient, egress: bool, group_id: object, rule_id: str) -> None:
    revoke = client.ec2.revoke_security_group_egress if egress else client.ec2.revoke_security_group_ingress
    revoke(GroupId=group_id, SecurityGroupRuleIds=[rule_id])


def _permission(inputs: Properties) -> dict[str, Any]:
    permission: dict[str, Any] = {"IpProtocol": inputs["ipProtocol"]}
    if "fromPort" in inputs:
        permission |= {"FromPort": inputs["fromPort"], "ToPort": inputs["toPort"]}
    for name, (_, to_range) in PEERS.items():
        if name in inputs:
            ((where, (range_,)),) = to_range(inputs[name]).items()
            permission[where] = [range_ | rename_keys(inputs, {"description": "Description"})]
    return permission


def _create_rule(client: AwsClient, inputs: Properties, egress: bool) -> str:
    authorize = (
        client.ec2.authorize_security_group_egress if egress else client.ec2.authorize_security_group_ingress
    )
    created = authorize(GroupId=inputs["securityGroupId"], IpPermissions=[_permission(inputs)])
    return str(created["SecurityGroupRules"][0]["SecurityGroupRuleId"])


def _tag_rule(client: AwsClient, rule_id: str, inputs: Properties) -> None:
    if tags := client.merge_tags(inputs.get("tags")):
        client.ec2.create_tags(Resources=[rule_id], Tags=to_tag_list(tags))


def _read_rule(client: AwsClient, rule_id: str, known: Properties) -> Properties | None:
    found = describe_one(
        lambda: client.ec2.describe_security_group_rules(SecurityGroupRuleIds=[rule_id])["SecurityGroupRules"]
    )
    if found is None:
        return None
    state: Properties = {
        "arn": client.arn(found.get("GroupOwnerId", ""), f"security-group-rule/{rule_id}"),
        "ipProtocol": found["IpProtocol"],
        "securityGroupId": found["GroupId"],
        "securityGroupRuleId": rule_id,
        "tags": get_tags(found),
    }
    state |= {name: found[api_name] for name, (api_name, _) in PEERS.items() if api_name in found}
    if "ReferencedGroupInfo" in found:
        group, owner = found["ReferencedGroupInfo"]["GroupId"], found["ReferencedGroupInfo"].get("UserId", "")
        # Without an account id, the official provider takes its own account's groups for those of another account.
        state["referencedSecurityGroupId"] = f"{owner}/{group}" if owner != client.account else group
    if "Description" in found:
        state["description"] = found["Description"]
    if found["IpProtocol"] != "-1":
        state |= {"fromPort": found["FromPort"], "toPort": found["ToPort"]}
    return state


def _update_rule(
    client: AwsClient, rule_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if changed - {"tags", "tagsAll"}:
        rule = {"IpProtocol": inputs["ipProtocol"], "Description": inputs.get("description", "")}
        if "fromPort" in inputs:
            rule |= {"FromPort": inputs["fromPort"], "ToPort": inputs["toPort"]}
        rule |= {
            api_name: str(inputs[name]).rpartition("/")[2]
            if api_name == "ReferencedGroupId"
            else inputs[name]
            for name, (api_name, _) in PEERS.items()
            if name in inputs
        }
        client.ec2.modify_security_group_rules(
            GroupId=inputs["securityGroupId"],
            SecurityGroupRules=[{"SecurityGroupRuleId": rule_id, "SecurityGroupRule": rule}],
        )


def _rule_type(direction: str, egress: bool) -> AwsResourceType:
    label = f"VPC Security Group {direction} Rule"
    return AwsResourceType(
        token=f"aws:vpc/securityGroup{direction}Rule:SecurityGroup{direction}Rule",
        label=label,
        required=frozenset({"securityGroupId", "ipProtocol"}),
        replace_on_change=frozenset({"securityGroupId"}),
        update_on_change=frozenset({"ipProtocol", "fromPort", "toPort", "description", *PEERS}),
        plugin_framework=True,
        outputs=frozenset({"arn", "securityGroupRuleId"}),
        create=lambda client, inputs: _create_rule(client, inputs, egress),
        finish_create=_tag_rule,
        read=_read_rule,
        update=_update_rule,
        delete=lambda client, rule_id, state: client.delete_when_unused(
            label, lambda: _revoke(client, egress, state["securityGroupId"], rule_id)
        ),
    )


INGRESS_RULE = _rule_type("Ingress", egress=False)
EGRESS_RULE = _rule_type("Egress", egress=True)
