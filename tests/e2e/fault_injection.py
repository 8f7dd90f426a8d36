"""What can befall a certificate's way to HAProxy: each lasts as long as its `with`, and leaves nothing behind."""

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
from tests.e2e.clients import Internet
from tests.e2e.cluster_certificate import Certificate
from tests.e2e.running_cluster import STATE, Cluster

ELSEWHERE = 14030
"""A port beside the ACME server's."""

Problem = Mapping[str, str | int]
"""As RFC 7807 has it."""

RATE_LIMITED: Problem = {
    "type": "urn:ietf:params:acme:error:rateLimited",
    "detail": "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s, "
    "retry after 2031-01-01 00:00:00 UTC",
    "status": 429,
}
REFUSED: Problem = {
    "type": "urn:ietf:params:acme:error:rejectedIdentifier",
    "detail": "The ACME server refuses to issue a certificate for this domain name, because it is forbidden by policy",
    "status": 400,
}


class _Listener(ThreadingHTTPServer):
    def server_bind(self) -> None:
        """Without asking for its own name: on the sandbox's internet this host's DNS cannot be reached, and must not be."""
        TCPServer.server_bind(self)


@contextmanager
def acme_server_does_not_answer(cluster: Cluster) -> Generator[None]:
    """Nobody listens where its clients arrive; it does not notice."""
    chain = f"""\
        type nat hook prerouting priority dstnat
        ip daddr {addresses.ACME} tcp dport {acme.PORT} dnat to {addresses.ACME}:{ELSEWHERE}"""
    nft = cluster.as_operator("nft", "-f", "-")
    cluster.must(*nft, input=f"table ip elsewhere {{\n chain arriving {{\n{chain}\n}}\n}}")
    try:
        yield
    finally:
        cluster.must(*nft, input="delete table ip elsewhere")


@contextmanager
def another_server_answers(
    cluster: Cluster, internet: Internet, problem: Problem, tls: Path
) -> Generator[None]:
    """In the ACME server's place: one that refuses every order with a problem document."""
    listener = internet.do(lambda: _Listener((addresses.ACME, ELSEWHERE), _refuse(problem)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    thread = threading.Thread(target=listener.serve_forever)
    thread.start()
    try:
        with acme_server_does_not_answer(cluster):
            yield
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def _refuse(problem: Problem) -> type[BaseHTTPRequestHandler]:
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

        def _answer(self, status: HTTPStatus, document: Problem) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Replay-Nonce", "bm9uY2U")
            self.send_header("Content-Type", f"application/{'problem+' if status >= 400 else ''}json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A test's output is for the test."""

    return Handler


@contextmanager
def an_impostor_answers(cluster: Cluster, internet: Internet) -> Generator[None]:
    """A server by the same name, with a certificate by a CA that nobody named."""
    folder = STATE / "impostor"
    folder.mkdir()
    try:
        certificates.make(folder, "impostor", [addresses.ACME_NAME], addresses.ACME)
        with another_server_answers(cluster, internet, REFUSED, folder):
            yield
    finally:
        shutil.rmtree(folder)


@contextmanager
def disk_is_full(certificate: Certificate, folder: str) -> Generator[None]:
    """Of a folder of the load balancer's. What was written nevertheless is there afterwards."""
    certificate.on_balancer(f"""
        mkdir /run/copy && cp -a {folder}/. /run/copy
        mount -t tmpfs -o mode=755,size=4M full {folder}
        cp -a /run/copy/. {folder} && rm -r /run/copy
        head -c 4M /dev/zero >{folder}/filler 2>/dev/null || [[ -s {folder}/filler ]]
    """)
    try:
        yield
    finally:
        certificate.on_balancer(f"""
            rm {folder}/filler && cp -a {folder} /run/copy && umount {folder}
            find {folder} -mindepth 1 -delete && cp -a /run/copy/. {folder} && rm -r /run/copy
        """)


@contextmanager
def haproxy_takes_no_commands(certificate: Certificate) -> Generator[None]:
    socket = "/run/haproxy/admin.sock"
    certificate.on_balancer(f"mv {socket} {socket}.away")
    try:
        yield
    finally:
        certificate.on_balancer(f"mv {socket}.away {socket}")


@contextmanager
def renewed_with_a_chain_that_is_none(certificate: Certificate) -> Generator[None]:
    """certbot runs what is in this folder before the deployment."""
    hook, chain = "/etc/letsencrypt/renewal-hooks/deploy/spoil", "/etc/letsencrypt/live/cluster/fullchain.pem"
    certificate.on_balancer(f"""
        printf '#!/bin/sh\\ncp {chain} /run/right-chain && sed -i "\\$s/^/no chain/" $(readlink -f {chain})' >{hook}
        chmod +x {hook}
    """)
    try:
        yield
    finally:
        certificate.on_balancer(f"rm {hook} && cat /run/right-chain >{chain} && rm /run/right-chain")


@contextmanager
def secrets_manager_is_away(certificate: Certificate) -> Generator[None]:
    """Its name leads to where nobody listens for it."""
    hosts = "/etc/hosts"
    name = f"secretsmanager.{addresses.REGION}.amazonaws.com"
    certificate.on_balancer(f"cp {hosts} /run/hosts && echo {addresses.ACME} {name} >>{hosts}")
    try:
        yield
    finally:
        certificate.on_balancer(f"cat /run/hosts >{hosts} && rm /run/hosts")
