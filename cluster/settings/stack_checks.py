"""What tells a stack's resources from all others in one account: its name, and the tags that the aws provider gives."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from cluster.settings.rules import from_json

DEFAULT_TAGS = "aws:defaultTags"

# AWS allows the name of a role 64 characters, and that of the load balancer's is <project>-<stack>-load-balancer.
_LONGEST = 64 - len("-load-balancer")

# What IAM takes, which takes the least of all.
_TAG_VALUE = re.compile(r"[\w .:/=+@-]{0,256}")


def tag_key(tag: str) -> str:
    return f"{DEFAULT_TAGS}.tags.{tag}"


def how_to_tag(tag: str, value: str) -> str:
    return f"pulumi config set --path {tag_key(tag)} {value}"


HOW_TO_NAME_OWNER = how_to_tag("owner", "your-team")


def stack_problems(project: str, stack: str, default_tags: object) -> list[str]:
    """What is wrong with a stack's name and with its default tags as the engine hands them over, a line each."""
    problems: list[str] = []
    if len(stack) > (longest := _LONGEST - len(f"{project}-")):
        problems.append(
            f"The stack's name is {stack}, too long for the names in AWS that begin with {project}-{stack}: "
            f"give it at most {longest} characters by pulumi stack rename"
        )
    tags = tags_of(default_tags)
    for tag, own in (("project", project), ("stack", stack)):
        if tag not in tags:
            problems.append(f"{tag_key(tag)} is not set: {how_to_tag(tag, own)}")
        elif str(tags[tag]) != own:  # a number, where the stack's name is one
            problems.append(f"{tag_key(tag)} is {json.dumps(tags[tag])}: {how_to_tag(tag, own)}")
    if tags.get("owner") in (None, ""):
        problems.append(f"{tag_key('owner')} is not set: {HOW_TO_NAME_OWNER}")
    for tag, value in tags.items():
        if tag not in ("project", "stack", "expiry") and not _TAG_VALUE.fullmatch(str(value)):
            problems.append(
                f"{tag_key(tag)} is {json.dumps(value, ensure_ascii=False)}, which AWS does not take: "
                "give letters, digits, spaces and _ . : / = + - @, at most 256 in all"
            )
    if "expiry" in tags and parse_expiry(tags["expiry"]) is None:
        problems.append(
            f"{tag_key('expiry')} is {json.dumps(tags['expiry'])}: give a time in UTC to the second, "
            f"in the file in quotes: {how_to_tag('expiry', '2026-11-22T04:00:00Z')}"
        )
    return problems


def parse_expiry(text: object) -> datetime | None:
    """The time of an expiry tag, RFC 3339 in UTC to the second (2026-11-22T04:00:00Z); None for anything else."""
    try:
        time = datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return time if f"{time:%Y-%m-%dT%H:%M:%SZ}" == text else None


def tags_of(default_tags: object) -> Mapping[str, Any]:
    """By name, from default tags as the engine hands them over; none where they are something else."""
    given = from_json(default_tags)
    tags = cast(Mapping[str, Any], given).get("tags") if isinstance(given, dict) else None
    return cast(Mapping[str, Any], tags) if isinstance(tags, dict) else {}
