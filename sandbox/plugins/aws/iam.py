"""Roles, what they may do, and the instance profiles that give them to machines."""

import json
import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws import policy_documents
from sandbox.plugins.aws.client import Cloud, code, described, refusal, tag_list, tags_of
from sandbox.plugins.aws.resource_type import Kind, retag
from sandbox.plugins.properties import Properties, Value


def _name(longest: int) -> Callable[[str], str]:
    def objection(name: str) -> str:
        if not 1 <= len(name) <= longest:
            return f"expected length of name to be in the range (1 - {longest}), got {name}"
        if not re.fullmatch(r"[\w+=,.@-]+", name, re.ASCII):
            return r"invalid value for name (must match [\w+=,.@-])"
        return ""

    return objection


def _not_an_arn(role: str) -> str:
    return '"role" must be the role\'s name not its ARN' if role.startswith("arn:") else ""


def _description(inputs: Properties) -> dict[str, Any]:
    return {"Description": inputs["description"]} if "description" in inputs else {}


def _created(found: dict[str, Any]) -> str:
    return f"{found['CreateDate']:%Y-%m-%dT%H:%M:%SZ}"


# ---- roles


def _create_role(cloud: Cloud, inputs: Properties) -> str:
    name = str(inputs["name"])
    cloud.iam.create_role(
        RoleName=name,
        AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
        Tags=tag_list(inputs.get("tags")),
        **_description(inputs),
    )
    try:  # moto looks at the policy only where it is changed
        _trust(cloud, name, inputs)
    except ClientError:
        cloud.iam.delete_role(RoleName=name)
        raise
    return name


def _trust(cloud: Cloud, name: str, inputs: Properties) -> None:
    cloud.iam.update_assume_role_policy(RoleName=name, PolicyDocument=inputs["assumeRolePolicy"])


def _read_role(cloud: Cloud, name: str, known: Properties) -> Properties | None:
    found = described(lambda: [cloud.iam.get_role(RoleName=name)["Role"]])
    return found and {
        "arn": found["Arn"],
        "assumeRolePolicy": policy_documents.as_known(
            known.get("assumeRolePolicy"), found["AssumeRolePolicyDocument"]
        ),
        "createDate": _created(found),
        "description": found.get("Description", ""),
        "name": found["RoleName"],
        "tags": tags_of(found),
        "uniqueId": found["RoleId"],
    }


def _update_role(cloud: Cloud, name: str, state: Properties, inputs: Properties, changed: set[str]) -> None:
    if "assumeRolePolicy" in changed:
        _trust(cloud, name, inputs)
    if "description" in changed:
        cloud.iam.update_role_description(RoleName=name, Description=inputs.get("description", ""))


def _delete_role(cloud: Cloud, name: str, state: Properties) -> None:
    def delete() -> None:
        for profile in cloud.iam.list_instance_profiles_for_role(RoleName=name)["InstanceProfiles"]:
            _give_role(cloud, profile["InstanceProfileName"], None)
        cloud.iam.delete_role(RoleName=name)

    cloud.unless_gone(lambda: cloud.propagated(delete, lambda problem: code(problem) == "DeleteConflict"))


ROLE = Kind(
    token="aws:iam/role:Role",
    called="IAM Role",
    required=frozenset({"assumeRolePolicy"}),
    replacing=frozenset({"name"}),
    in_place=frozenset({"assumeRolePolicy", "description"}),
    policies=frozenset({"assumeRolePolicy"}),
    objections={"name": _name(64), "assumeRolePolicy": policy_documents.objection("assume_role_policy")},
    auto_named=True,
    outputs=frozenset({"arn", "createDate", "uniqueId"}),
    create=_create_role,
    read=_read_role,
    update=_update_role,
    delete=_delete_role,
    retag=lambda cloud, name, old, new: retag(
        old,
        new,
        lambda keys: cloud.iam.untag_role(RoleName=name, TagKeys=keys),
        lambda tags: cloud.iam.tag_role(RoleName=name, Tags=tags),
    ),
)

# ---- their policies

LARGEST = 10240


def _put_policy(cloud: Cloud, inputs: Properties) -> str:
    role, name = str(inputs["role"]), str(inputs["name"])
    _refuse_too_large(cloud, role, name, str(inputs["policy"]))
    cloud.iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=inputs["policy"])
    return f"{role}:{name}"


