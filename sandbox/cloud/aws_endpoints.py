"""The AWS endpoints for machines: verifies signatures and IAM policies, then forwards requests to moto.

Serves checkip.amazonaws.com, too.
"""

import http.client
import json
import re
import ssl
import sys
import threading
import traceback
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from sandbox.cloud import addresses, iam_policies, signatures
from sandbox.cloud.credentials import CredentialIssuer
from sandbox.cloud.iam_policies import AccessRequest, Policy
from sandbox.cloud.moto_corrections.errors import ApiCall, render_error
from sandbox.cloud.signatures import ErrorCode, RefusedError, Request

Response = tuple[int, Mapping[str, str], bytes]


class Endpoint(ABC):
    """One AWS service."""

    scope: ClassVar[str]
    content_type: ClassVar[str]

    @abstractmethod
    def parse_access(self, request: Request) -> AccessRequest | None:
        """Returns the action and resource of a request, or None if this endpoint does not support it."""

    @abstractmethod
    def render_error(self, code: ErrorCode, message: str) -> tuple[int, str]:
        """Returns the status and body of an error response."""


class Route53(Endpoint):
    scope = "us-east-1/route53"
    content_type = "text/xml"

    def parse_access(self, request: Request) -> AccessRequest | None:
        path = unquote(urlsplit(request.target).path).rstrip("/")
        if request.method == "GET" and path == "/2013-04-01/hostedzone":
            return AccessRequest("route53:ListHostedZones", "*")
        if request.method == "GET" and (match := re.fullmatch(r"/2013-04-01/change/(\w+)", path)):
            return AccessRequest("route53:GetChange", f"arn:aws:route53:::change/{match[1]}")
        if request.method == "POST" and (match := re.fullmatch(r"/2013-04-01/hostedzone/(\w+)/rrset", path)):
            key = "route53:ChangeResourceRecordSets"
            changes = _parse_changes(request.body)
            return AccessRequest(
                "route53:ChangeResourceRecordSets",
                f"arn:aws:route53:::hostedzone/{match[1]}",
                {
                    f"{key}Actions": [action for action, _, _ in changes],
                    f"{key}NormalizedRecordNames": [normalize_record_name(name) for _, name, _ in changes],
                    f"{key}RecordTypes": [type for _, _, type in changes],
                },
            )
        return None

    def render_error(self, code: ErrorCode, message: str) -> tuple[int, str]:
        return 400 if code is ErrorCode.INCOMPLETE else 403, (
            '<?xml version="1.0"?>\n'
            '<ErrorResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><Error><Type>Sender</Type>'
            f"<Code>{code.value[0]}</Code><Message>{escape(message)}</Message></Error>"
            f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
        )


def _parse_changes(body: bytes) -> Sequence[tuple[str, str, str]]:
    """Returns action, record name and record type of each change."""
    try:
        changes = ElementTree.fromstring(body).findall(".//{*}Change")
    except ElementTree.ParseError:
        changes = []
    found = [
        (
            change.findtext("{*}Action", ""),
            change.findtext("{*}ResourceRecordSet/{*}Name", ""),
            change.findtext("{*}ResourceRecordSet/{*}Type", ""),
        )
        for change in changes
    ]
    if not found or not all(all(change) for change in found):
        raise RefusedError(ErrorCode.DENIED, "The change batch cannot be parsed.")
    return found


def normalize_record_name(name: str) -> str:
    r"""Returns a record name as IAM compares it: lower case, no final dot, \052 for an asterisk."""
    return re.sub(r"[^a-z0-9_.\\-]", lambda match: f"\\{ord(match[0]):03o}", name.lower().removesuffix("."))


class SecretsManager(Endpoint):
    scope = f"{addresses.REGION}/secretsmanager"
    content_type = "application/x-amz-json-1.1"

    def __init__(self, find_secret_arn: Callable[[str], str | None]) -> None:
        self._find_secret_arn = find_secret_arn

    def parse_access(self, request: Request) -> AccessRequest | None:
        match = re.fullmatch(r"secretsmanager\.(\w+)", request.headers.get("x-amz-target", ""))
        try:
            secret = json.loads(request.body)["SecretId"]
        except (ValueError, LookupError, TypeError):
            return None
        if match is None or request.method != "POST":
            return None
        arn = self._find_secret_arn(secret) or (
            secret
            if secret.startswith("arn:")
            else f"arn:aws:secretsmanager:{addresses.REGION}:{addresses.ACCOUNT}:secret:{secret}"
        )
        return AccessRequest(f"secretsmanager:{match[1]}", arn)

    def render_error(self, code: ErrorCode, message: str) -> tuple[int, str]:
        return 400, json.dumps({"__type": code.value[1], "Message": message})


