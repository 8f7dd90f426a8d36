"""The bucket of recordings, and the user whose access key uploads to it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws
from pydantic import SecretStr

from cluster.account import RecordingsPlan
from cluster.plan import AppSettingsPlan
from cluster.settings.app_settings import add_for_each
from cluster.settings.recordings import bucket_settings


@dataclass(frozen=True)
class RecordingsArgs:
    """Arguments of `Recordings`."""

    cluster: str
    """First part of every name and `Name` tag. IAM policies of the user can match it."""
    plan: RecordingsPlan
    hooks: pulumi.ResourceHookBinding
    """Explains why AWS does not create the bucket."""


class Recordings(pulumi.ComponentResource):
    """The bucket to which Ant Media Server uploads finished recordings, and an access key for this bucket only.

    Ant Media Server 3 uses no IAM role: it takes an empty access key as a key (AmazonS3StorageClient.initAmazonS3; Ant-Media-Server
    issue 6737).

    Creates an `aws.iam.User` with its `UserPolicy` and `AccessKey`. Unless the bucket exists, also an `aws.s3.Bucket`, which
    `pulumi destroy` keeps by default, and its `BucketPublicAccessBlock`.
    """

    permissions: list[pulumi.Resource]
    """Uploads succeed when these exist."""

    def __init__(self, name: str, args: RecordingsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ant-media:media:Recordings", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        self._plan = args.plan
        # docs/aws limits the deploy role to names with this prefix. stack_checks.py limits the length.
        own_name = f"{args.cluster}-recordings"
        user = aws.iam.User(
            f"{name}-user",
            name=own_name,
            # An interrupted update may leave a key that the state does not have.
            force_destroy=True,
            tags={"Name": own_name},
            opts=child,
        )
        policy = aws.iam.UserPolicy(
            f"{name}-permissions",
            name=own_name,
            user=user.name,
            policy=json.dumps(_policy(args.plan.bucket.name)),
            opts=child,
        )
        self._key = aws.iam.AccessKey(f"{name}-key", user=user.name, opts=child)
        self.permissions = [policy]
        if args.plan.create:
            self.permissions.append(self._create_bucket(name, own_name, args.hooks))
        self.register_outputs({"bucket": args.plan.bucket.name})

    def _create_bucket(self, name: str, own_name: str, hooks: pulumi.ResourceHookBinding) -> pulumi.Resource:
        delete = self._plan.delete_with_stack
        kept = pulumi.ResourceOptions(parent=self, retain_on_delete=not delete)
        bucket = aws.s3.Bucket(
            f"{name}-bucket",
            bucket=self._plan.bucket.name,
            force_destroy=delete,
            tags={"Name": own_name},
            opts=pulumi.ResourceOptions.merge(kept, pulumi.ResourceOptions(hooks=hooks)),
        )
        return aws.s3.BucketPublicAccessBlock(
            f"{name}-bucket-access",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=kept,
        )

    def complete(self, given: AppSettingsPlan | None) -> tuple[str, pulumi.Output[str]]:
        """Returns the applications' settings, with the bucket: those that previews show, and the secret ones."""
        applications, bucket = self._plan.applications, self._plan.bucket
        given = given or AppSettingsPlan("{}", SecretStr("{}"))
        public, secret = given.public, given.secret.get_secret_value()

        def add_key(values: Sequence[str]) -> str:
            key = {"s3AccessKey": values[0], "s3SecretKey": values[1]}
            return json.dumps(add_for_each(json.loads(secret), applications, key), sort_keys=True)

        shown = add_for_each(json.loads(public), applications, bucket_settings(bucket.name, bucket.region))
        return json.dumps(shown, sort_keys=True), pulumi.Output.all(self._key.id, self._key.secret).apply(
            add_key
        )


def _policy(bucket: str) -> dict[str, object]:
    """Returns what the server needs to upload, and to delete a recording that is deleted in the panel or by REST.

    Without ListBucket, S3 answers 403 where the server asks for a name that is free, and the recording is not finished
    (RecordMuxer.getFinalFileName). PutObjectAcl: it sends an ACL with each upload.
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}"},
            {
                "Effect": "Allow",
                "Action": [
                    "s3:AbortMultipartUpload",
                    "s3:DeleteObject",
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:PutObjectAcl",
                ],
                "Resource": f"arn:aws:s3:::{bucket}/*",
            },
        ],
    }
