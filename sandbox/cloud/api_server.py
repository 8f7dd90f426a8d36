"""The APIs of EC2, IAM, Route 53, S3, Secrets Manager, Service Quotas and STS: moto's server with corrections.

`python -m sandbox.cloud.api_server` serves them on a free port of 127.0.0.1, without machines, and prints the URL.
"""

import gc
import io
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from sandbox.cloud import addresses, host, moto_corrections
from sandbox.cloud.capacity import Capacity, describe_limit
from sandbox.cloud.moto_corrections.errors import ApiCall, answer_with_client_errors, render_error

CALLS = host.STATE / "aws/calls"


class Changes:
    """Records which API calls have changed something since the daemon last read the state."""

    def __init__(self) -> None:
        self.resources_changed = threading.Event()
        self.zones_changed = threading.Event()
        self._lock = threading.Lock()
        self._restarted: set[str] = set()

    def record(self, call: ApiCall, body: bytes) -> None:
        """Records one API call."""
        if call.service == "route53" and not call.operation.startswith("GET"):
            self.zones_changed.set()
        # The other services change nothing on machines and networks.
        if call.service != "ec2" or call.operation.startswith(("Describe", "Get")):
            return
        if call.operation in ("RebootInstances", "StopInstances"):
            query = parse_qs(body.decode(errors="replace"))
            with self._lock:
                self._restarted |= {ids[0] for name, ids in query.items() if name.startswith("InstanceId")}
        self.resources_changed.set()

    def take_restarted(self) -> set[str]:
        """Returns and clears the ids of instances for which a reboot or stop was requested."""
        with self._lock:
            taken, self._restarted = self._restarted, set()
        return taken


def create_application() -> WSGIApplication:
    """Returns moto with the corrections. Call it once in a process."""
    # All that moto loads stays, so collections would search it in vain.
    gc.disable()
    moto_corrections.apply()
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    gc.freeze()
    gc.enable()
    return answer_with_client_errors(DomainDispatcherApplication(create_backend_app))


def serve(changes: Changes) -> None:
    """Starts the API server of the cloud in threads of this process."""
    api, capacity = create_application(), Capacity()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body: bytes = environ["wsgi.input"].read(length)
        if len(body) < length:
            # The client was killed while it sent the request.
            start_response("400 Bad Request", [])
            return []
        environ["wsgi.input"] = io.BytesIO(body)
        call = ApiCall.parse(environ, body)
        # STS answers GetCallerIdentity without any permission, and many of S3's operations have the same method and path.
        if "pulumi" in environ.get("HTTP_USER_AGENT", "").lower() and call.service not in ("sts", "s3"):
            _record_provider_call(environ, call, CALLS)
        if call.operation == "RunInstances" and not capacity.reserve():
            kind, content = render_error(call, "InstanceLimitExceeded", describe_limit())
            start_response("400 Bad Request", [("Content-Type", kind), ("Content-Length", str(len(content)))])
            return [content]
        response = api(environ, start_response)
        changes.record(call, body)
        return response

    _listen(application, addresses.API, 5000)


def _listen(application: WSGIApplication, address: str, port: int) -> int:
    """Serves an application in threads of this process; returns the port."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    class QuietHandler(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def run_wsgi(self) -> None:
            """Answers a request. Connections stay open, as with AWS: werkzeug closes them, and clients send thousands of requests."""
            status, headers = "", list[tuple[str, str]]()

            def start_response(line: str, fields: list[tuple[str, str]], exc_info: Any = None) -> Any:
                nonlocal status, headers
                status, headers = line, fields

            content = b"".join(application(self.make_environ(), start_response))
            self.send_response(int(status[:3]), status[4:])
            for name, value in headers:
                self.send_header(name, value)
            has_content = self.command != "HEAD" and not status.startswith(("204", "304"))
            if has_content and "content-length" not in {name.lower() for name, _ in headers}:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if has_content:
                self.wfile.write(content)

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            """Suppresses access logs: the daemon's log is for errors."""

    server = make_server(address, port, application, threaded=True, request_handler=QuietHandler)
    threading.Thread(target=server.serve_forever, name="api", daemon=True).start()
    return server.port


def _record_provider_call(environ: WSGIEnvironment, call: ApiCall, log: Path) -> None:
    """Logs a call of the AWS provider; the end-to-end tests compare these calls with the permissions of CI's roles."""
    operation = "" if " " in call.operation else call.operation
    service = [call.service] if call.service else []
    with log.open("a") as calls:
        calls.write(" ".join([*service, environ["REQUEST_METHOD"], environ["PATH_INFO"], operation]) + "\n")


if __name__ == "__main__":
    print(f"http://127.0.0.1:{_listen(create_application(), '127.0.0.1', 0)}", flush=True)
    sys.stdin.read()  # until whoever started it is gone
