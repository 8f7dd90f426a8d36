"""Checks a cluster through its load balancer, and asks AWS for the states of its machines."""

import base64
import http.client
import socket
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

from cluster.address_plan import Role
from cluster.settings.model import NAMESPACE
from operations.access import SSH_PORT
from operations.preview.haproxy_cfg import read_applications
from operations.stack_state import StackState
from operations.status.account import AccountCheck
from operations.status.certificate import Certificate, explain_distrust, read_certificate
from operations.status.cluster import Cluster, Machine, Unreachable, read_renewal, read_servers
from operations.status.problems import PANEL_PORT, STATISTICS_PORT
from operations.status.registry import check_registry
from operations.status.servers import PanelLogin, check_media_servers

T = TypeVar("T")

PLAIN_PORTS = (SSH_PORT, 80, 5080)
TLS_PORTS = (443, 5443, PANEL_PORT, STATISTICS_PORT)
ADMIN_PORTS = (SSH_PORT, PANEL_PORT, STATISTICS_PORT)
TIMEOUT = 10
"""Seconds."""
NO_ANSWER = f"no answer within {TIMEOUT} seconds"


class Login(NamedTuple):
    """User and password of the statistics page."""

    user: str
    password: str

    @property
    def encoded(self) -> str:
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@dataclass(frozen=True)
class LoadBalancer:
    """A client of the load balancer. Connects to its address, because the domain's record may not lead there yet."""

    domain: str
    address: str

    def check_plain_port(self, port: int) -> Unreachable | None:
        """Returns None if the port accepts a connection."""
        try:
            self._connect(port).close()
        except OSError as error:
            return Unreachable(_describe(error))
        return None

    def fetch_certificate(self, port: int) -> Certificate | Unreachable:
        """Returns the certificate that a port presents, also if it is not trusted."""
        try:
            try:
                return self._read_certificate(port, ssl.create_default_context())
            except ssl.SSLCertVerificationError as error:
                unverified = ssl.create_default_context()
                unverified.check_hostname = False
                unverified.verify_mode = ssl.CERT_NONE
                certificate = self._read_certificate(port, unverified)
                reason = explain_distrust(certificate, self.domain, datetime.now(UTC), error.verify_message)
                return replace(certificate, distrust=reason)
        except OSError as error:
            return Unreachable(_describe(error))

    def fetch_page(self, path: str, login: Login) -> str | Unreachable:
        """Returns a page of the statistics port. Sends the password only over a trusted connection."""
        connection = http.client.HTTPConnection(self.domain, STATISTICS_PORT)
        try:
            with self._handshake(STATISTICS_PORT, ssl.create_default_context()) as connection.sock:
                connection.request("GET", path, headers={"Authorization": f"Basic {login.encoded}"})
                answer = connection.getresponse()
                text = answer.read().decode()
        except ssl.SSLCertVerificationError:
            return Unreachable("the password is sent only to a server with a trusted certificate")
        except (OSError, http.client.HTTPException) as error:
            return Unreachable(_describe(error))
        match answer.status:
            case 200:
                return text
            case 401:
                return Unreachable("the load balancer has another statistics password; make up sets it")
            case status:
                return Unreachable(f"{path} answers with status {status}")

    def _connect(self, port: int) -> socket.socket:
        return socket.create_connection((self.address, port), timeout=TIMEOUT)

    def _handshake(self, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
        plain = self._connect(port)
        try:
            return context.wrap_socket(plain, server_hostname=self.domain)
        except OSError:
            plain.close()
            raise

    def _read_certificate(self, port: int, context: ssl.SSLContext) -> Certificate:
        with self._handshake(port, context) as connection:
            der = connection.getpeercert(binary_form=True)
        assert der is not None  # a server without a certificate fails the handshake
        return read_certificate(der)


def _describe(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def check_cluster(
    outputs: Mapping[str, Any],
    configuration: Mapping[str, Any],
    login: Login,
    panel_password: str,
    state: StackState,
) -> Cluster:
    """Checks all ports, reads the statistics and metrics, asks AWS about the machines, and the nodes about their server and the
    cluster registry, at the same time.

    `outputs` and `configuration` are what Pulumi's `stack output` and `config` print as JSON.
    """
    # The domain that was deployed. The configuration may name the next one.
    domain = outputs["statistics_url"].removeprefix("https://").partition(":")[0]
    balancer = LoadBalancer(domain, outputs["load_balancer_ip"])
    account = AccountCheck(state)
    email = configuration.get(f"{NAMESPACE}:panelEmail", {}).get("value") or f"admin@{domain}"
    panel_login = PanelLogin(email, panel_password)
    with ThreadPoolExecutor() as pool:
        plain_ports = {port: pool.submit(balancer.check_plain_port, port) for port in PLAIN_PORTS}
        tls_ports = {port: pool.submit(balancer.fetch_certificate, port) for port in TLS_PORTS}
        statistics = pool.submit(balancer.fetch_page, "/haproxy_stats;csv", login)
        metrics = pool.submit(balancer.fetch_page, "/metrics/node", login)
        instances = pool.submit(account.read_instances)
        nodes = {node["name"] for node in outputs["nodes"]}
        registry = pool.submit(check_registry, state, nodes)
        media_servers = pool.submit(check_media_servers, state, nodes, panel_login)
    ports = {port: future.result() for port, future in (plain_ports | tls_ports).items()}
    unanswered = [port for port in ADMIN_PORTS if ports[port] == Unreachable(NO_ANSWER)]
    own_certificate = configuration.get(f"{NAMESPACE}:tls", {})
    has_own_certificate = own_certificate.get("secret") or own_certificate.get("value")
    return Cluster(
        domain=domain,
        names=outputs["certificate_names"],
        machines=[
            Machine(Role.LOAD_BALANCER, Role.LOAD_BALANCER, "-", balancer.address),
            *(
                Machine(node["name"], node["role"], node["private_address"], node["public_address"])
                for node in outputs["nodes"]
            ),
        ],
        ports=ports,
        servers=_read_page(statistics.result(), read_servers),
        renewal=None if has_own_certificate else _read_page(metrics.result(), read_renewal),
        instances=instances.result(),
        media_servers=media_servers.result(),
        applications=read_applications(outputs["haproxy_cfg"] or ""),
        registry=registry.result(),
        access_problem=account.find_access_problem(unanswered, configuration) if unanswered else None,
    )


def _read_page(page: str | Unreachable, read: Callable[[str], T]) -> T | Unreachable:
    if isinstance(page, Unreachable):
        return page
    try:
        return read(page)
    except ValueError as error:
        return Unreachable(f"its content has another format: {error}")
