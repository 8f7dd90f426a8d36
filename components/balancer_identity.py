"""The load balancer's IAM role, and the secret that stores its certificate."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True)
class BalancerIdentityArgs:
    """Arguments of a `BalancerIdentity`."""

    cluster: str
    """First part of every name and `Name` tag. IAM policies of the user can match it."""
    zone_id: str | None
    """Hosted zone of the challenge records."""
    challenge_records: Sequence[str]
    """Names of the TXT records that certbot writes for dns-01: `_acme-challenge.live.your-domain.org`."""


class BalancerIdentity(pulumi.ComponentResource):
    """An instance role for the load balancer, and a secret in Secrets Manager that the role may read and write.

    The secret stores certbot's account and certificate, so that a replaced load balancer does not order a new one.

    Creates an `aws.secretsmanager.Secret`, an `aws.iam.Role` with its `RolePolicy`, and an `InstanceProfile`.
    """

    instance_profile: pulumi.Output[str]
    """Name of the instance profile."""
    certificate_store: pulumi.Output[str]
    """ARN of the secret."""
    permissions: pulumi.Resource
    """The role policy. Scripts that call AWS depend on it."""

    def __init__(
        self, name: str, args: BalancerIdentityArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:balancer:BalancerIdentity", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        # docs/aws limits the deploy role to names with this prefix. stack_checks.py limits the length.
        own_name = f"{args.cluster}-load-balancer"
        tags = {"Name": own_name}
        secret = aws.secretsmanager.Secret(
            f"{name}-certificate",
            name=f"{args.cluster}-certificate",
            description="certbot's account and certificate, kept for a load balancer that is replaced",
            # Frees the name at once, so that a destroyed stack can be created again.
            recovery_window_in_days=0,
            tags=tags,
            opts=child,
        )
        role = aws.iam.Role(
            f"{name}-role",
            name=own_name,
            assume_role_policy=json.dumps(
                {
                    "Version": "2012-10-17",
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Principal": {"Service": "ec2.amazonaws.com"},
                            "Action": "sts:AssumeRole",
                        }
                    ],
                }
            ),
            tags=tags,
            opts=child,
        )
        self.permissions = aws.iam.RolePolicy(
            f"{name}-permissions",
            name=own_name,
            role=role.name,
            policy=secret.arn.apply(lambda arn: json.dumps(_policy(arn, args))),
            opts=child,
        )
        profile = aws.iam.InstanceProfile(
            f"{name}-profile", name=own_name, role=role.name, tags=tags, opts=child
        )
        self.instance_profile = profile.name
        self.certificate_store = secret.arn
        self.register_outputs({"certificate_store": self.certificate_store})


def _policy(secret_arn: str, args: BalancerIdentityArgs) -> dict[str, object]:
    """Returns the least privileges. Conditions: Route 53's guide, "Specifying conditions: using policy conditions"."""
    statements: list[object] = [
        {
            "Effect": "Allow",
            "Action": ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"],
            "Resource": secret_arn,
        }
    ]
    if args.challenge_records:
        statements += [
            {
                "Effect": "Allow",
                "Action": "route53:ChangeResourceRecordSets",
                "Resource": f"arn:aws:route53:::hostedzone/{args.zone_id}",
                "Condition": {
                    "ForAllValues:StringEquals": {
                        "route53:ChangeResourceRecordSetsNormalizedRecordNames": list(args.challenge_records),
                        "route53:ChangeResourceRecordSetsRecordTypes": ["TXT"],
                    }
                },
            },
            # certbot finds the zone by its name and waits until the change has propagated.
            {"Effect": "Allow", "Action": "route53:ListHostedZones", "Resource": "*"},
            {"Effect": "Allow", "Action": "route53:GetChange", "Resource": "arn:aws:route53:::change/*"},
        ]
    return {"Version": "2012-10-17", "Statement": statements}
