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
from sandbox.cloud.credentials import Credentials
from sandbox.cloud.iam_policies import AccessRequest, Policy
from sandbox.cloud.moto_corrections.errors import ApiCall, render_error
from sandbox.cloud.signatures import ErrorCode, RefusedError, Request

Response = tuple[int, Mapping[str, str], bytes]


class Endpoint(ABC):
    """One AWS service."""

    scope: ClassVar[str]
    content_type: ClassVar[str]

    @abstractmethod
    def parse_access(self, request: Request) -> Sequence[AccessRequest]:
        """Returns the actions and resources of a request, none if this endpoint does not support it."""

    @abstractmethod
    def render_error(self, code: ErrorCode, message: str) -> tuple[int, str]:
        """Returns the status and body of an error response."""

    def forward(self, request: Request, is_allowed: Callable[[AccessRequest], bool]) -> Response:
        """Forwards an authorized request to moto. `is_allowed` tells what else the caller may do."""
        status, _, body = _forward(request, self.scope, request.target)
        return status, {"Content-Type": self.content_type}, body


class Route53(Endpoint):
    scope = "us-east-1/route53"
    content_type = "text/xml"

    def parse_access(self, request: Request) -> Sequence[AccessRequest]:
        path = unquote(urlsplit(request.target).path).rstrip("/")
        if request.method == "GET" and path == "/2013-04-01/hostedzone":
            return [AccessRequest("route53:ListHostedZones", "*")]
        if request.method == "GET" and (match := re.fullmatch(r"/2013-04-01/change/(\w+)", path)):
            return [AccessRequest("route53:GetChange", f"arn:aws:route53:::change/{match[1]}")]
        if request.method == "POST" and (match := re.fullmatch(r"/2013-04-01/hostedzone/(\w+)/rrset", path)):
            key = "route53:ChangeResourceRecordSets"
            changes = _parse_changes(request.body)
            return [
                AccessRequest(
                    "route53:ChangeResourceRecordSets",
                    f"arn:aws:route53:::hostedzone/{match[1]}",
                    {
                        f"{key}Actions": [action for action, _, _ in changes],
                        f"{key}NormalizedRecordNames": [
                            normalize_record_name(name) for _, name, _ in changes
                        ],
                        f"{key}RecordTypes": [type for _, _, type in changes],
                    },
                )
            ]
        return []

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

    def parse_access(self, request: Request) -> Sequence[AccessRequest]:
        match = re.fullmatch(r"secretsmanager\.(\w+)", request.headers.get("x-amz-target", ""))
        try:
            secret = json.loads(request.body)["SecretId"]
        except (ValueError, LookupError, TypeError):
            return []
        if match is None or request.method != "POST":
            return []
        arn = self._find_secret_arn(secret) or (
            secret
            if secret.startswith("arn:")
            else f"arn:aws:secretsmanager:{addresses.REGION}:{addresses.ACCOUNT}:secret:{secret}"
        )
        return [AccessRequest(f"secretsmanager:{match[1]}", arn)]

    def render_error(self, code: ErrorCode, message: str) -> tuple[int, str]:
        return 400, json.dumps({"__type": code.value[1], "Message": message})


class S3(Endpoint):
    """One bucket, by its own host name: reads and writes of whole objects, and the list of the bucket."""

    scope = f"{addresses.REGION}/s3"
    content_type = "application/xml"

    def __init__(self, bucket: str, allows_acls: Callable[[str], bool]) -> None:
        self._bucket = bucket
        self._allows_acls = allows_acls

    def parse_access(self, request: Request) -> Sequence[AccessRequest]:
        url = urlsplit(request.target)
        key = unquote(url.path).removeprefix("/")
        query = {name.partition("=")[0] for name in url.query.split("&")} - {"x-id", ""}
        if not key:
            listed = request.method == "GET" and query <= {"list-type", "prefix", "encoding-type"}
            return [self._list] if listed else []
        actions = {
            "HEAD": ["GetObject"],
            "GET": ["GetObject"],
            "PUT": ["PutObject"],
            "DELETE": ["DeleteObject"],
        }.get(request.method, [])
        if request.method == "PUT" and "x-amz-acl" in request.headers:
            actions = [*actions, "PutObjectAcl"]
        # Multipart uploads and other operations have a query.
        return [] if query else [AccessRequest(f"s3:{name}", f"{self._arn}/{key}") for name in actions]

    @property
    def _arn(self) -> str:
        return f"arn:aws:s3:::{self._bucket}"

    @property
    def _list(self) -> AccessRequest:
        return AccessRequest("s3:ListBucket", self._arn)

    def render_error(self, code: ErrorCode, message: str) -> tuple[int, str]:
        status, name = {
            ErrorCode.UNSIGNED: (403, "AccessDenied"),
            ErrorCode.INCOMPLETE: (400, "AuthorizationHeaderMalformed"),
            ErrorCode.UNKNOWN_TOKEN: (403, "InvalidAccessKeyId"),
            ErrorCode.EXPIRED_TOKEN: (400, "ExpiredToken"),
        }.get(code, (403, code.value[0]))
        return status, self._render(name, message)

    @staticmethod
    def _render(code: str, message: str) -> str:
        error = (
            f"<Code>{code}</Code><Message>{escape(message)}</Message><RequestId>{uuid.uuid4()}</RequestId>"
        )
        return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{error}</Error>'

    def forward(self, request: Request, is_allowed: Callable[[AccessRequest], bool]) -> Response:
        acl = request.headers.get("x-amz-acl", "bucket-owner-full-control")
        if acl != "bucket-owner-full-control" and not self._allows_acls(self._bucket):
            # moto accepts every ACL. This is the only one that S3 accepts for a bucket whose objects have none.
            body = self._render("AccessControlListNotSupported", "The bucket does not allow ACLs").encode()
            return 400, {"Content-Type": self.content_type}, body
        status, headers, body = _forward(request, self.scope, f"/{self._bucket}{request.target}")
        if status == 404 and request.method in ("HEAD", "GET") and not is_allowed(self._list):
            # Who may not list a bucket does not learn which objects exist (S3 API, HeadObject and GetObject).
            code, text = self.render_error(ErrorCode.DENIED, "Access Denied")
            return code, {"Content-Type": self.content_type}, text.encode()
        kept = ("content-type", "etag", "last-modified", "cache-control")
        return status, {name: value for name, value in headers.items() if name.lower() in kept}, body


