"""A fake forge over real HTTP. It implements the parts of GitHub's and GitLab's APIs that `operations/` uses."""

import io
import json
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

TOKEN = "a-token-that-must-not-be-printed"
BOT = {"login": "github-actions[bot]", "id": 41}
OTHER_USER = {"login": "somebody", "id": 7}


@dataclass
class FakeForge:
    comments: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    issues: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    artifacts: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    environments: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    packages: dict[str, bytes] = field(default_factory=dict[str, bytes])
    requests: list[str] = field(default_factory=list[str])
    """Method and path of every request that was received."""
    failures: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Beginning of a request and the status that its next occurrence gets. A POST still takes effect."""
    storage_saw_token: bool = False
    url: str = ""

    def add_comment(self, body: str, author: dict[str, Any]) -> dict[str, Any]:
        comment = {"id": 1000 + len(self.comments), "body": body, "user": author, "author": author}
        self.comments.append(comment)
        return comment

    def list_comments_of(self, author: dict[str, Any]) -> list[str]:
        return [comment["body"] for comment in self.comments if comment["user"] == author]

    def handle(
        self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, Any]:
        """Returns the status and the JSON of a response."""
        parts = [part for part in path.split("/") if part]
        match method, parts:
            case "POST", ["graphql"]:
                return 200, {"data": {"viewer": {"login": BOT["login"]}}}
            case "GET", ["user"]:
                return 200, BOT
            case _, ["repos", "org", "cluster", *rest] | ["projects", "5", *rest]:
                return self._handle_project(method, rest, query, body)
            case _:
                return 404, {"message": "Not Found"}

    def _handle_project(
        self, method: str, rest: list[str], query: dict[str, list[str]], body: dict[str, Any]
    ) -> tuple[int, Any]:
        match method, rest:
            case "GET", ["issues", "12", "comments"] | ["merge_requests", "12", "notes"]:
                return 200, self.comments
            case "POST", ["issues", "12", "comments"] | ["merge_requests", "12", "notes"]:
                return 201, self.add_comment(body["body"], BOT)
            case "PATCH" | "PUT", ["issues", "comments", number] | ["merge_requests", "12", "notes", number]:
                return self._update(self.comments, "id", number, body)
            case "GET", ["issues"]:
                return 200, [issue for issue in self.issues if issue["state"] in query["state"]]
            case "POST", ["issues"]:
                number = len(self.issues) + 1
                state = "opened" if "description" in body else "open"
                self.issues.append(
                    {"number": number, "iid": number, "user": BOT, "author": BOT, "state": state, **body}
                )
                return 201, self.issues[-1]
            case "PATCH" | "PUT", ["issues", number]:
                return self._update(self.issues, "number", number, body)
            case "GET", ["actions", "artifacts"]:
                return 200, {"artifacts": [item for item in self.artifacts if item["name"] in query["name"]]}
            case "GET", ["environments", name] if name in self.environments:
                return 200, self.environments[name]
            case "GET", ["packages", "generic", *file] if "/".join(file) in self.packages:
                return 200, self.packages["/".join(file)]
            case _:
                return 404, {"message": "Not Found"}

    @staticmethod
    def _update(posts: list[dict[str, Any]], key: str, number: str, body: dict[str, Any]) -> tuple[int, Any]:
        for post in posts:
            if str(post[key]) == number:
                if post["user"] != BOT:
                    return 403, {"message": "Resource not accessible by integration"}
                post.update(body)
                if body.get("state_event") == "close":
                    post["state"] = "closed"
                return 200, post
        return 404, {"message": "Not Found"}


def serve(forge: FakeForge) -> Callable[[], None]:
    """Starts the forge on a free local port and returns the function that stops it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # send headers and body in one packet

        def _handle(self) -> None:
            split = urlsplit(self.path)
            query = parse_qs(split.query)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            forge.requests.append(f"{self.command} {self.path}")
            token = {self.headers.get(name) for name in ("Authorization", "PRIVATE-TOKEN", "JOB-TOKEN")} - {
                None
            }
            if split.path == "/storage":  # the storage host of artifacts refuses the forge's token
                forge.storage_saw_token = bool(token)
                return self._send(400 if token else 200, _zip_plan(query["of"][0]))
            failure = next((item for item in forge.failures if forge.requests[-1].startswith(item[0])), None)
            if failure:
                forge.failures.remove(failure)
            if failure and self.command != "POST":
                return self._send(failure[1], {"message": "Server Error"})
            if token not in ({TOKEN}, {f"Bearer {TOKEN}"}):
                return self._send(401, {"message": "Bad credentials"})
            if split.path.endswith("/zip"):
                return self._send(
                    302, b"", {"Location": f"{forge.url}/storage?of={split.path.split('/')[-2]}"}
                )
            status, content = forge.handle(self.command, split.path, query, body)
            headers: dict[str, str] = {}
            if isinstance(content, list):
                content, headers = self._paginate(split.path, query, content)
            if failure:
                return self._send(failure[1], {"message": "Server Error"})
            return self._send(status, content, headers)

        def _paginate(
            self, path: str, query: dict[str, list[str]], items: list[Any]
        ) -> tuple[list[Any], dict[str, str]]:
            """Returns 30 items a page by default and 100 at most, as GitHub does."""
            size = min(int(query.get("per_page", ["30"])[0]), 100)
            page = int(query.get("page", ["1"])[0])
            shown = items[(page - 1) * size : page * size]

            def format_link(to: int, relation: str) -> str:
                parameters = {name: values[0] for name, values in query.items()}
                return f'<{forge.url}{path}?{urlencode({**parameters, "page": to})}>; rel="{relation}"'

            links = [format_link(1, "first")]
            if page * size < len(items):
                links.append(format_link(page + 1, "next"))
            return shown, {"Link": ", ".join(links)}

        def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def __getattr__(self, name: str) -> Callable[[], None]:
            if name.startswith("do_"):
                return self._handle
            raise AttributeError(name)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    forge.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop


def _zip_plan(artifact: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("dev.plan.json", f'{{"plan": {artifact}}}')
    return content.getvalue()
