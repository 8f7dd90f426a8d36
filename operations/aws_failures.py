"""Recognizes AWS's own failures: credentials, permissions, throttling and network."""

import re
from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class AwsFailure:
    """A failure of AWS, which says nothing about the stack."""

    summary: str
    remedy: str
    action: str = ""
    """The refused or throttled action, such as `ec2:DescribeInstances`, if it is known."""

    def __str__(self) -> str:
        return f"{self.summary}{f' ({self.action})' if self.action else ''}: {self.remedy}"


_CALLER = "aws sts get-caller-identity"
# boto3, the AWS SDK for Go in the provider, and the state's S3 backend word the same failure differently. The first match counts.
_FAILURES = [
    (
        r"ExpiredToken|RequestExpired|(token|session)[^.:]* (has|is|have) (now )?expired|sso session .*(expired|invalid)|"
        r"SSOToken|TokenRetrievalError|InvalidGrantException",
        "the AWS session has expired",
        "log in again with aws sso login, or set a new AWS_SESSION_TOKEN (aws:token, if the stack's settings have one)",
    ),
    (
        r"Unable to locate credentials|No valid credential sources|NoCredential|failed to refresh cached credentials|"
        r"no EC2 IMDS role|Partial credentials|retrieving credentials|CredentialRetrieval|"
        r"(config )?profile \S+ could not be found|failed to get shared config profile",
        "there are no AWS credentials",
        f"log in with aws sso login or aws configure, or set AWS_PROFILE; {_CALLER} checks them",
    ),
    (
        r"InvalidClientTokenId|UnrecognizedClient|AuthFailure|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidSignature|"
        r"IncompleteSignature|MissingAuthenticationToken|OptInRequired.*not signed up",
        "AWS does not accept the credentials",
        f"check them, and this machine's clock, with {_CALLER}",
    ),
    (
        r"UnauthorizedOperation|Access ?Denied|not authorized to perform|\bForbidden\b",
        "AWS refuses a call for lack of permission",
        f"{_CALLER} shows who calls; docs/aws has the permissions of each role",
    ),
    (
        r"RequestLimitExceeded|Throttl|TooManyRequests|Rate exceeded|\bSlowDown\b|PriorRequestNotComplete",
        "AWS limits the rate of calls",
        "wait a minute, then run this again",
    ),
    (
        r"Could not connect to the endpoint|[Cc]onnect(ion)? timeout|Read timeout|Connection was closed|"
        r"exceeded maximum number of attempts|dial tcp|no such host|i/o timeout|TLS handshake timeout|"
        r"must specify a region|Invalid endpoint",
        "AWS does not answer",
        "check this machine's network and proxy, and the region (aws:region)",
    ),
]
_ACTION = re.compile(
    r"not authorized to perform: (?P<action>[\w-]+:\w+)|operation error (?P<service>\w+): (?P<call>\w+)"
    r"|when calling the (?P<operation>\w+) operation"
)


def explain_aws_error(error: Exception) -> str:
    """Returns an error of boto3 on one line, with a remedy where there is one."""
    failure = find_aws_failure(f"{type(error).__name__} {error}")
    return str(failure or _without_encoded_message(str(error)))


def find_aws_failure(text: str) -> AwsFailure | None:
    """Returns the failure that an error message of boto3 or Pulumi reports, or `None` for any other message."""
    text = _without_encoded_message(text)
    for pattern, summary, remedy in _FAILURES:
        if re.search(pattern, text):
            return AwsFailure(summary, remedy, _find_action(text))
    return None


def is_aws_error(error: BaseException) -> bool:
    """True for errors of boto3. Does not import it, which takes long."""
    return type(error).__module__.partition(".")[0] in ("boto3", "botocore")


def is_not_found(error: Exception) -> bool:
    """True if a `ClientError` says that a resource does not exist."""
    code = str(cast(Any, error).response["Error"]["Code"])
    return "NotFound" in code or code.startswith("NoSuch")


def _find_action(text: str) -> str:
    match = _ACTION.search(text)
    if match is None:
        return ""
    if match["service"]:
        return f"{match['service'].lower()}:{match['call']}"
    return match["action"] or match["operation"]


def _without_encoded_message(text: str) -> str:
    """Removes the encoded part of EC2's refusals, which is long and unreadable."""
    return re.sub(r"\.? ?Encoded authorization failure message: \S+", "", text)
