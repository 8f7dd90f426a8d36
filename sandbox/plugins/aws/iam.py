"""IAM roles, instance profiles, users with access keys, and their policies."""

import functools
import re
from collections.abc import Callable
from typing import Any

from sandbox.plugins.aws import policy_documents
from sandbox.plugins.aws.client import (
    AwsClient,
    describe_one,
    error_code,
    get_tags,
    to_tag_list,
)
from sandbox.plugins.aws.resource_type import AwsResourceType, update_tags
from sandbox.plugins.properties import Properties, Value


def _name(longest: int) -> Callable[[str], str]:
    def validator(name: str) -> str:
        if not 1 <= len(name) <= longest:
            return f"expected length of name to be in the range (1 - {longest}), got {name}"
        if not re.fullmatch(r"[\w+=,.@-]+", name, re.ASCII):
            return r"invalid value for name (must match [\w+=,.@-])"
        return ""

    return validator


def _not_an_arn(role: str) -> str:
    return '"role" must be the role\'s name not its ARN' if role.startswith("arn:") else ""


def _description(inputs: Properties) -> dict[str, Any]:
    return {"Description": inputs["description"]} if "description" in inputs else {}


def _created(found: dict[str, Any]) -> str:
    return f"{found['CreateDate']:%Y-%m-%dT%H:%M:%SZ}"


# ---- roles


def _create_role(client: AwsClient, inputs: Properties) -> str:
    name = str(inputs["name"])
    client.iam.create_role(
        RoleName=name,
        AssumeRolePolicyDocument=inputs["assumeRolePolicy"],
        Tags=to_tag_list(client.merge_tags(inputs.get("tags"))),
        **_description(inputs),
    )
    return name


def _trust(client: AwsClient, name: str, inputs: Properties) -> None:
    client.iam.update_assume_role_policy(RoleName=name, PolicyDocument=inputs["assumeRolePolicy"])


def _read_role(client: AwsClient, name: str, known: Properties) -> Properties | None:
    found = describe_one(lambda: [client.iam.get_role(RoleName=name)["Role"]])
    if found is None:
        return None
    client.iam.list_role_policies(RoleName=name)
    client.iam.list_attached_role_policies(RoleName=name)
    return {
        "arn": found["Arn"],
        "assumeRolePolicy": policy_documents.keep_given_text(
            known.get("assumeRolePolicy"), found["AssumeRolePolicyDocument"]
        ),
        "createDate": _created(found),
        "description": found.get("Description", ""),
        "name": found["RoleName"],
        "tags": get_tags(found),
        "uniqueId": found["RoleId"],
    }


