"""HTTP client for the REST API of GitHub or GitLab, on the standard library (docs/decisions/7-forge-clients.md)."""

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

_RETRY_DELAYS = (1.0, 4.0, 15.0)
"""Seconds before each retry."""


class ForgeError(Exception):
    """A request failed. The message is for the job's log."""


class UnavailableError(ForgeError):
    """The forge is down, overloaded or unreachable. A retry may succeed."""


class NotFoundError(ForgeError):
    """The resource does not exist, or the token has no access to it."""


@dataclass(frozen=True)
class Api:
    url: str
    """Base URL of all paths."""
    token_header: str
    token: str = field(repr=False)
    token_hint: str
    """Added to an error when the token lacks a permission: what the token needs."""

    def with_url(self, url: str) -> "Api":
        """Returns a client with another base URL and the same token."""
        return replace(self, url=url)

    def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """Sends a request and returns the JSON of the response."""
        return json.loads(self.send(method, self.url + path, body)[0])

    def list_pages(self, path: str) -> Iterator[Any]:
        """Yields the JSON of each page of a list."""
        url = f"{self.url}{path}{'&' if '?' in path else '?'}per_page=100"
        while url:
            content, links = self.send("GET", url)
            yield json.loads(content)
            next_link = re.search(r'<([^<>]+)>;[^,<]*\brel="next"', links)
            url = next_link[1] if next_link else ""
            if url and urlsplit(url)[:2] != urlsplit(self.url)[:2]:
                raise ForgeError(f"the next page of {path} is {url}, which is not on {self.url}")

    def send(self, method: str, url: str, body: Mapping[str, object] | None = None) -> tuple[bytes, str]:
        """Sends a request and returns the body and the Link header of the response."""
        request = urllib.request.Request(
            url, None if body is None else json.dumps(body).encode(), method=method
        )
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", "ant-media-cluster")
        # Downloads redirect to a storage host, which must not get the token.
        request.add_unredirected_header(self.token_header, self.token)
        label = f"{method} {urlsplit(url).path}"
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.read(), response.headers.get("Link", "")
        except urllib.error.HTTPError as error:
            raise self._to_forge_error(label, error) from None
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"{label}: {urlsplit(url).netloc} does not answer: {error}") from None

    def _to_forge_error(self, label: str, error: urllib.error.HTTPError) -> ForgeError:
        details = _read_error_message(error.read())
        message = f"{label}: {error.code} {error.reason}" + (f" ({details})" if details else "")
        if error.code >= 500 or error.code == 429 or error.headers.get("Retry-After"):
            return UnavailableError(message)
        if error.code == 404:
            return NotFoundError(
                f"{message}: it does not exist, or the token has no access: {self.token_hint}"
            )
        if error.code in (401, 403):
            return ForgeError(f"{message}: {self.token_hint}")
        return ForgeError(message)


def _read_error_message(body: bytes) -> str:
    """Returns the `message` (GitHub, GitLab) or `error` (GitLab) of a response; empty when it has neither."""
    try:
        content: dict[str, object] = json.loads(body)
        message = content.get("message") or content.get("error") or ""
    except (ValueError, AttributeError):
        return ""
    return " ".join(str(message).split())[:200]


def retry_while_unavailable(action: Callable[[], T]) -> T:
    """Calls `action` again from its beginning while the forge is unavailable.

    A failed POST may still have created a comment. The repeated action then finds and updates it.
    """
    for delay in _RETRY_DELAYS:
        try:
            return action()
        except UnavailableError:
            time.sleep(delay)
    return action()


def require_variable(name: str, hint: str) -> str:
    """Returns an environment variable. Raises `ForgeError` with `hint` when it is not set."""
    value = os.environ.get(name, "")
    if not value:
        raise ForgeError(f"{name} is not set: {hint}")
    return value


def is_github_job() -> bool:
    if os.environ.get("GITHUB_ACTIONS"):
        return True
    if os.environ.get("GITLAB_CI"):
        return False
    raise ForgeError("neither GITHUB_ACTIONS nor GITLAB_CI is set: run this in a job of GitHub or GitLab")


def github_repository(permissions: str) -> Api:
    """Returns a client for the job's repository. `permissions` are those that the job needs, for error messages."""
    repository = require_variable("GITHUB_REPOSITORY", "GitHub sets it in every job")
    token = require_variable("GITHUB_TOKEN", "give the step env: {GITHUB_TOKEN: ${{ github.token }}}")
    url = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    return Api(
        f"{url}/repos/{repository}",
        "Authorization",
        f"Bearer {token}",
        f"the job needs permissions: {permissions}",
    )


def gitlab_project(token_variable: str, token_header: str, token_hint: str) -> Api:
    """Returns a client for the job's project, with the token in an environment variable."""
    url, project = (
        require_variable(name, "GitLab sets it in every job") for name in ("CI_API_V4_URL", "CI_PROJECT_ID")
    )
    token = require_variable(token_variable, token_hint)
    return Api(f"{url}/projects/{project}", token_header, token, token_hint)
