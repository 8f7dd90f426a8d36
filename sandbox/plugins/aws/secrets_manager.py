"""Secrets in Secrets Manager, without their values."""

import re
from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import Cloud, code, described, refusal, tag_list, tags_of
from sandbox.plugins.aws.resource_type import Kind, retag
from sandbox.plugins.properties import Properties


def _name(name: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z/_+=.@-]+", name):
        return 'only alphanumeric characters and /_+=.@- special characters are allowed in "name"'
    return '"name" cannot be greater than 512 characters' if len(name) > 512 else ""


def _recovery_window(days: str) -> str:
    right = days == "0" or days in map(str, range(7, 31))
    return "" if right else f"expected recovery_window_in_days to be 0 or in the range (7 - 30), got {days}"


def _create(cloud: Cloud, inputs: Properties) -> str:
    try:
        created = cloud.secrets.create_secret(
            Name=inputs["name"],
            Description=inputs.get("description", ""),
            Tags=tag_list(inputs.get("tags")),
        )
    except ClientError as problem:
        found = _describe(cloud, inputs["name"]) if code(problem) == "ResourceExistsException" else None
        if found and "DeletedDate" in found:  # moto says that it exists
            message = "You can't create this secret because a secret with this name is already scheduled for deletion."
            raise refusal("CreateSecret", "InvalidRequestException", message) from problem
        raise
    return str(created["ARN"])


def _describe(cloud: Cloud, secret: object) -> dict[str, Any] | None:
    return described(lambda: [cloud.secrets.describe_secret(SecretId=secret)])


def _read(cloud: Cloud, arn: str, known: Properties) -> Properties | None:
    found = _describe(cloud, arn)
    if found is None or "DeletedDate" in found:
        return None
    return {
        "arn": found["ARN"],
        "description": found.get("Description", ""),
        "name": found["Name"],
        "tags": tags_of(found),
    }


def _update(cloud: Cloud, arn: str, state: Properties, inputs: Properties, changed: set[str]) -> None:
    if "description" in changed:  # moto keeps the last one that was not empty
        cloud.secrets.update_secret(SecretId=arn, Description=inputs.get("description", ""))


def _delete(cloud: Cloud, arn: str, state: Properties) -> None:
    days = state["recoveryWindowInDays"]
    how = {"RecoveryWindowInDays": days} if days else {"ForceDeleteWithoutRecovery": True}
    cloud.unless_gone(lambda: cloud.secrets.delete_secret(SecretId=arn, **how))


SECRET = Kind(
    token="aws:secretsmanager/secret:Secret",
    called="Secrets Manager Secret",
    replacing=frozenset({"name"}),
    in_place=frozenset({"description", "recoveryWindowInDays"}),
    defaults={"recoveryWindowInDays": 30},
    objections={"name": _name, "recoveryWindowInDays": _recovery_window},
    auto_named=True,
    outputs=frozenset({"arn"}),
    create=_create,
    read=_read,
    update=_update,
    delete=_delete,
    retag=lambda cloud, arn, old, new: retag(
        old,
        new,
        lambda keys: cloud.secrets.untag_resource(SecretId=arn, TagKeys=keys),
        lambda tags: cloud.secrets.tag_resource(SecretId=arn, Tags=tags),
    ),
)
