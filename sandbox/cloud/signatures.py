"""Verifies AWS Signature Version 4: signs a request again with botocore and compares the signatures."""

import enum
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from botocore import credentials as botocore_credentials
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest, HTTPHeaders

from sandbox.cloud.credentials import Credentials

MAX_CLOCK_SKEW = timedelta(minutes=15)


class ErrorCode(enum.Enum):
    """AWS error codes: the code in XML APIs and the code in JSON APIs."""

    UNSIGNED = "MissingAuthenticationToken", "MissingAuthenticationTokenException"
    INCOMPLETE = "IncompleteSignature", "IncompleteSignatureException"
    UNKNOWN_TOKEN = "InvalidClientTokenId", "UnrecognizedClientException"
    EXPIRED_TOKEN = "ExpiredToken", "ExpiredTokenException"
    WRONG_SIGNATURE = "SignatureDoesNotMatch", "InvalidSignatureException"
    DENIED = "AccessDenied", "AccessDeniedException"


class RefusedError(Exception):
    """A request fails authentication or authorization."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Request:
    """An HTTP request."""

    method: str
    target: str
    """Path and query as sent, still encoded."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class _SignatureChecker(SigV4Auth):
    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        return request.headers  # only those that the client signed


class _S3SignatureChecker(S3SigV4Auth):
    """S3 does not normalize paths."""

    def headers_to_sign(self, request: AWSRequest) -> HTTPHeaders:
        return request.headers


def verify(
    request: Request, scope: str, find: Callable[[str], Credentials | None], now: datetime
) -> Credentials:
    """Returns the credentials that signed a request; raises RefusedError if the signature is invalid.

    `scope` is region and service: eu-west-1/secretsmanager. `find` returns credentials by access key.
    """
    if not (authorization := request.headers.get("authorization")):
        raise RefusedError(ErrorCode.UNSIGNED, "Request is missing Authentication Token")
    parts = dict(re.findall(r"(Credential|SignedHeaders|Signature)=([^,\s]+)", authorization))
    signed = parts.get("SignedHeaders", "").split(";")
    date = request.headers.get("x-amz-date", "")
    access_key, _, credential_scope = parts.get("Credential", "").partition("/")
    if (
        not authorization.startswith("AWS4-HMAC-SHA256 ")
        or not (access_key and credential_scope and parts.get("Signature"))
        or not re.fullmatch(r"\d{8}T\d{6}Z", date)
        or any(name not in request.headers for name in signed)
    ):
        raise RefusedError(ErrorCode.INCOMPLETE, f"Authorization header is not complete: {authorization}")

    credentials = find(access_key)
    if credentials is None or not hmac.compare_digest(
        request.headers.get("x-amz-security-token", "").encode(), credentials.token.encode()
    ):
        raise RefusedError(ErrorCode.UNKNOWN_TOKEN, "The security token included in the request is invalid.")
    if now > credentials.expires:
        raise RefusedError(ErrorCode.EXPIRED_TOKEN, "The security token included in the request is expired")

    required = {"host", *(name for name in request.headers if name.startswith("x-amz-"))}
    if unsigned := required - set(signed):
        raise _wrong_signature(f"Headers of the request are not signed: {', '.join(sorted(unsigned))}")
    if credential_scope != f"{date[:8]}/{scope}/aws4_request":
        raise _wrong_signature(f"Credential should be scoped to {scope}, not {credential_scope}.")
    if abs(now - datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)) > MAX_CLOCK_SKEW:
        raise _wrong_signature(
            f"Signature expired: {date} is more than 15 min. away from {now:%Y%m%dT%H%M%SZ}"
        )
    digest = hashlib.sha256(request.body).hexdigest()
    signed_digests = {digest, "UNSIGNED-PAYLOAD"} if scope.endswith("/s3") else {digest}
    if request.headers.get("x-amz-content-sha256", digest) not in signed_digests:
        raise _wrong_signature("The provided 'x-amz-content-sha256' header does not match what was computed.")
    if not hmac.compare_digest(_signature(request, signed, date, scope, credentials), parts["Signature"]):
        raise _wrong_signature(
            "The request signature we calculated does not match the signature you provided."
            " Check your AWS Secret Access Key and signing method."
        )
    return credentials


def _signature(request: Request, signed: list[str], date: str, scope: str, credentials: Credentials) -> str:
    region, service = scope.split("/")
    checker = _S3SignatureChecker if service == "s3" else _SignatureChecker
    signer = checker(
        botocore_credentials.Credentials(credentials.access_key, credentials.secret_key), service, region
    )
    unsigned = AWSRequest(
        method=request.method,
        url=f"https://{request.headers['host']}{request.target}",
        headers={name: request.headers[name] for name in signed},
        data=request.body,
    )
    unsigned.context["timestamp"] = date
    to_sign = signer.string_to_sign(unsigned, signer.canonical_request(unsigned))
    return str(signer.signature(to_sign, unsigned))


def _wrong_signature(message: str) -> RefusedError:
    return RefusedError(ErrorCode.WRONG_SIGNATURE, message)
