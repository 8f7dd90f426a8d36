"""HAProxy's work for the cluster: the configuration, the certificate, and a last look at all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import pulumi
import pulumi_command as command

from cluster.machine_scripts import ScriptFolder, read_script
from cluster.settings.model import AcmeSettings, TlsSettings
from cluster.settings.rules import ACME_DIRECTORIES
from components.balancer_identity import BalancerIdentity
from components.load_balancer import HAProxyLoadBalancer
from components.media_nodes import MediaNodes
from components.remote_script import RemoteScript


@dataclass(frozen=True)
class AcmeCertificate:
    """A certificate that certbot gets and renews."""

    acme: AcmeSettings
    names: Sequence[str]
    identity: BalancerIdentity


@dataclass(frozen=True)
class HAProxyServiceArgs:
    """What is served, for whom, by which nodes."""

    balancer: HAProxyLoadBalancer
    nodes: Sequence[MediaNodes]
    haproxy_cfg: str
    certificate: AcmeCertificate | TlsSettings
    publisher_cidrs: Sequence[str]
    application: str
    """An application that the media ports serve, for the last look."""


class HAProxyService(pulumi.ComponentResource):
    """Puts the configuration into service once its nodes serve, gets the certificate through it, and verifies both.

    A certificate that is there already, the user's own or that of a balancer before this one, comes first.

    The configuration is applied as a transaction: validated, swapped, reloaded, verified, and rolled back when any of it fails.
    It comes after the nodes because HAProxy takes a server for healthy until checks have failed: viewers would meet one
    that is not there yet. A node that is taken away leaves the configuration first.
    """

    configuration: RemoteScript
    """Done when the configuration serves."""
    haproxy_cfg: pulumi.Output[str | None]
    """The text that was applied last; after a failed ``up`` still the old one."""
    certificate: RemoteScript
    """Done when HAProxy serves the certificate that is wanted."""

    def __init__(
        self, name: str, args: HAProxyServiceArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("ant-media:balancer:HAProxyService", name, None, opts)
        host = args.balancer.host
        given = self._given_certificate(name, args)
        nodes_ready = [script for role in args.nodes for script in role.ready]
        starts = [start for role in args.nodes for machine in role.machines for start in machine.starts]
        self.configuration = RemoteScript(
            f"{name}-configuration",
            "apply-haproxy-config.sh",
            host,
            stdin=args.haproxy_cfg,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[given, *nodes_ready]),
        )
        self.haproxy_cfg = self.configuration.stdin
        self.certificate = given
        if isinstance(args.certificate, AcmeCertificate):
            self.certificate = self._issued_certificate(name, args.balancer, args.certificate)
        # The digest makes both looks happen again whenever the configuration changed.
        digest = _digest(args.haproxy_cfg)
        healthy = RemoteScript(
            f"{name}-servers",
            "wait-for-servers.sh",
            host,
            args=[digest],
            triggers=starts,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.configuration]),
        )
        command.local.Command(
            f"{name}-endpoints",
            create="bash",
            stdin=read_script(ScriptFolder.OPERATOR, "check-endpoints.sh"),
            environment={
                "DOMAIN": args.balancer.domain,
                "ADDRESS": args.balancer.public_ip,
                "APPLICATION": args.application,
                "TRUST": _trust(args.certificate),
                # Whoever administers need not be a publisher.
                "RTMP": "yes" if "0.0.0.0/0" in args.publisher_cidrs else "no",
                "HAPROXY_CFG": digest,
            },
            triggers=[*args.balancer.machine.starts, *starts],
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[healthy, self.certificate]),
        )
        self.register_outputs({"haproxy_cfg": self.haproxy_cfg})

    def _given_certificate(self, name: str, args: HAProxyServiceArgs) -> RemoteScript:
        """What there is to serve before anybody is asked."""
        opts = pulumi.ResourceOptions(parent=self, depends_on=[args.balancer.ready])
        if isinstance(args.certificate, AcmeCertificate):
            return RemoteScript(
                f"{name}-kept-certificate",
                "restore-certificate.sh",
                args.balancer.host,
                args=[args.certificate.identity.certificate_store],
                opts=pulumi.ResourceOptions.merge(
                    opts, pulumi.ResourceOptions(depends_on=[args.certificate.identity.permissions])
                ),
            )
        return RemoteScript(
            f"{name}-certificate",
            "use-certificate.sh",
            args.balancer.host,
            # For who reads a preview: which certificate it is.
            args=[
                "--sha256",
                args.certificate.fingerprint,
                "--not-after",
                f"{args.certificate.not_after:%F}",
            ],
            secrets=[args.certificate.pem],
            opts=opts,
        )

    def _issued_certificate(
        self, name: str, balancer: HAProxyLoadBalancer, certificate: AcmeCertificate
    ) -> RemoteScript:
        acme = certificate.acme
        wanted = [
            *("--email", acme.email),
            *("--directory", acme.directory),
            *("--key-type", acme.key_type),
            *("--challenge", acme.challenge),
        ]
        issued = RemoteScript(
            f"{name}-certificate",
            "issue-certificate.sh",
            balancer.host,
            args=[*wanted, "--address", balancer.public_ip, *certificate.names],
            stdin=acme.root or "",
            timeout=600,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[self.configuration, certificate.identity.permissions, *balancer.records],
            ),
        )
        # A step of its own: where it fails, the state knows all the same which certificate certbot has by now.
        return RemoteScript(
            f"{name}-certificate-in-service",
            "deploy-certificate.sh",
            balancer.host,
            args=[_digest(" ".join([*wanted, *certificate.names]))],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[issued]),
        )


def _digest(text: str) -> str:
    """Makes a step happen again whenever the text changed."""
    return sha256(text.encode()).hexdigest()[:12]


def _trust(certificate: AcmeCertificate | TlsSettings) -> str:
    """What the last look takes for a good certificate: the usual ones, or one that leads to these."""
    if isinstance(certificate, TlsSettings):
        return certificate.certificate
    if certificate.acme.directory == ACME_DIRECTORIES["staging"]:
        return "nobody"
    return certificate.acme.root or "system"
