"""The cluster's certificate, as clients receive it and as the load balancer issues, renews and stores it."""

import re

from cryptography import x509

from cluster.machine_scripts import INSTALLED_SCRIPTS
from tests.e2e.acme_servers import AcmeServer, sandbox_acme_server
from tests.e2e.clients import Client, basic_auth_header, get_peer_certificate, unverified_tls
from tests.e2e.running_cluster import DOMAIN, Cluster, CommandResult

FORCE_RENEWAL = ("certbot", "--quiet", "renew", "--no-random-sleep-on-renew", "--force-renewal")
RENEWAL_CONFIG = "/etc/letsencrypt/renewal/cluster.conf"
DEPLOY = f"{INSTALLED_SCRIPTS}/deploy-certificate.sh"
TLS_PORTS = (443, 4444, 5443, 6080)


def get_dns_names(certificate: x509.Certificate) -> set[str]:
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(extension.value.get_values_for_type(x509.DNSName))


class ClusterCertificate:
    def __init__(self, cluster: Cluster, client: Client) -> None:
        self._cluster, self._client = cluster, client
        self.acme_server = sandbox_acme_server()
        self.address: str = cluster.get_outputs()["load_balancer_ip"]
        self._login = basic_auth_header("admin", cluster.get_config("statisticsPassword"))
        self._unverified = unverified_tls()

    def get_served(self, port: int = 443) -> x509.Certificate:
        """Returns the certificate that a port serves, valid or not."""
        with self._client.connect_tls(port, DOMAIN, self._unverified) as connection:
            return get_peer_certificate(connection)

    def get_serial(self) -> int:
        """Returns the serial number of the certificate; all TLS ports must serve the same one."""
        serials = {port: self.get_served(port).serial_number for port in TLS_PORTS}
        assert len(set(serials.values())) == 1, serials
        return serials[443]

    def media_ports_serve(self) -> bool:
        """True if both media ports respond to a client that verifies the certificate."""
        urls = (f"https://{DOMAIN}/LiveApp/", f"https://{DOMAIN}:5443/LiveApp/")
        return all(self._client.get(url).status == 200 for url in urls)

    def run_on_balancer(self, script: str) -> str:
        """Runs a shell script, which must succeed, on the load balancer and returns its output."""
        return self._cluster.run_on("load-balancer", "bash", "-euo", "pipefail", "-c", script).check()

    def issue(self, acme_server: AcmeServer | None = None) -> CommandResult:
        """Runs the certificate scripts as `pulumi up` runs them."""
        server = acme_server or self.acme_server
        scripts = f'{INSTALLED_SCRIPTS}/issue-certificate.sh "$@" && {DEPLOY}'
        return self._cluster.run_on(
            "load-balancer",
            *("bash", "-c", scripts, "issue"),
            *("--email", "operator@ant-media.test", "--directory", server.directory),
            *("--key-type", "ecdsa", "--challenge", "http-01", "--address", self.address, DOMAIN),
            input=server.root,
        )

    def deploy(self) -> CommandResult:
        """Brings certbot's certificate to HAProxy, as certbot's deploy hook does."""
        return self._cluster.run_on("load-balancer", DEPLOY)

    def renew(self) -> CommandResult:
        """Runs the service that certbot's timer starts."""
        return self._cluster.run_on("load-balancer", "systemctl", "start", "certbot.service")

    def force_renewal(self) -> None:
        """Renews a certificate that is not due. certbot succeeds even if its deploy hook fails."""
        self._cluster.run_on("load-balancer", *FORCE_RENEWAL).check()

    def get_renewal_log(self) -> str:
        """Returns the journal of the last run of certbot's service."""
        invocation = "_SYSTEMD_INVOCATION_ID=$(systemctl show --value -p InvocationID certbot.service)"
        return self.run_on_balancer(f"journalctl --sync; journalctl --output=cat --no-pager {invocation}")

    def get_metrics(self) -> str:
        """Returns the load balancer's node metrics in Prometheus' text format."""
        response = self._client.get(f"https://{DOMAIN}:6080/metrics/node", self._login)
        assert response.status == 200
        return response.body.decode()

    def renewal_failed(self) -> bool:
        """True if the metrics report that certbot's service failed."""
        line = r'(?m)^node_systemd_unit_state\{name="certbot.service",state="failed",[^}]*\} (\d)$'
        (value,) = re.findall(line, self.get_metrics())
        return value == "1"
