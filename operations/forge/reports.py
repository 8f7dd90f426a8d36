"""Publish a report as a comment on the pull request that a job runs for, or as an issue: one a report, kept up to date.

The report is Markdown on standard input. Its first line is a marker, `<!-- ant-media-cluster preview: dev -->`, by which
what was published before is found again: among all comments, however many, but only those of the token's own user.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from operations.forge.api import ForgeError, MissingError, github, gitlab, on_github, patiently, setting

MARKER = re.compile(r"<!-- ant-media-cluster [^<>\r\n]+ -->")


@dataclass(frozen=True)
class Post:
    """A comment or an issue of the token's user."""

    path: str
    text: str


class Forge(Protocol):
    def comments(self) -> Iterator[Post]: ...
    def add_comment(self, text: str) -> None: ...
    def change_comment(self, comment: Post, text: str) -> None: ...
    def open_issues(self) -> Iterator[Post]: ...
    def open_issue(self, title: str, text: str) -> None: ...
    def change_issue(self, issue: Post, text: str, *, close: bool) -> None: ...


class GitHub:
    def __init__(self) -> None:
        self._api = github("{issues: write, pull-requests: write}")

    def _me(self) -> str:
        # Of the token of a job, REST's /user knows nothing.
        url = os.environ.get("GITHUB_GRAPHQL_URL", "https://api.github.com/graphql")
        answer = self._api.at(url).ask("POST", "", {"query": "query { viewer { login } }"})
        login: str = answer["data"]["viewer"]["login"]
        return login

    def _thread(self) -> str:
        ref = setting("GITHUB_REF", "GitHub sets it in every job")
        if not (pull := re.fullmatch(r"refs/pull/(\d+)/\w+", ref)):
            raise ForgeError(
                f"GITHUB_REF is {ref}: this job runs for no pull request, so there is none to comment on"
            )
        return f"/issues/{pull[1]}/comments"

    def comments(self) -> Iterator[Post]:
        me = self._me()
        for page in self._api.pages(self._thread()):
            for comment in page:
                if _author(comment.get("user"), "login") == me:
                    yield Post(f"/issues/comments/{comment['id']}", comment.get("body") or "")

    def add_comment(self, text: str) -> None:
        self._api.ask("POST", self._thread(), {"body": text})

    def change_comment(self, comment: Post, text: str) -> None:
        self._api.ask("PATCH", comment.path, {"body": text})

    def open_issues(self) -> Iterator[Post]:
        me = self._me()
        for page in self._api.pages("/issues?state=open"):
            for issue in page:
                if _author(issue.get("user"), "login") == me:
                    yield Post(f"/issues/{issue['number']}", issue.get("body") or "")

    def open_issue(self, title: str, text: str) -> None:
        self._api.ask("POST", "/issues", {"title": title, "body": text})

    def change_issue(self, issue: Post, text: str, *, close: bool) -> None:
        self._api.ask("PATCH", issue.path, {"body": text, **({"state": "closed"} if close else {})})


class GitLab:
    def __init__(self) -> None:
        hint = "it takes a project access token of scope api and role Reporter, as a masked variable"
        self._api = gitlab("GITLAB_TOKEN", "PRIVATE-TOKEN", hint)

    def _me(self) -> int:
        me: int = self._api.at(setting("CI_API_V4_URL", "GitLab sets it in every job")).ask("GET", "/user")[
            "id"
        ]
        return me

    def _thread(self) -> str:
        number = setting(
            "CI_MERGE_REQUEST_IID", "this job runs for no merge request, so there is none to comment on"
        )
        return f"/merge_requests/{number}/notes"

    def comments(self) -> Iterator[Post]:
        me = self._me()
        for page in self._api.pages(f"{self._thread()}?sort=asc"):
            for note in page:
                if _author(note.get("author"), "id") == me:
                    yield Post(f"{self._thread()}/{note['id']}", note.get("body") or "")

    def add_comment(self, text: str) -> None:
        self._api.ask("POST", self._thread(), {"body": text})

    def change_comment(self, comment: Post, text: str) -> None:
        self._api.ask("PUT", comment.path, {"body": text})

    def open_issues(self) -> Iterator[Post]:
        me = self._me()
        for page in self._api.pages("/issues?state=opened"):
            for issue in page:
                if _author(issue.get("author"), "id") == me:
                    yield Post(f"/issues/{issue['iid']}", issue.get("description") or "")

    def open_issue(self, title: str, text: str) -> None:
        self._api.ask("POST", "/issues", {"title": title, "description": text})

    def change_issue(self, issue: Post, text: str, *, close: bool) -> None:
        self._api.ask("PUT", issue.path, {"description": text, **({"state_event": "close"} if close else {})})


def _author(user: dict[str, Any] | None, key: str) -> object:
    """Whose account is gone is nobody."""
    return user and user.get(key)


def first_line(text: str) -> str:
    return text.partition("\n")[0].strip()


def publish_comment(forge: Forge, report: str) -> str:
    for comment in forge.comments():
        if first_line(comment.text) == first_line(report):
            try:
                forge.change_comment(comment, report)
            except MissingError:  # somebody deleted it meanwhile
                break
            return "updated the comment"
    forge.add_comment(report)
    return "added a comment"


def publish_issue(forge: Forge, report: str, title: str, *, resolved: bool) -> str:
    for issue in forge.open_issues():
        if first_line(issue.text) == first_line(report):
            forge.change_issue(issue, report, close=resolved)
            return "closed the issue" if resolved else "updated the issue"
    if resolved:
        return "there is no issue, and nothing to open one for"
    forge.open_issue(title, report)
    return "opened an issue"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    forms = parser.add_subparsers(dest="form", required=True)
    forms.add_parser("comment", help="on the pull request, or merge request, that the job runs for")
    issue = forms.add_parser("issue", help="in the repository")
    issue.add_argument("title")
    issue.add_argument(
        "--resolved", action="store_true", help="the report says that all is well: close the issue"
    )
    chosen = parser.parse_args()

    report = sys.stdin.read()
    if not MARKER.fullmatch(first_line(report)):
        raise ForgeError(
            "the report's first line is no marker (<!-- ant-media-cluster … -->): nothing is published"
        )
    forge: Forge = GitHub() if on_github() else GitLab()
    if chosen.form == "comment":
        print(patiently(lambda: publish_comment(forge, report)))
    else:
        print(patiently(lambda: publish_issue(forge, report, chosen.title, resolved=chosen.resolved)))


if __name__ == "__main__":
    try:
        main()
    except ForgeError as error:
        sys.exit(f"publish_report: {error}")
