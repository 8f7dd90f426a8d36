"""Who the load balancer is to AWS: what it may do there, and where it keeps its certificate."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True)
class BalancerIdentityArgs:
    """The secret's name, and the records that prove control of the domain where certbot makes them (dns-01)."""

    cluster: str
    """First part of every name and ``Name`` tag, by which a policy of the user's can tell them from others."""
    zone_id: str | None = None
    """Hosted zone of the records."""
    challenge_records: Sequence[str] = ()
    """Names of the TXT records: ``_acme-challenge.live.your-domain.org``."""


class BalancerIdentity(pulumi.ComponentResource):
    """An instance role for one machine, and a secret in Secrets Manager that only this role needs.

    The secret keeps certbot's account and certificate: a balancer that is replaced asks for no new one.
    """

    instance_profile: pulumi.Output[str]
    """What the machine is started with."""
    certificate_store: pulumi.Output[str]
    """ARN of the secret."""
    permissions: pulumi.Resource
    """What the role may do, once it is made."""

    def __init__(
        self, name: str, args: BalancerIdentityArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:balancer:BalancerIdentity", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        # By its beginning the role that deploys the stack is kept to it (docs/aws); stack_checks.py has an eye on its length.
        own_name = f"{args.cluster}-load-balancer"
        tags = {"Name": own_name}
        secret = aws.secretsmanager.Secret(
            f"{name}-certificate",
            name=f"{args.cluster}-certificate",
            description="certbot's account and certificate, kept for a load balancer that is replaced",
            # A stack that is destroyed can be made again at once: the name is free.
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
    """The least that will do. Route 53's conditions: its guide, "Specifying conditions: using policy conditions"."""
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
            # certbot finds the zone by its name, and waits until a change is everywhere.
            {"Effect": "Allow", "Action": "route53:ListHostedZones", "Resource": "*"},
            {"Effect": "Allow", "Action": "route53:GetChange", "Resource": "arn:aws:route53:::change/*"},
        ]
    return {"Version": "2012-10-17", "Statement": statements}
