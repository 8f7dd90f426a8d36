"""EC2's instance metadata service, version 2 only: tells a machine about itself, and nobody else."""

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sandbox.cloud import addresses
from sandbox.cloud.credentials import Credentials, Issuer
from sandbox.cloud.ec2 import ACCOUNT, Instance
from sandbox.cloud.machines import full_name

_TTL = "x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "x-aws-ec2-metadata-token"
_LONGEST = 6 * 60 * 60

Answer = tuple[HTTPStatus, str]


def documents(instance: Instance) -> dict[str, str]:
    """What the service says about an instance, by path, but for its role."""
    name = full_name(instance.private_address)
    about = {
        "ami-id": instance.image,
        "hostname": name,
        "instance-id": instance.id,
        "instance-type": instance.type,
        "local-hostname": name,
        "local-ipv4": instance.private_address,
        "placement/availability-zone": instance.zone,
        "placement/region": addresses.REGION,
    }
    if instance.public_address:
        about["public-ipv4"] = instance.public_address
    identity = {
        "accountId": ACCOUNT,
        "architecture": "x86_64",
        "availabilityZone": instance.zone,
        "imageId": instance.image,
        "instanceId": instance.id,
        "instanceType": instance.type,
        "privateIp": instance.private_address,
        "region": addresses.REGION,
        "version": "2017-09-30",
    }
    return {
        **{f"/latest/meta-data/{path}": text for path, text in about.items()},
        "/latest/dynamic/instance-identity/document": json.dumps(identity, indent=2),
    }


def credentials_document(given: Credentials) -> str:
    return json.dumps(
        {
            "Code": "Success",
            "LastUpdated": f"{given.issued:%Y-%m-%dT%H:%M:%SZ}",
            "Type": "AWS-HMAC",
            "AccessKeyId": given.access_key,
            "SecretAccessKey": given.secret_key,
            "Token": given.token,
            "Expiration": f"{given.expires:%Y-%m-%dT%H:%M:%SZ}",
        },
        indent=2,
    )


def look_up(documents: Mapping[str, str], path: str) -> str | None:
    """A document, or the names in a folder of them, folders with a slash, as EC2 lists them."""
    if path in documents:
        return documents[path]
    folder = path.rstrip("/") + "/"
    below = (name.removeprefix(folder).partition("/") for name in documents if name.startswith(folder))
    return "\n".join(sorted({name + slash for name, slash, _ in below})) or None


class Service:
    """One VPC's. Who asks is told by the address, which in a VPC only one machine has."""

    def __init__(
        self,
        listener: socket.socket,
        find: Callable[[str], Instance | None],
        role_of: Callable[[str], str | None],
        issuer: Issuer,
    ) -> None:
        self._find = find
        self._role_of = role_of
        self._issuer = issuer
        self._tokens: dict[str, tuple[str, float]] = {}
        self._server = ThreadingHTTPServer(("", 0), _handler(self), bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listener
        threading.Thread(target=self._server.serve_forever, name="metadata", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def give_token(self, address: str, path: str, headers: Mapping[str, str]) -> Answer:
        # A request that comes through a proxy is one that a stranger may have made it pass on.
        if "x-forwarded-for" in headers:
            return HTTPStatus.FORBIDDEN, ""
        if path != "/latest/api/token":
            return HTTPStatus.NOT_FOUND, ""
        instance, seconds = self._find(address), headers.get(_TTL, "")
        if instance is None or not seconds.isdecimal() or not 1 <= int(seconds) <= _LONGEST:
            return HTTPStatus.BAD_REQUEST, ""
        token = secrets.token_urlsafe(40)
        self._tokens[token] = instance.id, time.monotonic() + int(seconds)
        return HTTPStatus.OK, token

    def tell(self, address: str, path: str, headers: Mapping[str, str]) -> Answer:
        instance = self._find(address)
        owner, until = self._tokens.get(headers.get(_TOKEN, ""), ("", 0.0))
        if instance is None or owner != instance.id or time.monotonic() > until:
            return HTTPStatus.UNAUTHORIZED, ""
        known = documents(instance)
        if path.startswith("/latest/meta-data/iam") and (role := self._role_of(instance.id)):
            given = self._issuer.current(instance.id, role)
            known[f"/latest/meta-data/iam/security-credentials/{role}"] = credentials_document(given)
        text = look_up(known, path)
        return (HTTPStatus.NOT_FOUND, "") if text is None else (HTTPStatus.OK, text)


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_PUT(self) -> None:
            self._answer(service.give_token)

        def do_GET(self) -> None:
            self._answer(service.tell)

        def _answer(self, ask: Callable[[str, str, Mapping[str, str]], Answer]) -> None:
            status, text = ask(
                self.client_address[0],
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
            )
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            """The daemon's log is for what goes wrong."""

    return Handler
