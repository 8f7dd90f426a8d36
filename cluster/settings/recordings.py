"""Models `recordings`: the bucket of S3 that keeps the recordings of nodes."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated

from pydantic import AfterValidator, StrictBool, StrictStr, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from cluster.settings.rules import MODEL_CONFIG

CREATE = "create"
"""The value of `bucket` with which the program creates one."""

# AWS allows 63 characters.
_MAX_BUCKET_NAME = 63


def _validate_bucket(name: str) -> str:
    # S3 also allows dots. The certificate of its endpoint matches only names without them.
    if name != CREATE and not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", name):
        raise ValueError(
            f"give {CREATE}, or the name of an existing bucket: 3 to {_MAX_BUCKET_NAME} lower-case letters, digits and -"
        )
    return name


@dataclass(frozen=True, config=MODEL_CONFIG)
class RecordingsSettings:
    """Where Ant Media Server uploads finished recordings."""

    bucket: Annotated[StrictStr, AfterValidator(_validate_bucket)]
    """`create`, or the name of an existing bucket."""
    delete_with_stack: StrictBool = False

    @property
    def creates_bucket(self) -> bool:
        return self.bucket == CREATE

    @field_validator("delete_with_stack")
    @classmethod
    def _validate_deletion(cls, delete: bool, info: ValidationInfo) -> bool:
        if delete and info.data.get("bucket", CREATE) != CREATE:
            raise ValueError(
                "the program never deletes a bucket that it did not create: leave deleteWithStack out"
            )
        return delete


def name_bucket(cluster: str, account: str, region: str) -> str:
    """Returns the name of the bucket that a cluster creates.

    Bucket names are unique in all of AWS, so it ends with a digest of the cluster, the account and the region.
    """
    digest = sha256(f"{cluster} {account} {region}".encode()).hexdigest()[:8]
    ending = f"-recordings-{digest}"
    start = re.sub(r"[^a-z0-9]+", "-", cluster.lower())[: _MAX_BUCKET_NAME - len(ending)]
    return f"{start}{ending}"


# The settings of Ant Media's applications that `recordings` determines.
MANAGED_SETTINGS = frozenset(
    {
        "s3AccessKey", "s3BucketName", "s3Endpoint", "s3PathStyleAccessEnabled", "s3Permission", "s3RegionName",
        "s3SecretKey",
    }
)  # fmt: skip


def bucket_settings(bucket: str, region: str) -> Mapping[str, object]:
    """Returns the settings of an application that uploads to a bucket, without the access key."""
    return {
        "s3RecordingEnabled": True,
        "s3BucketName": bucket,
        "s3RegionName": region,
        # The server's default, public-read, is refused by buckets that block public access or have no ACLs, as all new
        # buckets do (Ant-Media-Server issue 5171). This is the only ACL that a bucket without ACLs accepts.
        "s3Permission": "bucket-owner-full-control",
    }
