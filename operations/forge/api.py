"""The API of the forge that a job runs on, GitHub or GitLab. Standard library only: a job needs nothing installed for it."""

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

PAUSES = (1.0, 4.0, 15.0)
"""In seconds, between the tries at a forge that is not up to it just now."""


class ForgeError(Exception):
    """Why the forge did not do what it was asked to, in words for the job's log."""


class UnavailableError(ForgeError):
    """It may do so in a moment."""


class MissingError(ForgeError):
    """It has no such thing, or shows it to others only."""


@dataclass(frozen=True)
class Api:
    url: str
    """All paths begin here."""
    token_header: str
    token: str = field(repr=False)
    hint: str
    """What would do where the token may not."""

    def at(self, url: str) -> "Api":
        """Another address of the same forge."""
        return replace(self, url=url)

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Any:
        """The answer's JSON."""
        return json.loads(self.send(method, self.url + path, body)[0])

    def pages(self, path: str) -> Iterator[Any]:
        """Of a list, page by page to its end."""
        url = f"{self.url}{path}{'&' if '?' in path else '?'}per_page=100"
        while url:
            content, links = self.send("GET", url)
            yield json.loads(content)
            following = re.search(r'<([^<>]+)>;[^,<]*\brel="next"', links)
            url = following[1] if following else ""
            if url and urlsplit(url)[:2] != urlsplit(self.url)[:2]:
                raise ForgeError(f"{path} goes on at {url}, which is not at {self.url}")

    def send(self, method: str, url: str, body: Mapping[str, object] | None = None) -> tuple[bytes, str]:
        """The answer, and its Link header."""
        request = urllib.request.Request(
            url, None if body is None else json.dumps(body).encode(), method=method
        )
        request.add_header("Content-Type", "application/json")
        request.add_header("User-Agent", "ant-media-cluster")
        # A download leads on to another host, which has no business with the token.
        request.add_unredirected_header(self.token_header, self.token)
        what = f"{method} {urlsplit(url).path}"
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.read(), answer.headers.get("Link", "")
        except urllib.error.HTTPError as error:
            raise self._refusal(what, error) from None
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"{what}: {urlsplit(url).netloc} does not answer: {error}") from None

    def _refusal(self, what: str, error: urllib.error.HTTPError) -> ForgeError:
        said = _message(error.read())
        told = f"{what}: {error.code} {error.reason}" + (f" ({said})" if said else "")
        if error.code >= 500 or error.code == 429 or error.headers.get("Retry-After"):
            return UnavailableError(told)
        if error.code == 404:
            return MissingError(f"{told}: there is no such thing, or the token may not see it: {self.hint}")
        if error.code in (401, 403):
            return ForgeError(f"{told}: {self.hint}")
        return ForgeError(told)


def _message(answer: bytes) -> str:
    """GitHub says it in `message`, GitLab there or in `error`."""
    try:
        content: dict[str, object] = json.loads(answer)
        said = content.get("message") or content.get("error") or ""
    except (ValueError, AttributeError):
        return ""
    return " ".join(str(said).split())[:200]


def patiently(action: Callable[[], T], pauses: Sequence[float] = PAUSES) -> T:
    """Does all of it again where the forge was not up to it: what was made before it failed is then found."""
    for pause in pauses:
        try:
            return action()
        except UnavailableError:
            time.sleep(pause)
    return action()


def setting(name: str, purpose: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise ForgeError(f"{name} is not set: {purpose}")
    return value


def on_github() -> bool:
    if os.environ.get("GITHUB_ACTIONS"):
        return True
    if os.environ.get("GITLAB_CI"):
        return False
    raise ForgeError("neither GITHUB_ACTIONS nor GITLAB_CI is set: this runs in a job of GitHub or GitLab")


def github(permission: str) -> Api:
    """The API of the job's repository; `permission` is what a job needs for what is asked of it."""
    repository = setting("GITHUB_REPOSITORY", "GitHub sets it in every job")
    token = setting("GITHUB_TOKEN", "give the step env: {GITHUB_TOKEN: ${{ github.token }}}")
    url = os.environ.get("GITHUB_API_URL", "https://api.github.com")
    return Api(
        f"{url}/repos/{repository}",
        "Authorization",
        f"Bearer {token}",
        f"the job needs permissions: {permission}",
    )


def gitlab(variable: str, header: str, hint: str) -> Api:
    """The API of the job's project, with the token in `variable`."""
    url, project = (
        setting(name, "GitLab sets it in every job") for name in ("CI_API_V4_URL", "CI_PROJECT_ID")
    )
    return Api(f"{url}/projects/{project}", header, setting(variable, hint), hint)
