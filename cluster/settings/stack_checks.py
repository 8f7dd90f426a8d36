"""Checks the stack's name and its default tags, which distinguish its resources from others in the same AWS account."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from cluster.settings.rules import parse_json

DEFAULT_TAGS = "aws:defaultTags"

# AWS allows 64 characters for the name of an IAM role. The program creates <project>-<stack>-load-balancer.
_MAX_PROJECT_AND_STACK = 64 - len("-load-balancer")

# The names and values that IAM allows. Other AWS services allow more.
_TAG_NAME = re.compile(r"(?!aws:)[\w .:/=+@-]{1,128}", re.IGNORECASE)
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")
# AWS allows 50 tags. The program adds Name.
_MAX_DEFAULT_TAGS = 49


def format_tag_path(tag: str) -> str:
    """Returns the configuration path of a default tag: `aws:defaultTags.tags.owner` for `owner`."""
    return f"{DEFAULT_TAGS}.tags.{tag}"


def format_tag_command(tag: str, value: str) -> str:
    """Returns the pulumi command that sets a default tag."""
    return f"pulumi config set --path {format_tag_path(tag)} {value}"


OWNER_TAG_COMMAND = format_tag_command("owner", "your-team")


def find_stack_problems(project: str, stack: str, default_tags: object) -> list[str]:
    """Returns what is wrong with a stack's name and default tags: a line per problem, each with its remedy.

    `default_tags` is the value of `aws:defaultTags` as the Pulumi engine passes it: an object or its JSON text.
    """
    problems: list[str] = []
    if len(stack) > (longest := _MAX_PROJECT_AND_STACK - len(f"{project}-")):
        problems.append(
            f"The stack name {stack} is too long for AWS names that start with {project}-{stack}: "
            f"give it at most {longest} characters with pulumi stack rename"
        )
    tags = read_tags(default_tags)
    for tag, expected in (("project", project), ("stack", stack)):
        if tag not in tags:
            problems.append(f"{format_tag_path(tag)} is not set: {format_tag_command(tag, expected)}")
        elif str(tags[tag]) != expected:  # YAML reads a stack name such as 2026 as a number.
            problems.append(
                f"{format_tag_path(tag)} is {json.dumps(tags[tag])}: {format_tag_command(tag, expected)}"
            )
    if tags.get("owner") in (None, ""):
        problems.append(f"{format_tag_path('owner')} is not set: {OWNER_TAG_COMMAND}")
    for tag, value in tags.items():
        if tag not in ("project", "stack", "expiry") and not _TAG_VALUE.fullmatch(str(value)):
            problems.append(
                f"{format_tag_path(tag)} is {json.dumps(value, ensure_ascii=False)}, which AWS does not allow: "
                "give at most 256 letters, digits, spaces and _ . : / = + - @"
            )
        if not _TAG_NAME.fullmatch(tag):
            problems.append(
                f"{format_tag_path(tag)} has a name that AWS does not allow: give at most 128 letters, digits, spaces "
                "and _ . : / = + - @, without aws: at its start"
            )
    # IAM ignores case in the names of tags.
    folded = [tag.casefold() for tag in tags]
    problems += [
        f"{format_tag_path(tag)} differs from another tag only in upper and lower case, which AWS does not allow: remove one"
        for tag in tags
        if folded.count(tag.casefold()) > 1 or (tag.casefold() == "name" and tag != "Name")
    ]
    if len(tags) > _MAX_DEFAULT_TAGS:
        problems.append(
            f"{DEFAULT_TAGS}.tags has {len(tags)} tags, but AWS allows {_MAX_DEFAULT_TAGS} beside Name: remove some"
        )
    if "expiry" in tags and parse_expiry(tags["expiry"]) is None:
        problems.append(
            f"{format_tag_path('expiry')} is {json.dumps(tags['expiry'])}: give a UTC time to the second, "
            f"quoted if you edit the file: {format_tag_command('expiry', '2026-11-22T04:00:00Z')}"
        )
    return problems


def parse_expiry(text: object) -> datetime | None:
    """Returns the time of an `expiry` tag, or None if the value is not a time.

    The format is RFC 3339 in UTC to the second: `2026-11-22T04:00:00Z`.
    """
    try:
        time = datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return time if f"{time:%Y-%m-%dT%H:%M:%SZ}" == text else None


def read_tags(default_tags: object) -> Mapping[str, Any]:
    """Returns the tags of `aws:defaultTags` by name; empty if the value has no tags.

    `default_tags` is an object or its JSON text.
    """
    value = parse_json(default_tags)
    tags = cast(Mapping[str, Any], value).get("tags") if isinstance(value, dict) else None
    return cast(Mapping[str, Any], tags) if isinstance(tags, dict) else {}