def _refuse_too_large(cloud: Cloud, role: str, name: str, policy: str) -> None:
    """What a role's own policies may come to in all, without white space. moto does not look."""
    others = set(cloud.iam.list_role_policies(RoleName=role)["PolicyNames"]) - {name}
    texts = [policy, *(json.dumps(_policy(cloud, role, other)) for other in others)]
    if sum(len(re.sub(r"\s", "", text)) for text in texts) > LARGEST:
        message = f"Maximum policy size of {LARGEST} bytes exceeded for role {role}"
        raise refusal("PutRolePolicy", "LimitExceeded", message)


def _policy(cloud: Cloud, role: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
    return found


def _read_policy(cloud: Cloud, policy_id: str, known: Properties) -> Properties | None:
    role, name = policy_id.split(":", 1)
    found = described(lambda: [_policy(cloud, role, name)])
    return found and {"name": name, "policy": policy_documents.as_known(known.get("policy"), found), "role": role}


def _update_policy(
    cloud: Cloud, policy_id: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    _put_policy(cloud, inputs)


def _delete_policy(cloud: Cloud, policy_id: str, state: Properties) -> None:
    role, name = policy_id.split(":", 1)
    cloud.unless_gone(lambda: cloud.iam.delete_role_policy(RoleName=role, PolicyName=name))


ROLE_POLICY = Kind(
    token="aws:iam/rolePolicy:RolePolicy",
    called="IAM Role Policy",
    required=frozenset({"role", "policy"}),
    replacing=frozenset({"name", "role"}),
    in_place=frozenset({"policy"}),
    policies=frozenset({"policy"}),
    objections={"name": _name(128), "role": _not_an_arn, "policy": policy_documents.objection("policy")},
    auto_named=True,
    taggable=False,
    create=_put_policy,
    read=_read_policy,
    update=_update_policy,
    delete=_delete_policy,
)

# ---- instance profiles


def _create_profile(cloud: Cloud, inputs: Properties) -> str:
    name = str(inputs["name"])
    cloud.iam.create_instance_profile(InstanceProfileName=name, Tags=tag_list(inputs.get("tags")))
    return name


def _profile(cloud: Cloud, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cloud.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    return found


def _give_role(cloud: Cloud, name: str, role: Value) -> None:
    """A profile has one role or none, so that the one it has goes first."""
    has = [held["RoleName"] for held in _profile(cloud, name)["Roles"]]
    for other in has:
        if other != role:
            cloud.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=other)
    if role and role not in has:
        cloud.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=role)


def _read_profile(cloud: Cloud, name: str, known: Properties) -> Properties | None:
    found = described(lambda: [_profile(cloud, name)])
    return found and {
        "arn": found["Arn"],
        "createDate": _created(found),
        "name": found["InstanceProfileName"],
        "role": found["Roles"][0]["RoleName"] if found["Roles"] else "",
        "tags": tags_of(found),
        "uniqueId": found["InstanceProfileId"],
    }


def _delete_profile(cloud: Cloud, name: str, state: Properties) -> None:
    """Machines that still have the profile do not keep it: they keep its name, and get no credentials any more."""

    def delete() -> None:
        _give_role(cloud, name, None)
        cloud.iam.delete_instance_profile(InstanceProfileName=name)

    cloud.unless_gone(delete)


INSTANCE_PROFILE = Kind(
    token="aws:iam/instanceProfile:InstanceProfile",
    called="IAM Instance Profile",
    replacing=frozenset({"name"}),
    in_place=frozenset({"role"}),
    objections={"name": _name(128)},
    auto_named=True,
    outputs=frozenset({"arn", "createDate", "uniqueId"}),
    create=_create_profile,
    ready=lambda cloud, name, inputs: _give_role(cloud, name, inputs.get("role")),
    read=_read_profile,
    update=lambda cloud, name, _, inputs, __: _give_role(cloud, name, inputs.get("role")),
    delete=_delete_profile,
    retag=lambda cloud, name, old, new: retag(
        old,
        new,
        lambda keys: cloud.iam.untag_instance_profile(InstanceProfileName=name, TagKeys=keys),
        lambda tags: cloud.iam.tag_instance_profile(InstanceProfileName=name, Tags=tags),
    ),
)
