"""Publishes a report as a comment on the job's pull request, or as an issue, and updates it on later runs.

The report's first line is a marker such as `<!-- ant-media-cluster preview: dev -->`. A later run finds the comment or
issue by its marker, among those of the token's own user.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from operations.forge.api import (
    ForgeError,
    NotFoundError,
    github_repository,
    gitlab_project,
    is_github_job,
    require_variable,
    retry_while_unavailable,
)

_MARKER = re.compile(r"<!-- ant-media-cluster [^<>\r\n]+ -->")


@dataclass(frozen=True)
class Post:
    """A comment or an issue."""

    path: str
    """Path in the API."""
    text: str


class Forge(Protocol):
    """Comments of the job's pull request and open issues of its repository. Lists only posts of the token's user."""

    def list_comments(self) -> Iterator[Post]: ...
    def add_comment(self, text: str) -> None: ...
    def update_comment(self, comment: Post, text: str) -> None: ...
    def list_open_issues(self) -> Iterator[Post]: ...
    def open_issue(self, title: str, text: str) -> None: ...
    def update_issue(self, issue: Post, text: str, *, close: bool) -> None: ...


class GitHub:
    def __init__(self) -> None:
        self._api = github_repository("{issues: write, pull-requests: write}")

    def _get_login(self) -> str:
        # The token of a job has no access to /user of the REST API.
        url = os.environ.get("GITHUB_GRAPHQL_URL", "https://api.github.com/graphql")
        answer = self._api.with_url(url).request("POST", "", {"query": "query { viewer { login } }"})
        login: str = answer["data"]["viewer"]["login"]
        return login

    def _comments_path(self) -> str:
        ref = require_variable("GITHUB_REF", "GitHub sets it in every job")
        if not (pull := re.fullmatch(r"refs/pull/(\d+)/\w+", ref)):
            raise ForgeError(
                f"GITHUB_REF is {ref}: no pull request to comment on; run this in a job of a pull request"
            )
        return f"/issues/{pull[1]}/comments"

    def list_comments(self) -> Iterator[Post]:
        login = self._get_login()
        for page in self._api.list_pages(self._comments_path()):
            for comment in page:
                if _get_author(comment.get("user"), "login") == login:
                    yield Post(f"/issues/comments/{comment['id']}", comment.get("body") or "")

    def add_comment(self, text: str) -> None:
        self._api.request("POST", self._comments_path(), {"body": text})

    def update_comment(self, comment: Post, text: str) -> None:
        self._api.request("PATCH", comment.path, {"body": text})

    def list_open_issues(self) -> Iterator[Post]:
        login = self._get_login()
        for page in self._api.list_pages("/issues?state=open"):
            for issue in page:
                if _get_author(issue.get("user"), "login") == login:
                    yield Post(f"/issues/{issue['number']}", issue.get("body") or "")

    def open_issue(self, title: str, text: str) -> None:
        self._api.request("POST", "/issues", {"title": title, "body": text})

    def update_issue(self, issue: Post, text: str, *, close: bool) -> None:
        self._api.request("PATCH", issue.path, {"body": text, **({"state": "closed"} if close else {})})


class GitLab:
    def __init__(self) -> None:
        hint = "set a project access token (scope api, role Reporter) as a masked variable"
        self._api = gitlab_project("GITLAB_TOKEN", "PRIVATE-TOKEN", hint)

    def _get_user_id(self) -> int:
        url = require_variable("CI_API_V4_URL", "GitLab sets it in every job")
        user_id: int = self._api.with_url(url).request("GET", "/user")["id"]
        return user_id

    def _notes_path(self) -> str:
        number = require_variable(
            "CI_MERGE_REQUEST_IID", "no merge request to comment on; run this in a job of a merge request"
        )
        return f"/merge_requests/{number}/notes"

    def list_comments(self) -> Iterator[Post]:
        user_id = self._get_user_id()
        for page in self._api.list_pages(f"{self._notes_path()}?sort=asc"):
            for note in page:
                if _get_author(note.get("author"), "id") == user_id:
                    yield Post(f"{self._notes_path()}/{note['id']}", note.get("body") or "")

    def add_comment(self, text: str) -> None:
        self._api.request("POST", self._notes_path(), {"body": text})

    def update_comment(self, comment: Post, text: str) -> None:
        self._api.request("PUT", comment.path, {"body": text})

    def list_open_issues(self) -> Iterator[Post]:
        user_id = self._get_user_id()
        for page in self._api.list_pages("/issues?state=opened"):
            for issue in page:
                if _get_author(issue.get("author"), "id") == user_id:
                    yield Post(f"/issues/{issue['iid']}", issue.get("description") or "")

    def open_issue(self, title: str, text: str) -> None:
        self._api.request("POST", "/issues", {"title": title, "description": text})

    def update_issue(self, issue: Post, text: str, *, close: bool) -> None:
        self._api.request(
            "PUT", issue.path, {"description": text, **({"state_event": "close"} if close else {})}
        )


def _get_author(user: dict[str, Any] | None, key: str) -> object:
    """Returns a key of the author; None when the author's account was deleted."""
    return user and user.get(key)


def _connect() -> Forge:
    return GitHub() if is_github_job() else GitLab()


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip()


def _check_marker(report: str) -> None:
    if not _MARKER.fullmatch(_first_line(report)):
        raise ForgeError(
            "the report's first line is no marker (<!-- ant-media-cluster … -->): nothing was published"
        )


def publish_comment(report: str) -> str:
    """Adds or updates the comment with the report's marker. Returns what was done."""
    _check_marker(report)
    forge = _connect()
    return retry_while_unavailable(lambda: _publish_comment(forge, report))


def _publish_comment(forge: Forge, report: str) -> str:
    for comment in forge.list_comments():
        if _first_line(comment.text) == _first_line(report):
            try:
                forge.update_comment(comment, report)
            except NotFoundError:  # deleted since it was listed
                break
            return "updated the comment"
    forge.add_comment(report)
    return "added a comment"


def publish_issue(report: str, title: str, *, resolved: bool) -> str:
    """Opens, updates or, when resolved, closes the issue with the report's marker. Returns what was done."""
    _check_marker(report)
    forge = _connect()
    return retry_while_unavailable(lambda: _publish_issue(forge, report, title, resolved=resolved))


def _publish_issue(forge: Forge, report: str, title: str, *, resolved: bool) -> str:
    for issue in forge.list_open_issues():
        if _first_line(issue.text) == _first_line(report):
            forge.update_issue(issue, report, close=resolved)
            return "closed the issue" if resolved else "updated the issue"
    if resolved:
        return "no issue is open, and none is needed"
    forge.open_issue(title, report)
    return "opened an issue"