def _update_role(
    client: AwsClient, name: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    if "assumeRolePolicy" in changed:
        _trust(client, name, inputs)
    if "description" in changed:
        client.iam.update_role_description(RoleName=name, Description=inputs.get("description", ""))


def _delete_role(client: AwsClient, name: str, state: Properties) -> None:
    def delete() -> None:
        for profile in client.iam.list_instance_profiles_for_role(RoleName=name)["InstanceProfiles"]:
            _give_role(client, profile["InstanceProfileName"], None)
        client.iam.delete_role(RoleName=name)

    client.ignore_not_found(
        lambda: client.retry_until_propagated(delete, lambda problem: error_code(problem) == "DeleteConflict")
    )


ROLE = AwsResourceType(
    token="aws:iam/role:Role",
    label="IAM Role",
    required=frozenset({"assumeRolePolicy"}),
    replace_on_change=frozenset({"name"}),
    update_on_change=frozenset({"assumeRolePolicy", "description"}),
    policy_inputs=frozenset({"assumeRolePolicy"}),
    validators={"name": _name(64), "assumeRolePolicy": policy_documents.validator("assume_role_policy")},
    auto_named=True,
    outputs=frozenset({"arn", "createDate", "uniqueId"}),
    create=_create_role,
    read=_read_role,
    update=_update_role,
    delete=_delete_role,
    update_tags=lambda client, name, old, new: update_tags(
        old,
        new,
        lambda keys: client.iam.untag_role(RoleName=name, TagKeys=keys),
        lambda tags: client.iam.tag_role(RoleName=name, Tags=tags),
    ),
)

# ---- policies of roles and users


def _policy_type(
    owner: str, token: str, label: str, validate_owner: Callable[[str], str] = lambda _: ""
) -> AwsResourceType:
    """Returns the type of an inline policy of a `role` or a `user`. Their operations differ in this word only."""

    def call(client: AwsClient, operation: str, policy_id: str, **parameters: Value) -> dict[str, Any]:
        name, policy = policy_id.split(":", 1)
        request = {f"{owner.capitalize()}Name": name, "PolicyName": policy, **parameters}
        answer: dict[str, Any] = getattr(client.iam, f"{operation}_{owner}_policy")(**request)
        return answer

    def put(client: AwsClient, inputs: Properties) -> str:
        policy_id = f"{inputs[owner]}:{inputs['name']}"
        call(client, "put", policy_id, PolicyDocument=inputs["policy"])
        return policy_id

    def read(client: AwsClient, policy_id: str, known: Properties) -> Properties | None:
        name, policy = policy_id.split(":", 1)
        found = describe_one(lambda: [call(client, "get", policy_id)["PolicyDocument"]])
        return found and {
            "name": policy,
            "policy": policy_documents.keep_given_text(known.get("policy"), found),
            owner: name,
        }

    def update(
        client: AwsClient, policy_id: str, state: Properties, inputs: Properties, changed: set[str]
    ) -> None:
        put(client, inputs)

    def delete(client: AwsClient, policy_id: str, state: Properties) -> None:
        client.ignore_not_found(lambda: call(client, "delete", policy_id))

    return AwsResourceType(
        token=token,
        label=label,
        required=frozenset({owner, "policy"}),
        replace_on_change=frozenset({"name", owner}),
        update_on_change=frozenset({"policy"}),
        policy_inputs=frozenset({"policy"}),
        validators={
            "name": _name(128),
            owner: validate_owner,
            "policy": policy_documents.validator("policy"),
        },
        auto_named=True,
        taggable=False,
        create=put,
        read=read,
        update=update,
        delete=delete,
    )


ROLE_POLICY = _policy_type("role", "aws:iam/rolePolicy:RolePolicy", "IAM Role Policy", _not_an_arn)
USER_POLICY = _policy_type("user", "aws:iam/userPolicy:UserPolicy", "IAM User Policy")

# ---- instance profiles


def _create_profile(client: AwsClient, inputs: Properties) -> str:
    name = str(inputs["name"])
    client.iam.create_instance_profile(
        InstanceProfileName=name, Tags=to_tag_list(client.merge_tags(inputs.get("tags")))
    )
    return name


def _profile(client: AwsClient, name: str) -> dict[str, Any]:
    found: dict[str, Any] = client.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    return found


def _give_role(client: AwsClient, name: str, role: Value) -> None:
    """Makes `role` the only role of the profile, or removes its role. A profile has at most one."""
    current = [found["RoleName"] for found in _profile(client, name)["Roles"]]
    for other in current:
        if other != role:
            client.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=other)
    if role and role not in current:
        client.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=role)


def _read_profile(client: AwsClient, name: str, known: Properties) -> Properties | None:
    found = describe_one(lambda: [_profile(client, name)])
    if found is None:
        return None
    for role in found["Roles"]:
        client.ignore_not_found(functools.partial(client.iam.get_role, RoleName=role["RoleName"]))
    return {
        "arn": found["Arn"],
        "createDate": _created(found),
        "name": found["InstanceProfileName"],
        "role": found["Roles"][0]["RoleName"] if found["Roles"] else "",
        "tags": get_tags(found),
        "uniqueId": found["InstanceProfileId"],
    }


def _delete_profile(client: AwsClient, name: str, state: Properties) -> None:
    """Deletes a profile. Machines that use it keep its name, but get no more credentials."""

    def delete() -> None:
        _give_role(client, name, None)
        client.iam.delete_instance_profile(InstanceProfileName=name)

    client.ignore_not_found(delete)