class AuthorizingProxy:
    """Forwards requests that are signed with a role's credentials and allowed by its policies."""

    def __init__(
        self,
        issuer: CredentialIssuer,
        list_policies: Callable[[str], Sequence[Policy]],
        find_secret_arn: Callable[[str], str | None],
    ) -> None:
        self._issuer = issuer
        self._list_policies = list_policies
        self._endpoints: dict[str, Endpoint] = {
            addresses.ROUTE53_NAME: Route53(),
            addresses.SECRETS_MANAGER_NAME: SecretsManager(find_secret_arn),
        }

    def handle(self, request: Request) -> Response:
        endpoint = self._endpoints.get(request.headers.get("host", ""))
        if endpoint is None:
            return 404, {}, b""
        try:
            self._check(endpoint, request)
        except RefusedError as refused:
            status, text = endpoint.render_error(refused.code, str(refused))
            return status, {"Content-Type": endpoint.content_type}, text.encode()
        status, text = _forward(request, endpoint.scope)
        return status, {"Content-Type": endpoint.content_type}, text

    def _check(self, endpoint: Endpoint, request: Request) -> None:
        caller = signatures.verify(request, endpoint.scope, self._issuer.find, datetime.now(UTC))
        access = endpoint.parse_access(request)
        if access is None:
            call = f"{request.method} {request.target} {request.headers.get('x-amz-target', '')}".rstrip()
            print(f"{call} is denied: the local cloud does not support this call", file=sys.stderr)
            raise RefusedError(ErrorCode.DENIED, f"The local cloud does not support {call}")
        if not iam_policies.is_allowed(self._list_policies(caller.role), access):
            action = access.action
            raise RefusedError(
                ErrorCode.DENIED,
                f"User: arn:aws:sts::{addresses.ACCOUNT}:assumed-role/{caller.role}/{caller.instance} is not authorized to perform:"
                f" {action} on resource: {access.resource} because no identity-based policy allows the {action} action",
            )


def _forward(request: Request, scope: str) -> tuple[int, bytes]:
    """Forwards a request to moto, which reads service and region from the signature's scope but verifies nothing."""
    headers = {
        name: value
        for name, value in request.headers.items()
        if name in ("content-type", "x-amz-target", "accept")
    }
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential=test/20260101/{scope}/aws4_request, SignedHeaders=host, Signature=none"
    )
    moto = http.client.HTTPConnection(addresses.API, 5000, timeout=30)
    try:
        moto.request(request.method, request.target, request.body, headers)
        answer = moto.getresponse()
        return answer.status, answer.read()
    finally:
        moto.close()


def serve(proxy: AuthorizingProxy, folder: Path) -> None:
    """Starts an HTTPS server in threads of this process, with the certificate in `folder`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            request.settimeout(20)  # also limits the TLS handshake
            try:
                with context.wrap_socket(request, server_side=True) as secured:
                    super().finish_request(secured, client_address)
            except OSError:
                pass  # the client has disconnected or does not trust the certificate

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            request = Request(
                method=self.command,
                target=self.path,
                headers={name.lower(): ",".join(self.headers.get_all(name, [])) for name in self.headers},
                body=self.rfile.read(int(self.headers.get("Content-Length", 0))),
            )
            try:
                if request.headers.get("host") == addresses.CHECKIP_NAME:
                    client: str = self.client_address[0]
                    status, headers, body = 200, {"Content-Type": "text/plain"}, f"{client}\n".encode()
                else:
                    status, headers, body = proxy.handle(request)
            except Exception as error:
                traceback.print_exc()
                call = ApiCall(
                    "route53", f"{request.method} {request.target}", "x-amz-target" in request.headers
                )
                kind, body = render_error(call, "UnsupportedOperation", f"The local cloud fails: {error}")
                status, headers = 400, {"Content-Type": kind}  # the SDKs retry 5xx
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._handle()

        def do_POST(self) -> None:
            self._handle()

        def log_message(self, format: str, *args: object) -> None:
            """Suppresses access logs: the daemon's log is for errors."""

    server = Server((addresses.AWS, 443), Handler)
    threading.Thread(target=server.serve_forever, name="aws", daemon=True).start()
