"""The EC2 instance metadata service, version 2 only."""

import json
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sandbox.cloud import addresses
from sandbox.cloud.credentials import CredentialIssuer, Credentials
from sandbox.cloud.ec2 import Instance
from sandbox.cloud.machines import fqdn

_TTL = "x-aws-ec2-metadata-token-ttl-seconds"
_TOKEN = "x-aws-ec2-metadata-token"
_MAX_TTL = 6 * 60 * 60

Response = tuple[HTTPStatus, str]


def instance_documents(instance: Instance) -> dict[str, str]:
    """Returns the metadata of an instance by path, without the credentials of its role."""
    name = fqdn(instance.private_address)
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
        "accountId": addresses.ACCOUNT,
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


def render_credentials(credentials: Credentials) -> str:
    """Returns the document of a role's credentials."""
    return json.dumps(
        {
            "Code": "Success",
            "LastUpdated": f"{credentials.issued:%Y-%m-%dT%H:%M:%SZ}",
            "Type": "AWS-HMAC",
            "AccessKeyId": credentials.access_key,
            "SecretAccessKey": credentials.secret_key,
            "Token": credentials.token,
            "Expiration": f"{credentials.expires:%Y-%m-%dT%H:%M:%SZ}",
        },
        indent=2,
    )


def find_document(documents: Mapping[str, str], path: str) -> str | None:
    """Returns the document at a path, or the list of a folder as EC2 prints it, or None."""
    if path in documents:
        return documents[path]
    folder = path.rstrip("/") + "/"
    below = (name.removeprefix(folder).partition("/") for name in documents if name.startswith(folder))
    return "\n".join(sorted({name + slash for name, slash, _ in below})) or None


class MetadataService:
    """The metadata service of one VPC. Identifies an instance by its private address."""

    def __init__(
        self,
        listener: socket.socket,
        find_instance: Callable[[str], Instance | None],
        find_role: Callable[[str], str | None],
        issuer: CredentialIssuer,
    ) -> None:
        self._find_instance = find_instance
        self._find_role = find_role
        self._issuer = issuer
        self._tokens: dict[str, tuple[str, float]] = {}
        self._server = ThreadingHTTPServer(("", 0), _handler(self), bind_and_activate=False)
        self._server.socket.close()
        self._server.socket = listener
        threading.Thread(target=self._server.serve_forever, name="metadata", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def issue_token(self, address: str, path: str, headers: Mapping[str, str]) -> Response:
        """Answers PUT: issues a session token to the instance with this address."""
        # As on EC2: an open proxy on a machine must not hand out tokens.
        if "x-forwarded-for" in headers:
            return HTTPStatus.FORBIDDEN, ""
        if path != "/latest/api/token":
            return HTTPStatus.NOT_FOUND, ""
        instance, seconds = self._find_instance(address), headers.get(_TTL, "")
        if instance is None or not seconds.isdecimal() or not 1 <= int(seconds) <= _MAX_TTL:
            return HTTPStatus.BAD_REQUEST, ""
        token = secrets.token_urlsafe(40)
        self._tokens[token] = instance.id, time.monotonic() + int(seconds)
        return HTTPStatus.OK, token

    def get_document(self, address: str, path: str, headers: Mapping[str, str]) -> Response:
        """Answers GET: requires a token that this instance has requested."""
        instance = self._find_instance(address)
        owner, expiry = self._tokens.get(headers.get(_TOKEN, ""), ("", 0.0))
        if instance is None or owner != instance.id or time.monotonic() > expiry:
            return HTTPStatus.UNAUTHORIZED, ""
        available = instance_documents(instance)
        if path.startswith("/latest/meta-data/iam") and (role := self._find_role(instance.id)):
            credentials = self._issuer.issue(instance.id, role)
            available[f"/latest/meta-data/iam/security-credentials/{role}"] = render_credentials(credentials)
        text = find_document(available, path)
        return (HTTPStatus.NOT_FOUND, "") if text is None else (HTTPStatus.OK, text)


def _handler(service: MetadataService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_PUT(self) -> None:
            self._respond(service.issue_token)

        def do_GET(self) -> None:
            self._respond(service.get_document)

        def _respond(self, handle: Callable[[str, str, Mapping[str, str]], Response]) -> None:
            status, text = handle(
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
            """Suppresses access logs: the daemon's log is for errors."""

    return Handler