INSTANCE_PROFILE = AwsResourceType(
    token="aws:iam/instanceProfile:InstanceProfile",
    label="IAM Instance Profile",
    replace_on_change=frozenset({"name"}),
    update_on_change=frozenset({"role"}),
    validators={"name": _name(128)},
    auto_named=True,
    outputs=frozenset({"arn", "createDate", "uniqueId"}),
    create=_create_profile,
    finish_create=lambda client, name, inputs: _give_role(client, name, inputs.get("role")),
    read=_read_profile,
    update=lambda client, name, _, inputs, __: _give_role(client, name, inputs.get("role")),
    delete=_delete_profile,
    update_tags=lambda client, name, old, new: update_tags(
        old,
        new,
        lambda keys: client.iam.untag_instance_profile(InstanceProfileName=name, TagKeys=keys),
        lambda tags: client.iam.tag_instance_profile(InstanceProfileName=name, Tags=tags),
    ),
)

# ---- users


def _create_user(client: AwsClient, inputs: Properties) -> str:
    name = str(inputs["name"])
    client.iam.create_user(UserName=name, Path="/", Tags=to_tag_list(client.merge_tags(inputs.get("tags"))))
    return name


def _read_user(client: AwsClient, name: str, known: Properties) -> Properties | None:
    found = describe_one(lambda: [client.iam.get_user(UserName=name)["User"]])
    return found and {
        "arn": found["Arn"],
        "name": found["UserName"],
        "tags": get_tags(found),
        "uniqueId": found["UserId"],
    }


def _delete_user(client: AwsClient, name: str, state: Properties) -> None:
    """Deletes a user. With `forceDestroy` the official provider first deletes what else can log in as it."""

    def delete() -> None:
        client.iam.list_groups_for_user(UserName=name)
        if state.get("forceDestroy"):
            for key in client.iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
                client.iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
            client.iam.list_ssh_public_keys(UserName=name)
            client.iam.list_virtual_mfa_devices(AssignmentStatus="Assigned")
            client.iam.list_mfa_devices(UserName=name)
            client.ignore_not_found(lambda: client.iam.delete_login_profile(UserName=name))
            client.iam.list_signing_certificates(UserName=name)
        client.iam.delete_user(UserName=name)

    client.ignore_not_found(delete)


USER = AwsResourceType(
    token="aws:iam/user:User",
    label="IAM User",
    # The official provider renames a user in place. Nothing here does.
    replace_on_change=frozenset({"name"}),
    update_on_change=frozenset({"forceDestroy"}),
    defaults={"forceDestroy": False},
    validators={"name": _name(64)},
    auto_named=True,
    outputs=frozenset({"arn", "uniqueId"}),
    create=_create_user,
    read=_read_user,
    delete=_delete_user,
    update_tags=lambda client, name, old, new: update_tags(
        old,
        new,
        lambda keys: client.iam.untag_user(UserName=name, TagKeys=keys),
        lambda tags: client.iam.tag_user(UserName=name, Tags=tags),
    ),
)


def _create_key(client: AwsClient, inputs: Properties) -> tuple[str, Properties]:
    key = client.iam.create_access_key(UserName=inputs["user"])["AccessKey"]
    return str(key["AccessKeyId"]), {"secret": key["SecretAccessKey"]}


def _read_key(client: AwsClient, key_id: str, known: Properties) -> Properties | None:
    user = str(known["user"])
    keys = describe_one(lambda: [client.iam.list_access_keys(UserName=user)]) or {"AccessKeyMetadata": []}
    found = next((key for key in keys["AccessKeyMetadata"] if key["AccessKeyId"] == key_id), None)
    return found and {"createDate": _created(found), "status": found["Status"], "user": user}


ACCESS_KEY = AwsResourceType(
    token="aws:iam/accessKey:AccessKey",
    label="IAM Access Key",
    required=frozenset({"user"}),
    replace_on_change=frozenset({"user"}),
    defaults={"status": "Active"},
    taggable=False,
    outputs=frozenset({"createDate", "secret"}),
    create=_create_key,
    read=_read_key,
    delete=lambda client, key_id, state: client.ignore_not_found(
        lambda: client.iam.delete_access_key(UserName=state["user"], AccessKeyId=key_id)
    ),
)
