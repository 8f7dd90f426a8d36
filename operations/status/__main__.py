"""Show a cluster as an administrator sees it: its machines, HAProxy's servers, its certificate and the last renewal.

Looks at the stack that pulumi has selected, from this machine. Ends with 1 when something is wrong.
"""

import base64
import http.client
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from cluster.settings.model import NAMESPACE
from operations.status.cluster import (
    Certificate,
    Cluster,
    Machine,
    Unseen,
    problems,
    read_certificate,
    read_metrics,
    read_renewal,
    read_servers,
    report,
    why_untrusted,
)

T = TypeVar("T")

PLAIN_PORTS = (80, 5080)
STATISTICS_PORT = 6080
TLS_PORTS = (443, 5443, 4444, STATISTICS_PORT)
PATIENCE = 10
"""Seconds that an answer may take."""


def pulumi(*arguments: str) -> str:
    """Pulumi's standard output. What it says on standard error is the user's to read."""
    return subprocess.run(["pulumi", *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout


class Login(NamedTuple):
    user: str
    password: str

    @property
    def encoded(self) -> str:
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class Entrance:
    """The load balancer, reached by its address: the domain's record may be new, or somebody else's still."""

    domain: str
    address: str

    def connect(self, port: int) -> socket.socket:
        return socket.create_connection((self.address, port), timeout=PATIENCE)

    def handshake(self, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
        plain = self.connect(port)
        try:
            return context.wrap_socket(plain, server_hostname=self.domain)
        except OSError:
            plain.close()
            raise

    def plain_port(self, port: int) -> Unseen | None:
        try:
            self.connect(port).close()
        except OSError as error:
            return Unseen(_said(error))
        return None

    def certificate(self, port: int) -> Certificate | Unseen:
        """What the port presents, trusted or not."""
        try:
            try:
                return self._presented(port, ssl.create_default_context())
            except ssl.SSLCertVerificationError as error:
                anything = ssl.create_default_context()
                anything.check_hostname = False
                anything.verify_mode = ssl.CERT_NONE
                certificate = self._presented(port, anything)
                reason = why_untrusted(certificate, self.domain, datetime.now(UTC), error.verify_message)
                return replace(certificate, untrusted=reason)
        except OSError as error:
            return Unseen(_said(error))

    def _presented(self, port: int, context: ssl.SSLContext) -> Certificate:
        with self.handshake(port, context) as connection:
            der = connection.getpeercert(binary_form=True)
        assert der is not None  # a server without a certificate ends the handshake
        return read_certificate(der)

    def page(self, path: str, login: Login) -> str | Unseen:
        """Of the statistics' port. The password goes to a server whose certificate is trusted, or nowhere."""
        connection = http.client.HTTPConnection(self.domain, STATISTICS_PORT)
        try:
            with self.handshake(STATISTICS_PORT, ssl.create_default_context()) as connection.sock:
                connection.request("GET", path, headers={"Authorization": f"Basic {login.encoded}"})
                answer = connection.getresponse()
                text = answer.read().decode()
        except ssl.SSLCertVerificationError:
            return Unseen("the password is sent to a server with a trusted certificate only")
        except (OSError, http.client.HTTPException) as error:
            return Unseen(_said(error))
        match answer.status:
            case 200:
                return text
            case 401:
                return Unseen("the statistics' password is not the configured one; pulumi up sets it")
            case status:
                return Unseen(f"{path} answers with status {status}")


def _said(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {PATIENCE} seconds"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def look(outputs: Mapping[str, Any], configuration: Mapping[str, Any], login: Login) -> Cluster:
    # The URL's rather than the configured domain: the one that was deployed.
    domain = outputs["statistics_url"].removeprefix("https://").partition(":")[0]
    entrance = Entrance(domain, outputs["load_balancer_ip"])
    with ThreadPoolExecutor() as pool:
        plain = {port: pool.submit(entrance.plain_port, port) for port in PLAIN_PORTS}
        tls = {port: pool.submit(entrance.certificate, port) for port in TLS_PORTS}
        statistics = pool.submit(entrance.page, "/haproxy_stats;csv", login)
        metrics = pool.submit(entrance.page, "/metrics/node", login)
    own_certificate = configuration.get(f"{NAMESPACE}:tls", {})
    return Cluster(
        domain=domain,
        names=outputs["certificate_names"],
        machines=[
            Machine("load-balancer", "load-balancer", "-", entrance.address),
            *(
                Machine(node["name"], node["role"], node["private_address"], node["public_address"])
                for node in outputs["nodes"]
            ),
        ],
        ports={port: seen.result() for port, seen in (plain | tls).items()},
        servers=seen_in(statistics.result(), read_servers),
        renewal=(
            None
            if own_certificate.get("secret") or own_certificate.get("value")
            else seen_in(metrics.result(), lambda text: read_renewal(read_metrics(text)))
        ),
    )


def seen_in(page: str | Unseen, read: Callable[[str], T]) -> T | Unseen:
    return page if isinstance(page, Unseen) else read(page)


def main() -> None:
    outputs = json.loads(pulumi("stack", "output", "--json"))
    if "load_balancer_ip" not in outputs:
        sys.exit("There is no cluster yet: pulumi up makes it.")
    configuration = json.loads(pulumi("config", "--json"))
    password = pulumi("config", "get", f"{NAMESPACE}:statisticsPassword").rstrip("\n")
    login = Login(configuration[f"{NAMESPACE}:statisticsUser"]["value"], password)
    cluster = look(outputs, configuration, login)
    now = datetime.now(UTC)
    print(report(cluster, now))
    sys.exit(1 if problems(cluster, now) else 0)


if __name__ == "__main__":
    try:
        main()
    except FileNotFoundError as error:
        sys.exit(f"status.py needs {error.filename} on PATH.")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
