"""Secrets in Secrets Manager, without their values."""

import re
from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import AwsClient, api_error, describe_one, error_code, get_tags, to_tag_list
from sandbox.plugins.aws.resource_type import AwsResourceType, update_tags
from sandbox.plugins.properties import Properties


def _name(name: str) -> str:
    if not re.fullmatch(r"[0-9A-Za-z/_+=.@-]+", name):
        return 'only alphanumeric characters and /_+=.@- special characters are allowed in "name"'
    return '"name" cannot be greater than 512 characters' if len(name) > 512 else ""


def _recovery_window(days: str) -> str:
    valid = days == "0" or days in map(str, range(7, 31))
    return "" if valid else f"expected recovery_window_in_days to be 0 or in the range (7 - 30), got {days}"


def _create(client: AwsClient, inputs: Properties) -> str:
    try:
        created = client.secrets.create_secret(
            Name=inputs["name"],
            Description=inputs.get("description", ""),
            Tags=to_tag_list(client.merge_tags(inputs.get("tags"))),
        )
    except ClientError as problem:
        found = (
            _describe(client, inputs["name"]) if error_code(problem) == "ResourceExistsException" else None
        )
        if found and "DeletedDate" in found:  # moto answers ResourceExistsException
            message = "You can't create this secret because a secret with this name is already scheduled for deletion."
            raise api_error(
                "CreateSecret", "InvalidRequestException", message, "Secrets Manager"
            ) from problem
        raise
    return str(created["ARN"])


def _describe(client: AwsClient, secret: object) -> dict[str, Any] | None:
    return describe_one(lambda: [client.secrets.describe_secret(SecretId=secret)])


def _read(client: AwsClient, arn: str, known: Properties) -> Properties | None:
    found = _describe(client, arn)
    if found is None or "DeletedDate" in found:
        return None
    client.secrets.get_resource_policy(SecretId=arn)
    return {
        "arn": found["ARN"],
        "description": found.get("Description", ""),
        "name": found["Name"],
        "tags": get_tags(found),
    }


def _update(client: AwsClient, arn: str, state: Properties, inputs: Properties, changed: set[str]) -> None:
    if "description" in changed:  # moto ignores an empty description
        client.secrets.update_secret(SecretId=arn, Description=inputs.get("description", ""))


def _delete(client: AwsClient, arn: str, state: Properties) -> None:
    days = state["recoveryWindowInDays"]
    how = {"RecoveryWindowInDays": days} if days else {"ForceDeleteWithoutRecovery": True}
    client.ignore_not_found(lambda: client.secrets.delete_secret(SecretId=arn, **how))


SECRET = AwsResourceType(
    token="aws:secretsmanager/secret:Secret",
    label="Secrets Manager Secret",
    replace_on_change=frozenset({"name"}),
    update_on_change=frozenset({"description", "recoveryWindowInDays"}),
    defaults={"recoveryWindowInDays": 30},
    validators={"name": _name, "recoveryWindowInDays": _recovery_window},
    auto_named=True,
    outputs=frozenset({"arn"}),
    create=_create,
    read=_read,
    update=_update,
    delete=_delete,
    update_tags=lambda client, arn, old, new: update_tags(
        old,
        new,
        lambda keys: client.secrets.untag_resource(SecretId=arn, TagKeys=keys),
        lambda tags: client.secrets.tag_resource(SecretId=arn, Tags=tags),
    ),
)
