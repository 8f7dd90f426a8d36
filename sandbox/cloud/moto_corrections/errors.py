"""Answers requests that moto cannot serve with 4xx errors in each service's format.

AWS's SDKs retry 5xx answers, for many minutes in the official provider. AWS answers invalid and unknown requests with 4xx.
"""

import io
import json
import sys
import traceback
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment
from xml.sax.saxutils import escape

XML_NAMESPACES = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
    "route53": "https://route53.amazonaws.com/doc/2013-04-01/",
}


@dataclass(frozen=True)
class ApiCall:
    """The service and the operation of a request."""

    service: str
    operation: str
    """Of a REST API its method and path."""
    sends_json: bool

    @classmethod
    def parse(cls, environ: WSGIEnvironment, body: bytes) -> "ApiCall":
        scope = environ.get("HTTP_AUTHORIZATION", "").partition(",")[0].split("/")
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        action = parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
        return cls(
            service=scope[-2] if len(scope) > 2 else "",
            operation=target.rpartition(".")[2]
            or action
            or f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')}",
            sends_json=bool(target),
        )


def render_error(call: ApiCall, code: str, message: str) -> tuple[str, bytes]:
    """Returns the content type and the body of an error in the format of the call's service."""
    request_id = uuid.uuid4()
    if call.sends_json:
        return "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message}).encode()
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if call.service == "ec2":
        text = (
            f"<Response><Errors><Error>{error}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
    else:
        namespace = XML_NAMESPACES.get(call.service)
        attribute = f' xmlns="{namespace}"' if namespace else ""
        text = (
            f"<ErrorResponse{attribute}><Error><Type>Sender</Type>{error}</Error>"
            f"<RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return "text/xml", f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def answer_with_client_errors(application: WSGIApplication) -> WSGIApplication:
    """Wraps moto: its exceptions, its 5xx answers and its HTML pages become a 400 that names the operation."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        call = ApiCall.parse(environ, body)
        started: list[Any] = []

        def hold_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            started[:] = [status, headers]
            return lambda data: None

        environ["wsgi.input"] = io.BytesIO(body)
        try:
            content = b"".join(application(environ, hold_response))
        except Exception as error:
            if not isinstance(error, NotImplementedError):
                traceback.print_exc()
            return refuse(call, f"{type(error).__name__}: {error}", start_response)
        status, headers = started
        kind = next((value for name, value in headers if name.lower() == "content-type"), "")
        # The answer to HEAD has no content, whatever its type: S3's for a bucket or an object that does not exist.
        is_page = "html" in kind and environ["REQUEST_METHOD"] != "HEAD"
        if status.startswith("5") or (status.startswith("4") and is_page and call.service):
            return refuse(call, content.decode(errors="replace").strip() or status, start_response)
        start_response(status, headers)
        return [content]

    def refuse(call: ApiCall, reason: str, start_response: StartResponse) -> list[bytes]:
        operation = f"{call.service} {call.operation}".strip()
        print(
            f"{operation} is refused: the local cloud cannot serve it: {reason}", file=sys.stderr, flush=True
        )
        kind, content = render_error(
            call,
            "UnsupportedOperation",
            f"The local cloud cannot serve this request of {operation}: {reason}",
        )
        start_response("400 Bad Request", [("Content-Type", kind), ("Content-Length", str(len(content)))])
        return [content]

    return answer
