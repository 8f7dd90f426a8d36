"""Checks the IAM policy documents in docs/aws against AWS's list of actions, resources and condition keys.

The end-to-end tests show that the documents allow every call of the program.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.project import PROJECT

FOLDER = PROJECT / "docs/aws"
PERMISSIONS = (
    "preview-permissions",
    "deploy-permissions",
    "recordings-permissions",
    "state-permissions",
    "stack-removal-permissions",
)
CFN_LINT = find_spec("cfnlint")  # a dependency of moto; not imported, because that takes seconds
assert CFN_LINT
assert CFN_LINT.origin
AWS: dict[str, Any] = json.loads(
    (Path(CFN_LINT.origin).parent / "data/AdditionalSpecs/Policies.json").read_text()
)


def statements(document: str) -> list[dict[str, Any]]:
    policy = json.loads((FOLDER / f"{document}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    return policy["Statement"]


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def resource_types(action: str) -> list[str]:
    """Returns the resource types that an action can be restricted to; none if it can be allowed on `*` only."""
    service, name = action.split(":")
    known = AWS[service]["Actions"].get(name.lower())
    assert known is not None, f"AWS has no {action}"
    return [name.lower() for name in as_list(known.get("Resources", []))]


def resource_type(arn: str) -> str:
    """Returns the resource type of an ARN: `subnet` for `arn:aws:ec2:REGION:ACCOUNT:subnet/*`."""
    service, _, _, resource = arn.split(":", 5)[2:]
    if service == "s3":  # ARNs of S3 contain no type.
        return "object" if "/" in resource else "bucket"
    if service == "iam":  # A form with wildcards for everything matches all of its ARNs.
        return resource.partition("/")[0]
    for name, known in AWS[service]["Resources"].items():
        for form in as_list(known["ARNFormats"]):
            if re.fullmatch(form.split(":", 5)[5], resource):
                return name.lower()
    raise AssertionError(f"AWS has no resource {arn}")


def allowed_actions(document: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yields each action of a document with its statement."""
    for statement in statements(document):
        for action in as_list(statement["Action"]):
            yield statement, action


@pytest.mark.parametrize("document", PERMISSIONS)
def test_actions_and_resources_exist_and_match(document: str) -> None:
    for statement, action in allowed_actions(document):
        assert "*" not in action
        types = resource_types(action)
        for arn in as_list(statement["Resource"]):
            if arn != "*" and not arn.endswith(":*/*"):
                # Each resource matches an action of the statement, and each action a resource.
                assert resource_type(arn) in {
                    t for a in as_list(statement["Action"]) for t in resource_types(a)
                }, arn
        assert any(
            arn == "*" or arn.endswith(":*/*") or resource_type(arn) in types
            for arn in as_list(statement["Resource"])
        ), f"{statement['Sid']} never allows {action}"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_document_fits_aws_size_limit(path: Path) -> None:
    # AWS allows 6,144 characters without white space for a managed policy and 2,048 for a trust policy. The margin is
    # for the values that replace the placeholders.
    length = len(re.sub(r"\s", "", path.read_text()))
    assert length < (1_500 if path.stem.startswith("trust") else 5_500)


def test_preview_role_reads_and_reads_no_secret() -> None:
    for _, action in allowed_actions("preview-permissions"):
        assert re.match(r"\w+:(Describe|List|Get)[A-Z]", action), action
        assert action not in ("secretsmanager:GetSecretValue", "ec2:GetPasswordData", "ec2:GetConsoleOutput")


