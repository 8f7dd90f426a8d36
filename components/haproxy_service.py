"""Applies haproxy.cfg, orders the certificate and verifies both."""

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_command as command

from cluster.machine_scripts import ScriptFolder, read_script, short_digest
from cluster.plan import AcmePlan, EndpointCheck
from cluster.settings.certificate import TlsSettings
from cluster.settings.rules import ACME_DIRECTORIES
from components.balancer_identity import BalancerIdentity
from components.load_balancer import HAProxyLoadBalancer
from components.media_nodes import MediaNodes, NodeSetup, drain_removed_nodes
from components.remote_script import INSTALLATION_TIMEOUT, RemoteScript, run_again_after_failure


@dataclass(frozen=True)
class HAProxyServiceArgs:
    """Arguments of an `HAProxyService`."""

    setup: NodeSetup
    """Of the nodes: the load balancer, and how long connections of a node that goes may last."""
    nodes: Sequence[MediaNodes]
    haproxy_cfg: str
    certificate: AcmePlan | TlsSettings
    """From an ACME server, or the user's own."""
    identity: BalancerIdentity | None
    """Gives the load balancer access to the secret that stores an ACME certificate."""
    endpoint_check: EndpointCheck

    @property
    def balancer(self) -> HAProxyLoadBalancer:
        return self.setup.balancer


class HAProxyService(pulumi.ComponentResource):
    """Applies haproxy.cfg when all nodes serve, then orders the certificate through HAProxy, then verifies the endpoints.

    The first certificate is the user's own, a stored one, or a placeholder. The configuration is applied as a transaction:
    validated, rehearsed, swapped, reloaded, verified, and rolled back if a step fails. It is applied after the nodes
    because HAProxy treats a server as healthy until its first health checks fail. A node to delete is drained, then removed from the
    configuration, and only then deleted.

    Creates remote commands on the load balancer and one `command.local.Command` that checks the endpoints from outside.
    """

    configuration: RemoteScript
    """Complete when HAProxy serves the configuration."""
    haproxy_cfg: pulumi.Output[str | None]
    """The text that was applied last: after a failed update, still the previous one."""
    certificate: RemoteScript
    """Complete when HAProxy serves the certificate."""

    def __init__(
        self, name: str, args: HAProxyServiceArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:balancer:HAProxyService", name, None, opts)
        first_certificate = self._deploy_first_certificate(name, args)
        removed = drain_removed_nodes(f"{name}-removed-servers", args.setup, args.nodes, self._after())
        self.configuration = RemoteScript(
            f"{name}-configuration",
            "apply-haproxy-config.sh",
            args.balancer.host,
            stdin=args.haproxy_cfg,
            opts=self._after(first_certificate, removed),
        )
        self.haproxy_cfg = self.configuration.stdin
        self.certificate = first_certificate
        if isinstance(args.certificate, AcmePlan):
            self.certificate = self._order_certificate(name, args.balancer, args.certificate)
        self._verify(name, args, removed)
        # Not haproxy.cfg, which the state has three times already.
        self.register_outputs({})

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=resources)

    def _deploy_first_certificate(self, name: str, args: HAProxyServiceArgs) -> RemoteScript:
        match args.certificate, args.identity:
            case TlsSettings() as own, _:
                return RemoteScript(
                    f"{name}-certificate",
                    "use-certificate.sh",
                    args.balancer.host,
                    # Previews show which certificate it is.
                    args=["--sha256", own.fingerprint, "--not-after", f"{own.not_after:%F}"],
                    secrets=[own.pem],
                    opts=self._after(args.balancer.ready),
                )
            case _, BalancerIdentity() as identity:
                return RemoteScript(
                    f"{name}-kept-certificate",
                    "restore-certificate.sh",
                    args.balancer.host,
                    args=[identity.certificate_store],
                    # The script reads the secret.
                    opts=self._after(args.balancer.ready, identity.permissions),
                )
            case _:
                raise ValueError("an ACME certificate needs the load balancer's identity")

    def _order_certificate(
        self, name: str, balancer: HAProxyLoadBalancer, certificate: AcmePlan
    ) -> RemoteScript:
        acme = certificate.acme
        order = [
            *("--email", acme.email),
            *("--directory", acme.directory),
            *("--key-type", acme.key_type),
            *("--challenge", acme.challenge),
        ]
        issued = RemoteScript(
            f"{name}-certificate",
            "issue-certificate.sh",
            balancer.host,
            args=[*order, "--address", balancer.public_ip, *certificate.names],
            stdin=acme.root or "",
            timeout=INSTALLATION_TIMEOUT + 300,
            opts=self._after(self.configuration, *balancer.records),
        )
        # A resource of its own: if it fails, the state still records the certificate that certbot has.
        return RemoteScript(
            f"{name}-certificate-in-service",
            "deploy-certificate.sh",
            balancer.host,
            args=[short_digest(" ".join([*order, *certificate.names]))],
            opts=self._after(issued),
        )

    def _verify(self, name: str, args: HAProxyServiceArgs, removed: RemoteScript) -> None:
        # As an argument, the digest runs both checks again when the configuration changes.
        digest = short_digest(args.haproxy_cfg)
        node_starts = [start for role in args.nodes for machine in role.machines for start in machine.starts]
        healthy = RemoteScript(
            f"{name}-servers",
            "wait-for-servers.sh",
            args.balancer.host,
            args=[digest],
            # Returns what an interrupted update drained, also when the settings are taken back.
            triggers=[removed.id, *node_starts],
            opts=self._after(self.configuration),
        )
        command.local.Command(
            f"{name}-endpoints",
            create="bash",
            stdin=read_script(ScriptFolder.OPERATOR, "check-endpoints.sh"),
            environment={
                "DOMAIN": args.balancer.domain,
                "ADDRESS": args.balancer.public_ip,
                "APPLICATIONS": " ".join(args.endpoint_check.applications),
                "TRUST": _trust_anchors(args.certificate),
                "RTMP_PORTS": " ".join(map(str, args.endpoint_check.rtmp_ports)),
                "HAPROXY_CFG": digest,
            },
            triggers=[*args.balancer.machine.starts, *node_starts],
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions.merge(
                run_again_after_failure(), self._after(healthy, self.certificate)
            ),
        )


def _trust_anchors(certificate: AcmePlan | TlsSettings) -> str:
    """Returns the TRUST of check-endpoints.sh: PEM text, `system`, or `any` for Let's Encrypt's staging directory."""
    if isinstance(certificate, TlsSettings):
        return certificate.certificate
    if certificate.acme.directory == ACME_DIRECTORIES["staging"]:
        return "any"
    return certificate.acme.root or "system"