class AuthorizingProxy:
    """Forwards requests that are signed with the credentials of a role or a user, and allowed by its policies."""

    def __init__(
        self,
        find_credentials: Callable[[str], Credentials | None],
        list_policies: Callable[[Credentials], Sequence[Policy]],
        find_secret_arn: Callable[[str], str | None],
        allows_acls: Callable[[str], bool],
    ) -> None:
        self._find_credentials = find_credentials
        self._list_policies = list_policies
        self._allows_acls = allows_acls
        self._endpoints: dict[str, Endpoint] = {
            addresses.ROUTE53_NAME: Route53(),
            addresses.SECRETS_MANAGER_NAME: SecretsManager(find_secret_arn),
        }

    def handle(self, request: Request) -> Response:
        endpoint = self._find_endpoint(request.headers.get("host", ""))
        if endpoint is None:
            return 404, {}, b""
        try:
            policies = self._authorize(endpoint, request)
        except RefusedError as refused:
            status, text = endpoint.render_error(refused.code, str(refused))
            return status, {"Content-Type": endpoint.content_type}, text.encode()
        return endpoint.forward(request, lambda access: iam_policies.is_allowed(policies, access))

    def _find_endpoint(self, host: str) -> Endpoint | None:
        if host.endswith(f".{addresses.S3_NAME}"):
            return S3(host.removesuffix(f".{addresses.S3_NAME}"), self._allows_acls)
        return self._endpoints.get(host)

    def _authorize(self, endpoint: Endpoint, request: Request) -> Sequence[Policy]:
        """Returns the policies of the caller, which allow the request."""
        caller = signatures.verify(request, endpoint.scope, self._find_credentials, datetime.now(UTC))
        accesses = endpoint.parse_access(request)
        if not accesses:
            call = f"{request.method} {request.target} {request.headers.get('x-amz-target', '')}".rstrip()
            print(f"{call} is denied: the local cloud does not support this call", file=sys.stderr)
            raise RefusedError(ErrorCode.DENIED, f"The local cloud does not support {call}")
        policies = self._list_policies(caller)
        for access in accesses:
            if not iam_policies.is_allowed(policies, access):
                action = access.action
                raise RefusedError(
                    ErrorCode.DENIED,
                    f"User: {caller.principal} is not authorized to perform: {action} on resource: {access.resource}"
                    f" because no identity-based policy allows the {action} action",
                )
        return policies


def _forward(request: Request, scope: str, target: str) -> Response:
    """Forwards a request to moto, which reads service and region from the signature's scope but verifies nothing."""
    headers = {
        name: value
        for name, value in request.headers.items()
        if name
        in ("content-type", "x-amz-target", "accept", "x-amz-acl", "x-amz-storage-class", "cache-control")
    }
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential=test/20260101/{scope}/aws4_request, SignedHeaders=host, Signature=none"
    )
    moto = http.client.HTTPConnection(addresses.API, 5000, timeout=30)
    try:
        moto.request(request.method, target, request.body, headers)
        answer = moto.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
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
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            self._handle()

        do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Suppresses access logs: the daemon's log is for errors."""

    server = Server((addresses.AWS, 443), Handler)
    threading.Thread(target=server.serve_forever, name="aws", daemon=True).start()
