"""The AWS APIs that machines use, by the names and with the checks that they have on AWS, in front of moto."""

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
from sandbox.cloud.credentials import Issuer
from sandbox.cloud.ec2 import ACCOUNT
from sandbox.cloud.iam_policies import Demand, Policy
from sandbox.cloud.signatures import Reason, RefusedError, Request

Answer = tuple[int, Mapping[str, str], bytes]


class Endpoint(ABC):
    """One service."""

    scope: ClassVar[str]
    content_type: ClassVar[str]

    @abstractmethod
    def demand(self, request: Request) -> Demand | None:
        """What is asked, or None for what machines of the cluster have no business with."""

    @abstractmethod
    def refusal(self, reason: Reason, message: str) -> tuple[int, str]: ...


class Route53(Endpoint):
    scope = "us-east-1/route53"
    content_type = "text/xml"

    def demand(self, request: Request) -> Demand | None:
        path = unquote(urlsplit(request.target).path).rstrip("/")
        if request.method == "GET" and path == "/2013-04-01/hostedzone":
            return Demand("route53:ListHostedZones", "*")
        if request.method == "GET" and (match := re.fullmatch(r"/2013-04-01/change/(\w+)", path)):
            return Demand("route53:GetChange", f"arn:aws:route53:::change/{match[1]}")
        if request.method == "POST" and (match := re.fullmatch(r"/2013-04-01/hostedzone/(\w+)/rrset", path)):
            key = "route53:ChangeResourceRecordSets"
            changes = _changes(request.body)
            return Demand(
                "route53:ChangeResourceRecordSets",
                f"arn:aws:route53:::hostedzone/{match[1]}",
                {
                    f"{key}Actions": [action for action, _, _ in changes],
                    f"{key}NormalizedRecordNames": [normalized(name) for _, name, _ in changes],
                    f"{key}RecordTypes": [type for _, _, type in changes],
                },
            )
        return None

    def refusal(self, reason: Reason, message: str) -> tuple[int, str]:
        return 400 if reason is Reason.INCOMPLETE else 403, (
            '<?xml version="1.0"?>\n'
            '<ErrorResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><Error><Type>Sender</Type>'
            f"<Code>{reason.value[0]}</Code><Message>{escape(message)}</Message></Error>"
            f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
        )


def _changes(body: bytes) -> Sequence[tuple[str, str, str]]:
    """Action, name and type of each change."""
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
        raise RefusedError(Reason.DENIED, "The changes that are asked for cannot be read.")
    return found


def normalized(name: str) -> str:
    r"""A record's name as IAM compares it: small letters, no final dot, and \052 for a wildcard's asterisk."""
    return re.sub(r"[^a-z0-9_.\\-]", lambda match: f"\\{ord(match[0]):03o}", name.lower().removesuffix("."))


class SecretsManager(Endpoint):
    scope = f"{addresses.REGION}/secretsmanager"
    content_type = "application/x-amz-json-1.1"

    def __init__(self, arn_of_secret: Callable[[str], str | None]) -> None:
        self._arn_of_secret = arn_of_secret

    def demand(self, request: Request) -> Demand | None:
        match = re.fullmatch(r"secretsmanager\.(\w+)", request.headers.get("x-amz-target", ""))
        try:
            secret = json.loads(request.body)["SecretId"]
        except (ValueError, LookupError, TypeError):
            return None
        if match is None or request.method != "POST":
            return None
        arn = self._arn_of_secret(secret) or (
            secret
            if secret.startswith("arn:")
            else f"arn:aws:secretsmanager:{addresses.REGION}:{ACCOUNT}:secret:{secret}"
        )
        return Demand(f"secretsmanager:{match[1]}", arn)

    def refusal(self, reason: Reason, message: str) -> tuple[int, str]:
        return 400, json.dumps({"__type": reason.value[1], "Message": message})


class Gate:
    """Lets through what is signed, and allowed to the role that signed it."""

    def __init__(
        self,
        issuer: Issuer,
        policies_of: Callable[[str], Sequence[Policy]],
        arn_of_secret: Callable[[str], str | None],
    ) -> None:
        self._issuer = issuer
        self._policies_of = policies_of
        self._endpoints: dict[str, Endpoint] = {
            addresses.ROUTE53_NAME: Route53(),
            addresses.SECRETS_MANAGER_NAME: SecretsManager(arn_of_secret),
        }

    def answer(self, request: Request) -> Answer:
        endpoint = self._endpoints.get(request.headers.get("host", ""))
        if endpoint is None:
            return 404, {}, b""
        try:
            self._check(endpoint, request)
        except RefusedError as refused:
            status, text = endpoint.refusal(refused.reason, str(refused))
            return status, {"Content-Type": endpoint.content_type}, text.encode()
        status, text = _pass_on(request, endpoint.scope)
        return status, {"Content-Type": endpoint.content_type}, text

    def _check(self, endpoint: Endpoint, request: Request) -> None:
        who = signatures.verify(request, endpoint.scope, self._issuer.find, datetime.now(UTC))
        demand = endpoint.demand(request)
        if demand is None:
            what = f"{request.method} {request.target} {request.headers.get('x-amz-target', '')}".rstrip()
            print(f"{what} is refused: the local cloud does not know what it asks for", file=sys.stderr)
            raise RefusedError(Reason.DENIED, f"The local cloud does not know {what}")
        if not iam_policies.allow(self._policies_of(who.role), demand):
            action = demand.action
            raise RefusedError(
                Reason.DENIED,
                f"User: arn:aws:sts::{ACCOUNT}:assumed-role/{who.role}/{who.instance} is not authorized to perform:"
                f" {action} on resource: {demand.resource} because no identity-based policy allows the {action} action",
            )


def _pass_on(request: Request, scope: str) -> tuple[int, bytes]:
    """To moto, which finds service, region and account in the scope of a signature, and does not check that."""
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


def serve(gate: Gate, folder: Path) -> None:
    """Answers over TLS, with the certificate in `folder`, in threads of this process."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: Any, client_address: Any) -> None:
            request.settimeout(20)  # also for who connects and then says nothing
            try:
                with context.wrap_socket(request, server_side=True) as secured:
                    super().finish_request(secured, client_address)
            except OSError:
                pass  # gone, or a client that does not trust us: it knows why

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
                status, headers, body = gate.answer(request)
            except Exception:
                traceback.print_exc()
                status, headers, body = 500, {}, b""
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
            """The daemon's log is for what goes wrong."""

    server = Server((addresses.AWS, 443), Handler)
    threading.Thread(target=server.serve_forever, name="aws", daemon=True).start()
