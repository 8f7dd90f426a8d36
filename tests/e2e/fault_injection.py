"""Faults on a certificate's way to HAProxy. Each is a context manager that restores the former state."""

import json
import shutil
import ssl
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from sandbox.cloud import acme, addresses, certificates
from tests.e2e.clients import SandboxInternet
from tests.e2e.cluster_certificate import ClusterCertificate
from tests.e2e.running_cluster import STATE, Cluster

DIVERTED_PORT = 14030
"""Port to which requests to the ACME server are diverted."""

ProblemDocument = Mapping[str, str | int]
"""RFC 7807 problem document."""

RATE_LIMITED: ProblemDocument = {
    "type": "urn:ietf:params:acme:error:rateLimited",
    "detail": "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, "
    "retry after 2031-01-01 00:00:00 UTC",
    "status": 429,
}
REFUSED: ProblemDocument = {
    "type": "urn:ietf:params:acme:error:rejectedIdentifier",
    "detail": "The ACME server refuses to issue a certificate for this domain name, because it is forbidden by policy",
    "status": 400,
}


class _Listener(ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Binds without a lookup of the host name, whose DNS query would count as an escaped packet."""
        TCPServer.server_bind(self)


@contextmanager
def acme_server_unreachable(cluster: Cluster) -> Generator[None]:
    """Diverts its clients to a port on which nothing listens."""
    chain = f"""\
        type nat hook prerouting priority dstnat
        ip daddr {addresses.ACME} tcp dport {acme.PORT} dnat to {addresses.ACME}:{DIVERTED_PORT}"""
    nft = cluster.operator_command("nft", "-f", "-")
    cluster.check_output(*nft, input=f"table ip divert {{\n chain prerouting {{\n{chain}\n}}\n}}")
    try:
        yield
    finally:
        cluster.check_output(*nft, input="delete table ip divert")


@contextmanager
def acme_server_refusing(
    cluster: Cluster, internet: SandboxInternet, problem: ProblemDocument, tls: Path
) -> Generator[None]:
    """Replaces the ACME server with one that refuses every order with a problem document."""
    listener = internet.call(lambda: _Listener((addresses.ACME, DIVERTED_PORT), _refusing_handler(problem)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    try:
        with acme_server_unreachable(cluster):
            yield
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def _refusing_handler(problem: ProblemDocument) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            base = f"https://{self.headers['Host']}"
            paths = ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange")
            self._answer(HTTPStatus.OK, {path: f"{base}/{path}" for path in paths})

        def do_HEAD(self) -> None:
            self._answer(HTTPStatus.OK, {})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(HTTPStatus(int(problem["status"])), problem)

        def _answer(self, status: HTTPStatus, document: ProblemDocument) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Replay-Nonce", "bm9uY2U")
            self.send_header("Content-Type", f"application/{'problem+' if status >= 400 else ''}json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keeps the log out of the test's output."""

    return Handler


@contextmanager
def acme_server_untrusted(cluster: Cluster, internet: SandboxInternet) -> Generator[None]:
    """Replaces the ACME server with one whose certificate is from an unknown CA."""
    folder = STATE / "untrusted"
    folder.mkdir()
    try:
        certificates.create(folder, "untrusted", [addresses.ACME_NAME], addresses.ACME)
        with acme_server_refusing(cluster, internet, REFUSED, folder):
            yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def disk_full(certificate: ClusterCertificate, folder: str) -> Generator[None]:
    """Fills the file system of a folder on the load balancer. Files written meanwhile remain."""
    certificate.run_on_balancer(f"""
        mkdir /run/copy && cp -a {folder}/. /run/copy
        mount -t tmpfs -o mode=755,size=4M full {folder}
        cp -a /run/copy/. {folder} && rm -r /run/copy
        head -c 4M /dev/zero >{folder}/filler 2>/dev/null || [[ -s {folder}/filler ]]
    """)
    try:
        yield
    finally:
        certificate.run_on_balancer(f"""
            rm {folder}/filler && cp -a {folder} /run/copy && umount {folder}
            find {folder} -mindepth 1 -delete && cp -a /run/copy/. {folder} && rm -r /run/copy
        """)


@contextmanager
def haproxy_socket_missing(certificate: ClusterCertificate) -> Generator[None]:
    socket = "/run/haproxy/admin.sock"
    certificate.run_on_balancer(f"mv {socket} {socket}.away")
    try:
        yield
    finally:
        certificate.run_on_balancer(f"mv {socket}.away {socket}")


@contextmanager
def renewed_chain_corrupt(certificate: ClusterCertificate) -> Generator[None]:
    """Corrupts each renewed chain before certbot's deploy hook runs."""
    hook, chain = (
        "/etc/letsencrypt/renewal-hooks/deploy/corrupt",
        "/etc/letsencrypt/live/cluster/fullchain.pem",
    )
    certificate.run_on_balancer(f"""
        printf '#!/bin/sh\\ncp {chain} /run/right-chain && sed -i "\\$s/^/no chain/" $(readlink -f {chain})' >{hook}
        chmod +x {hook}
    """)
    try:
        yield
    finally:
        certificate.run_on_balancer(f"rm {hook} && cat /run/right-chain >{chain} && rm /run/right-chain")


@contextmanager
def secrets_manager_unreachable(certificate: ClusterCertificate) -> Generator[None]:
    """Resolves its name to an address on which nothing serves it."""
    hosts = "/etc/hosts"
    name = f"secretsmanager.{addresses.REGION}.amazonaws.com"
    certificate.run_on_balancer(f"cp {hosts} /run/hosts && echo {addresses.ACME} {name} >>{hosts}")
    try:
        yield
    finally:
        certificate.run_on_balancer(f"cat /run/hosts >{hosts} && rm /run/hosts")
