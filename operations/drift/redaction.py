"""Removes secrets from reports."""

import re
from collections.abc import Iterable

_REDACTED = "[secret]"

# Does not match ARNs, IAM actions and EC2's httpTokens, which a report must show.
_KEYS = r"pass(?:word|wd|phrase)|pwd|requirepass|masterauth|(?:api|access|private)[_-]?key|authorization|bearer|credential|(?<!http)token|(?<!:)secret(?!smanager)"
_SHOWN = r"arn:|(?:contents as deployed|other contents), not shown$"
_ASSIGNMENT = re.compile(
    rf"""(?i)((?:{_KEYS})[\w-]*["']?(?:[ \t]*[:=]|[ \t])[ \t"']*+|\bauth[ \t]+[^\s:]+:)(?!{_SHOWN})\S.*"""
)
_URL_USER = re.compile(r"://[^\s/]*@")


def redact_passwords(line: str) -> str:
    """Removes what looks like a password or key from a line. `redact_secrets` does not know passwords that were entered by hand."""
    return _ASSIGNMENT.sub(rf"\1{_REDACTED}", _URL_USER.sub(f"://{_REDACTED}@", line))


def redact_secrets(text: str, secrets: Iterable[str]) -> str:
    """Removes the given secrets of at least six characters from a text."""
    # The longest first, because a secret may contain another.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= 6:
            text = text.replace(secret, _REDACTED)
    return text
