"""The cluster's certificate: as visitors are shown it, and as the load balancer gets, renews and records it."""

import base64
import re
import ssl

from cryptography import x509

from sandbox.cloud import acme, addresses
from tests.e2e.acme_servers import AcmeServer
from tests.e2e.clients import Visitor
from tests.e2e.running_cluster import DOMAIN, SCRIPTS, STATE, Cluster, Done

FORCE_RENEWAL = ("certbot", "--quiet", "renew", "--no-random-sleep-on-renew", "--force-renewal")
TLS_PORTS = (443, 5443, 4444, 6080)


class Certificate:
    def __init__(self, cluster: Cluster, visitor: Visitor) -> None:
        self._cluster, self._visitor = cluster, visitor
        folder = STATE / "acme"
        self.authority = AcmeServer(
            f"https://{addresses.ACME_NAME}:{acme.PORT}/dir",
            (folder / "roots.pem").read_text(),
            folder / "pebble.log",
        )
        """The sandbox's own, as in the settings."""
        self.address: str = cluster.outputs()["load_balancer_ip"]
        password = cluster.setting("statisticsPassword")
        self._login = f"Authorization: Basic {base64.b64encode(f'admin:{password}'.encode()).decode()}\r\n"
        # Whether to trust is a question of other tests.
        self._look = ssl.create_default_context()
        self._look.check_hostname, self._look.verify_mode = False, ssl.CERT_NONE

    def shown(self, port: int = 443) -> x509.Certificate:
        with self._visitor.connect_tls(port, DOMAIN, self._look) as connection:
            return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")

    def serial(self) -> int:
        """Of the one certificate that all ports show."""
        serials = {port: self.shown(port).serial_number for port in TLS_PORTS}
        assert len(set(serials.values())) == 1, serials
        return serials[443]

    def serves(self) -> bool:
        """Whether both media ports answer somebody who checks the certificate."""
        urls = (f"https://{DOMAIN}/LiveApp/", f"https://{DOMAIN}:5443/LiveApp/")
        return all(self._visitor.get(url).status == 200 for url in urls)

    def on_balancer(self, script: str) -> str:
        """What a shell script prints there that has to succeed."""
        done = self._cluster.shell("load-balancer", "bash", "-euo", "pipefail", "-c", script)
        assert done.status == 0, done.output
        return done.stdout

    def update(self, authority: AcmeServer | None = None) -> Done:
        """What `pulumi up` runs."""
        wanted = authority or self.authority
        return self._cluster.shell(
            "load-balancer",
            *(
                "bash",
                "-c",
                f'{SCRIPTS}/issue-certificate.sh "$@" && {SCRIPTS}/deploy-certificate.sh',
                "update",
            ),
            *("--email", "operator@ant-media.test", "--directory", wanted.directory),
            *("--key-type", "ecdsa", "--challenge", "http-01", "--address", self.address, DOMAIN),
            input=wanted.root,
        )

    def renew(self) -> Done:
        """What certbot's timer starts."""
        return self._cluster.shell("load-balancer", "systemctl", "start", "certbot.service")

    def force_renewal(self) -> None:
        """Asks for a new one although none is due. certbot does not mind a hook that fails."""
        done = self._cluster.shell("load-balancer", *FORCE_RENEWAL)
        assert done.status == 0, done.output

    def said(self) -> str:
        """By the last run of certbot's unit."""
        invocation = "_SYSTEMD_INVOCATION_ID=$(systemctl show --value -p InvocationID certbot.service)"
        return self.on_balancer(f"journalctl --output=cat --no-pager {invocation}")

    def metrics(self) -> str:
        """The load balancer's, as Prometheus gets them."""
        answer = self._visitor.get(f"https://{DOMAIN}:6080/metrics/node", self._login)
        assert answer.status == 200
        return answer.body.decode()

    def renewal_failed(self) -> bool:
        """As a metric."""
        line = r'(?m)^node_systemd_unit_state\{name="certbot.service",state="failed",[^}]*\} (\d)$'
        (value,) = re.findall(line, self.metrics())
        return value == "1"
