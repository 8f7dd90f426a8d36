"""Buckets of S3, and their block of public access."""

import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from sandbox.plugins.aws.client import AwsClient, describe_one, error_code, is_not_found
from sandbox.plugins.aws.resource_type import AwsResourceType, update_tags
from sandbox.plugins.properties import Properties, Value


def _name(name: str) -> str:
    if not 3 <= len(name) <= 63:
        return f"expected length of bucket to be in the range (3 - 63), got {name}"
    if not re.fullmatch(r"[a-z0-9.-]+", name):
        return 'only lowercase alphanumeric characters and hyphens allowed in "bucket"'
    return ""


def _create(client: AwsClient, inputs: Properties) -> str:
    name = str(inputs["bucket"])
    where = {"CreateBucketConfiguration": {"LocationConstraint": client.region}}
    if client.region == "us-east-1":  # no location constraint; and S3 would return an own bucket
        where = {}
        if _head(client, name) is not None:
            raise ClientError({"Error": {"Code": "BucketAlreadyExists", "Message": name}}, "CreateBucket")
    client.s3.create_bucket(Bucket=name, **where)
    return name


def _head(client: AwsClient, name: str) -> dict[str, Any] | None:
    return describe_one(lambda: [client.s3.head_bucket(Bucket=name)])


def _optional(read: Callable[[], dict[str, Any]], *absent: str) -> dict[str, Any]:
    """Returns a part of a bucket's configuration, empty if S3 answers with one of these codes."""
    try:
        return dict(read())
    except ClientError as problem:
        if error_code(problem) in absent:
            return {}
        raise


def _read(client: AwsClient, name: str, known: Properties) -> Properties | None:
    if _head(client, name) is None:
        return None
    s3, bucket = client.s3, {"Bucket": name}
    # The official provider reads these for properties that no program of ours uses. It needs the permissions all the same.
    _optional(lambda: s3.get_bucket_policy(**bucket), "NoSuchBucketPolicy")
    s3.get_bucket_acl(**bucket)
    _optional(lambda: s3.get_bucket_cors(**bucket), "NoSuchCORSConfiguration")
    _optional(lambda: s3.get_bucket_website(**bucket), "NoSuchWebsiteConfiguration")
    s3.get_bucket_versioning(**bucket)
    s3.get_bucket_accelerate_configuration(**bucket)
    s3.get_bucket_request_payment(**bucket)
    s3.get_bucket_logging(**bucket)
    _optional(lambda: s3.get_bucket_lifecycle_configuration(**bucket), "NoSuchLifecycleConfiguration")
    _optional(lambda: s3.get_bucket_replication(**bucket), "ReplicationConfigurationNotFoundError")
    _optional(lambda: s3.get_bucket_encryption(**bucket), "ServerSideEncryptionConfigurationNotFoundError")
    _optional(lambda: s3.get_object_lock_configuration(**bucket), "ObjectLockConfigurationNotFoundError")
    region = s3.get_bucket_location(**bucket).get("LocationConstraint") or "us-east-1"
    tags = _optional(lambda: s3.get_bucket_tagging(**bucket), "NoSuchTagSet").get("TagSet", [])
    return {
        "arn": f"arn:aws:s3:::{name}",
        "bucket": name,
        "bucketDomainName": f"{name}.s3.amazonaws.com",
        "bucketRegion": region,
        "bucketRegionalDomainName": f"{name}.s3.{region}.amazonaws.com",
        "tags": {tag["Key"]: tag["Value"] for tag in tags if not tag["Key"].startswith("aws:")},
    }


def _set_tags(client: AwsClient, name: str, old: Value, new: Value) -> None:
    """Replaces all tags: S3 has no call for a single one."""
    update_tags(
        old,
        new,
        lambda _: client.s3.delete_bucket_tagging(Bucket=name),
        lambda tags: client.s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags}),
    )


def _delete(client: AwsClient, name: str, state: Properties) -> None:
    def delete() -> None:
        try:
            client.s3.delete_bucket(Bucket=name)
        except ClientError as problem:
            if error_code(problem) != "BucketNotEmpty" or not state.get("forceDestroy"):
                raise
            _empty(client, name)
            client.s3.delete_bucket(Bucket=name)

    client.ignore_not_found(delete)


def _empty(client: AwsClient, name: str) -> None:
    for page in client.s3.get_paginator("list_object_versions").paginate(Bucket=name):
        found = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        if found:
            objects = [{"Key": each["Key"], "VersionId": each["VersionId"]} for each in found]
            client.s3.delete_objects(Bucket=name, Delete={"Objects": objects, "Quiet": True})


BUCKET = AwsResourceType(
    token="aws:s3/bucket:Bucket",
    label="S3 Bucket",
    required=frozenset({"bucket"}),
    replace_on_change=frozenset({"bucket"}),
    update_on_change=frozenset({"forceDestroy"}),
    defaults={"forceDestroy": False},
    validators={"bucket": _name},
    outputs=frozenset({"arn", "bucketDomainName", "bucketRegion", "bucketRegionalDomainName"}),
    create=_create,
    finish_create=lambda client, name, inputs: _set_tags(
        client, name, None, {**client.merge_tags(inputs.get("tags"))}
    ),
    read=_read,
    delete=_delete,
    update_tags=_set_tags,
)

# ---- the block of public access

BLOCKS = {
    "blockPublicAcls": "BlockPublicAcls",
    "blockPublicPolicy": "BlockPublicPolicy",
    "ignorePublicAcls": "IgnorePublicAcls",
    "restrictPublicBuckets": "RestrictPublicBuckets",
}


def _block(client: AwsClient, inputs: Properties) -> str:
    name = str(inputs["bucket"])
    client.s3.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration={api_name: inputs[key] for key, api_name in BLOCKS.items()},
    )
    return name


def _update_block(
    client: AwsClient, name: str, state: Properties, inputs: Properties, changed: set[str]
) -> None:
    _block(client, inputs)


def _read_block(client: AwsClient, name: str, known: Properties) -> Properties | None:
    try:
        found = client.s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    except ClientError as problem:
        if is_not_found(problem) or error_code(problem) == "NoSuchPublicAccessBlockConfiguration":
            return None
        raise
    return {"bucket": name, **{key: found[api_name] for key, api_name in BLOCKS.items()}}


BUCKET_PUBLIC_ACCESS_BLOCK = AwsResourceType(
    token="aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
    label="S3 Bucket Public Access Block",
    required=frozenset({"bucket"}),
    replace_on_change=frozenset({"bucket"}),
    update_on_change=frozenset(BLOCKS),
    defaults=dict.fromkeys(BLOCKS, False),
    taggable=False,
    create=_block,
    read=_read_block,
    update=_update_block,
    delete=lambda client, name, _: client.ignore_not_found(
        lambda: client.s3.delete_public_access_block(Bucket=name)
    ),
)
