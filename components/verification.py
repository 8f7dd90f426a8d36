"""The last look: every node healthy in HAProxy, every port answering as it should."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import pulumi
import pulumi_command as command

from components.load_balancer import HAProxyLoadBalancer
from components.media_nodes import MediaNodes
from components.remote_script import RemoteScript, script_text
from components.settings import ACME_DIRECTORIES


@dataclass(frozen=True)
class VerificationArgs:
    """What is verified, after what."""

    balancer: HAProxyLoadBalancer
    nodes: Sequence[MediaNodes]
    haproxy_cfg: str
    """The text that is to serve; both steps run again when it changes."""
    application: str
    """An application that the media ports serve."""
    acme_directory: str
    """Certificates of Let's Encrypt's staging directory are trusted by nobody, and so not here."""


class Verification(pulumi.ComponentResource):
    """On the load balancer, waits until HAProxy calls every server healthy; then asks every public port from here."""

    def __init__(self, name: str, args: VerificationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ant-media:verification:Verification", name, None, opts)
        balancer = args.balancer
        digest = sha256(args.haproxy_cfg.encode()).hexdigest()
        nodes_ready = [script for role in args.nodes for script in role.ready]
        instances = [machine.instance for role in args.nodes for machine in role.machines]
        healthy = RemoteScript(
            f"{name}-servers",
            "wait-for-servers.sh",
            balancer.host,
            args=[digest],
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[balancer.configuration, *nodes_ready], replace_with=[*instances]
            ),
        )
        command.local.Command(
            f"{name}-endpoints",
            create=script_text("check-endpoints.sh"),
            interpreter=["bash", "-c"],
            environment={
                "DOMAIN": balancer.domain,
                "ADDRESS": balancer.public_ip,
                "APPLICATION": args.application,
                "TRUSTED_CERTIFICATE": "no" if args.acme_directory == ACME_DIRECTORIES["staging"] else "yes",
                "HAPROXY_CFG_SHA256": digest,
            },
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[healthy, balancer.certificate],
                replace_with=[balancer.machine.instance, *instances],
            ),
        )
        self.register_outputs({})