def test_write_access_is_limited_to_the_stack() -> None:
    resource_tags = {"aws:ResourceTag/project": "ant-media-cluster", "aws:ResourceTag/stack": "STACK"}
    request_tags = {"aws:RequestTag/project": "ant-media-cluster", "aws:RequestTag/stack": "STACK"}
    resource_tags_if_tagged = {
        "StringEqualsIfExists": {"aws:ResourceTag/project": "ant-media-cluster"},
        "StringLikeIfExists": {"aws:ResourceTag/stack": "STACK"},
    }
    untagged_types = {"image", "network-interface", "security-group-rule", "volume"}
    for statement, action in (
        *allowed_actions("deploy-permissions"),
        *allowed_actions("recordings-permissions"),
    ):
        resources = as_list(statement["Resource"])
        keys = {key: value for keys in statement.get("Condition", {}).values() for key, value in keys.items()}
        if re.search(r":(Describe|List|Get)", action):
            continue
        if all("ant-media-cluster-STACK-" in arn or "ZONE" in arn for arn in resources):
            continue
        unconditional = not any("IfExists" in operator for operator in statement.get("Condition", {}))
        if (unconditional and keys.items() >= resource_tags.items()) or (
            action == "ec2:CreateTags" and keys.items() >= request_tags.items()
        ):
            continue
        if keys.items() >= request_tags.items():
            # Request tags restrict only the resource that the call creates, not those that it uses.
            created = {"RunInstances": "instance", "AllocateAddress": "elastic-ip"}.get(action[4:]) or re.sub(
                r"(?<=[a-z])(?=[A-Z])", "-", action.removeprefix("ec2:Create")
            ).lower()
            assert {resource_type(arn) for arn in resources} & {*resource_types(action)} == {created}, action
            continue
        assert {resource_type(arn) for arn in resources} <= untagged_types, f"{statement['Sid']}: {action}"
        # Resources with tags of another stack are excluded. An image can belong to any account.
        if resources != ["arn:aws:ec2:REGION::image/*"]:
            assert statement["Condition"] == resource_tags_if_tagged, f"{statement['Sid']}: {action}"
        # The call also needs a tagged resource.
        assert {*resource_types(action)} - untagged_types, action


def test_only_the_lock_of_the_state_can_be_deleted_unless_the_stack_is_removed() -> None:
    deleted = {
        document: [
            arn.rpartition(".pulumi/")[2].split("/")[0]
            for statement, action in allowed_actions(document)
            if action == "s3:DeleteObject"
            for arn in as_list(statement["Resource"])
        ]
        for document in PERMISSIONS
    }
    assert {document: folders for document, folders in deleted.items() if folders} == {
        "state-permissions": ["locks"],
        "stack-removal-permissions": [
            "stacks",
            "history",
            "arn:aws:s3:::ant-media-cluster-STACK-recordings-*",
        ],
    }


