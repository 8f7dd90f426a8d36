"""Buckets of S3."""

from typing import Any

from moto.s3.models import S3Backend

from sandbox.cloud.moto_corrections.correction import correct


@correct(S3Backend, "create_bucket")
def create_private_bucket(create: Any, backend: Any, bucket_name: str, *args: Any, **options: Any) -> Any:
    """A new bucket encrypts its objects, blocks public access and has no ACLs.

    S3 User Guide, "Default encryption FAQ" and "Default settings for new S3 buckets FAQ".
    """
    bucket = create(backend, bucket_name, *args, **options)
    by_default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    backend.put_bucket_encryption(bucket_name, {"Rule": by_default})
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    backend.put_public_access_block(bucket_name, dict.fromkeys(names, "true"))
    backend.put_bucket_ownership_controls(bucket_name, "BucketOwnerEnforced")
    return bucket