def test_role_is_passed_to_ec2_only_and_all_placeholders_are_known() -> None:
    pass_role = [
        statement for statement, action in allowed_actions("deploy-permissions") if action == "iam:PassRole"
    ]
    assert [one["Condition"] for one in pass_role] == [
        {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    ]
    for path in FOLDER.glob("*.json"):
        names = {*re.findall(r"(?<![A-Za-z])[A-Z]{4,}(?![A-Za-z])", path.read_text())}
        assert names <= {
            "ACCOUNT",
            "REGION",
            "STACK",
            "ZONE",
            "DOMAIN",
            "BUCKET",
            "OWNER",
            "REPOSITORY",
            "SUBJECT",
        }


# What version 7 of the provider calls, from its sources: for each resource that the program creates, reads in a refresh, and
# calls in a create, update or delete.
READS: dict[str, str] = {
    "provider": "sts:GetCallerIdentity",
    "Vpc": "ec2:DescribeVpcs DescribeVpcAttribute DescribeNetworkAcls DescribeRouteTables DescribeSecurityGroups",
    "InternetGateway": "ec2:DescribeInternetGateways",
    "RouteTable, Route and RouteTableAssociation": "ec2:DescribeRouteTables",
    "Subnet": "ec2:DescribeSubnets",
    "SecurityGroup": "ec2:DescribeSecurityGroups",
    "SecurityGroupIngressRule and SecurityGroupEgressRule": "ec2:DescribeSecurityGroupRules",
    "Instance": (
        "ec2:DescribeInstances DescribeInstanceTypes DescribeTags DescribeVpcs DescribeInstanceAttribute DescribeVolumes "
        "DescribeInstanceCreditSpecifications"
    ),
    "Eip and EipAssociation": "ec2:DescribeAddresses DescribeAddressesAttribute",
    "Record": "route53:GetHostedZone ListResourceRecordSets",
    "Secret": "secretsmanager:DescribeSecret GetResourcePolicy",
    "Role": "iam:GetRole ListRolePolicies ListAttachedRolePolicies",
    "RolePolicy": "iam:GetRolePolicy",
    "InstanceProfile": "iam:GetInstanceProfile GetRole",
    "User": "iam:GetUser",
    "UserPolicy": "iam:GetUserPolicy",
    "AccessKey": "iam:ListAccessKeys",
    "Bucket": (
        "s3:ListBucket GetBucketPolicy GetBucketAcl GetBucketCORS GetBucketWebsite GetBucketVersioning "
        "GetAccelerateConfiguration GetBucketRequestPayment GetBucketLogging GetLifecycleConfiguration "
        "GetReplicationConfiguration GetEncryptionConfiguration GetBucketObjectLockConfiguration GetBucketLocation "
        "GetBucketTagging"
    ),
    "BucketPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    # Functions that the program calls before it registers a resource.
    "getAvailabilityZones": "ec2:DescribeAvailabilityZones",
    "getInstanceType": "ec2:DescribeInstanceTypes",
    "getInstanceTypeOfferings": "ec2:DescribeInstanceTypeOfferings",
    "getAmi": "ec2:DescribeImages",
    "getSubnet and getSubnets": "ec2:DescribeSubnets",
    "getInstances": "ec2:DescribeInstances",
    "getRouteTable": "ec2:DescribeRouteTables",
    "getNetworkInterface and getNetworkInterfaces": "ec2:DescribeNetworkInterfaces",
    "getInstance": "ec2:DescribeInstances DescribeInstanceTypes DescribeInstanceAttribute DescribeVolumes DescribeInstanceCreditSpecifications",
    "getEbsVolumes and getVolume": "ec2:DescribeVolumes",
    "getEips and getElasticIp": "ec2:DescribeAddresses",
    "getServiceQuota": "servicequotas:GetAWSDefaultServiceQuota GetServiceQuota",
    "getBucket": "s3:ListBucket GetBucketLocation",
    "getCallerIdentity": "sts:GetCallerIdentity",
    "getRegion": "",
    "getZone": "route53:ListHostedZones GetHostedZone ListTagsForResource ListResourceRecordSets",
}
WRITES: dict[str, str] = {
    "Vpc": "ec2:CreateVpc ModifyVpcAttribute DeleteVpc CreateTags DeleteTags",
    "InternetGateway": "ec2:CreateInternetGateway AttachInternetGateway DetachInternetGateway DeleteInternetGateway DescribeNetworkInterfaces",
    "RouteTable": "ec2:CreateRouteTable DeleteRouteTable",
    "Route": "ec2:CreateRoute ReplaceRoute DeleteRoute",
    "RouteTableAssociation": "ec2:AssociateRouteTable ReplaceRouteTableAssociation DisassociateRouteTable",
    "Subnet": "ec2:CreateSubnet ModifySubnetAttribute DeleteSubnet DescribeNetworkInterfaces",
    "SecurityGroup": "ec2:CreateSecurityGroup RevokeSecurityGroupEgress DeleteSecurityGroup DescribeNetworkInterfaces",
    "SecurityGroupIngressRule": (
        "ec2:AuthorizeSecurityGroupIngress CreateTags DeleteTags ModifySecurityGroupRules RevokeSecurityGroupIngress"
    ),
    "SecurityGroupEgressRule": (
        "ec2:AuthorizeSecurityGroupEgress CreateTags DeleteTags ModifySecurityGroupRules RevokeSecurityGroupEgress"
    ),
    "Instance": (
        "ec2:DescribeImages RunInstances CreateTags DeleteTags StopInstances StartInstances TerminateInstances "
        "ModifyInstanceAttribute ModifyInstanceMetadataOptions ModifyInstanceCreditSpecification "
        "ModifyNetworkInterfaceAttribute ModifyVolume DescribeVolumesModifications "
        "DescribeIamInstanceProfileAssociations AssociateIamInstanceProfile DisassociateIamInstanceProfile "
        "ReplaceIamInstanceProfileAssociation"
    ),
    "Instance with a profile": "iam:PassRole",
    "Eip": "ec2:AllocateAddress ReleaseAddress CreateTags DeleteTags",
    "EipAssociation": "ec2:AssociateAddress DisassociateAddress",
    "Record": "route53:ChangeResourceRecordSets GetChange",
    "Secret": "secretsmanager:CreateSecret UpdateSecret DeleteSecret TagResource UntagResource",
    "Role": (
        "iam:CreateRole UpdateRole UpdateRoleDescription UpdateAssumeRolePolicy DeleteRole TagRole UntagRole "
        "ListInstanceProfilesForRole RemoveRoleFromInstanceProfile"
    ),
    "RolePolicy": "iam:PutRolePolicy DeleteRolePolicy",
    "InstanceProfile": (
        "iam:CreateInstanceProfile DeleteInstanceProfile AddRoleToInstanceProfile RemoveRoleFromInstanceProfile "
        "TagInstanceProfile UntagInstanceProfile"
    ),
}

# Of stacks with `recordings`.
RECORDINGS_WRITES: dict[str, str] = {
    "User": (
        "iam:CreateUser DeleteUser TagUser UntagUser ListGroupsForUser ListAccessKeys DeleteAccessKey ListSSHPublicKeys "
        "ListVirtualMFADevices ListMFADevices DeleteLoginProfile ListSigningCertificates ListServiceSpecificCredentials"
    ),
    "UserPolicy": "iam:PutUserPolicy DeleteUserPolicy",
    "AccessKey": "iam:CreateAccessKey DeleteAccessKey",
    "Bucket": "s3:CreateBucket PutBucketTagging DeleteBucket",
    "BucketPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
}


def find_refused(calls: Mapping[str, str], documents: Sequence[str]) -> list[str]:
    """Returns the calls that no document allows."""
    allowed = {action for document in documents for _, action in allowed_actions(document)}
    needed = [
        (subject, f"{service}:{name}")
        for subject, text in calls.items()
        for service, _, names in [text.partition(":")]
        for name in names.split()
    ]
    return [f"{subject}: {action}" for subject, action in needed if action not in allowed]


def test_preview_role_may_read_everything_that_the_program_and_its_provider_read() -> None:
    assert find_refused(READS, ["preview-permissions"]) == []


def test_deploy_role_may_create_change_and_delete_every_resource_of_the_program() -> None:
    # A deploy role has the preview permissions too.
    documents = ["preview-permissions", "deploy-permissions"]
    assert find_refused(READS, documents) + find_refused(WRITES, documents) == []
    assert find_refused(RECORDINGS_WRITES, [*documents, "recordings-permissions"]) == []
    emptied = {"Bucket with deleteWithStack": "s3:DeleteObject DeleteObjectVersion ListBucketVersions"}
    assert find_refused(emptied, ["stack-removal-permissions"]) == []


def test_calls_of_the_provider_are_listed_for_every_resource_and_function_of_the_program() -> None:
    listed = {name for subject in (*READS, *WRITES) for name in re.findall(r"\w+", subject)}
    sources = "".join(path.read_text() for path in (PROJECT / "components").glob("*.py"))
    resources = re.findall(r"aws\.\w+\.([A-Z]\w+)\(", sources)
    functions = re.findall(r"aws\.(?:\w+\.)?get_(\w+)\(", sources)
    assert len(resources) > 10
    assert {*resources} - {name for name in resources if name.endswith("Args")} <= listed
    assert {f"get{''.join(word.capitalize() for word in name.split('_'))}" for name in functions} <= listed


def test_calls_of_operations_are_allowed() -> None:
    allowed = {action.lower() for document in PERMISSIONS for _, action in allowed_actions(document)}
    text = "".join(path.read_text() for path in (FOLDER.parents[1] / "operations").rglob("*.py"))
    calls = [
        *re.findall(r'aws\.client\("(\w+)"\)\.(\w+)\(', text),
        *(("ec2", name) for name in re.findall(r'"(describe_\w+)"', text)),
    ]
    assert len(calls) > 10
    for service, name in calls:
        assert f"{service}:{name.replace('_', '')}" in allowed
