"""The way to the API: clients for the configured region and endpoints, and how its refusals are told."""

import json
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sandbox.plugins.properties import Properties, Value
from sandbox.plugins.provider import ProviderError

T = TypeVar("T")

TEXT_SETTINGS = frozenset({"region", "accessKey", "secretKey", "token", "profile", "version"})
FLAGS = frozenset(
    {
        "skipCredentialsValidation", "skipMetadataApiCheck", "skipRegionValidation", "skipRequestingAccountId",
        "insecure", "s3UsePathStyle",
    }
)  # fmt: skip
SETTINGS = TEXT_SETTINGS | FLAGS | {"endpoints", "defaultTags", "maxRetries"}


def region_of(settings: Properties) -> str:
    return str(
        settings.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    )


class Cloud:
    """The account as the provider's configuration describes it."""

    # How long a refusal because something else still depends on a resource is waited out, and a change of state.
    patience = 300.0
    # How long a refusal that may come from IAM's news not having reached all of AWS yet.
    propagation = 120.0

    def __init__(self, settings: Properties, cancelled: threading.Event | None = None) -> None:
        # Everything that is not text arrives as JSON in text, from the SDK and from the stack's file alike.
        self.settings: dict[str, Any] = {
            name: value if name in TEXT_SETTINGS or not isinstance(value, str) else json.loads(value)
            for name, value in settings.items()
        }
        self.region = region_of(settings)
        self.default_tags: dict[str, str] = (self.settings.get("defaultTags") or {}).get("tags") or {}
        self.cancelled = cancelled or threading.Event()
        self._making_clients = threading.Lock()
        if not self.settings.get("skipCredentialsValidation"):
            with told("validating provider credentials: retrieving caller identity from STS"):
                self._client("sts").get_caller_identity()

    def _client(self, service: str) -> Any:
        endpoints = {k: v for entry in self.settings.get("endpoints") or [] for k, v in entry.items()}
        with self._making_clients:
            return boto3.Session().client(
                service,
                region_name=self.region,
                endpoint_url=endpoints.get(service),
                aws_access_key_id=self.settings.get("accessKey"),
                aws_secret_access_key=self.settings.get("secretKey"),
                aws_session_token=self.settings.get("token"),
                verify=not self.settings.get("insecure", False),
                config=Config(
                    max_pool_connections=64,
                    retries={"mode": "standard", "max_attempts": 10},
                    user_agent_extra="Pulumi/1.0",  # so does the official one
                ),
            )

    @cached_property
    def ec2(self) -> Any:
        return self._client("ec2")

    @cached_property
    def route53(self) -> Any:
        return self._client("route53")

    @cached_property
    def iam(self) -> Any:
        return self._client("iam")

    @cached_property
    def secrets(self) -> Any:
        return self._client("secretsmanager")

    @cached_property
    def account(self) -> str:
        if self.settings.get("skipRequestingAccountId"):
            return ""
        with told("retrieving AWS account details"):
            return str(self._client("sts").get_caller_identity()["Account"])

    def arn(self, account: str, resource: str) -> str:
        return f"arn:aws:ec2:{self.region}:{account}:{resource}"

    def wait(self, for_what: str, done: Callable[[], bool]) -> None:
        deadline, pause = time.monotonic() + self.patience, 0.1
        while not done():
            if self.cancelled.is_set():
                raise ProviderError(f"waiting for {for_what}: context canceled")
            if time.monotonic() > deadline:
                raise ProviderError(f"waiting for {for_what}: timeout while waiting for state")
            time.sleep(pause)
            pause = min(pause * 1.5, 3.0)

    def when_free(self, what: str, delete: Callable[[], object]) -> None:
        """Deletes something, as soon as nothing depends on it any more; nothing left to delete is fine."""

        def deleted() -> bool:
            try:
                delete()
            except ClientError as problem:
                if is_gone(problem):
                    return True
                if code(problem) in ("DependencyViolation", "InvalidIPAddress.InUse"):
                    return False
                raise
            return True

        self.wait(f"{what} to be free of dependencies", deleted)

    @staticmethod
    def unless_gone(delete: Callable[[], object]) -> None:
        """Deletes something; nothing left to delete is fine."""
        try:
            delete()
        except ClientError as problem:
            if not is_gone(problem):
                raise

    def propagated(self, attempt: Callable[[], T], passes: Callable[[ClientError], bool]) -> T:
        """Tries again for as long as the refusal is one that may pass by itself; then that refusal is told."""
        deadline, pause = time.monotonic() + self.propagation, 0.1
        while True:
            try:
                return attempt()
            except ClientError as problem:
                if not passes(problem) or self.cancelled.is_set() or time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.5, 3.0)


def code(problem: ClientError) -> str:
    return str(problem.response.get("Error", {}).get("Code", ""))


def is_gone(problem: ClientError) -> bool:
    gone = ("NoSuchHostedZone", "NoSuchEntity", "Gateway.NotAttached")
    return "NotFound" in code(problem) or code(problem) in gone


def refusal(operation: str, error: str, message: str) -> ClientError:
    """AWS's answer where moto has another one, or none."""
    return ClientError(
        {"Error": {"Code": error, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": 400}}, operation
    )


def described(describe: Callable[[], list[dict[str, Any]]]) -> dict[str, Any] | None:
    """The one thing that a query by id finds, None when it is gone."""
    try:
        found = describe()
    except ClientError as problem:
        if is_gone(problem):
            return None
        raise
    return found[0] if found else None


@contextmanager
def told(doing: str) -> Generator[None]:
    """Turns what the API refuses into the official provider's words for it."""
    try:
        yield
    except ClientError as problem:
        answer = problem.response.get("ResponseMetadata", {})
        raise ProviderError(
            f"{doing}: operation error {problem.operation_name}, https response error "
            f"StatusCode: {answer.get('HTTPStatusCode', 0)}, RequestID: {answer.get('RequestId', '')}, "
            f"api error {code(problem)}: {problem.response.get('Error', {}).get('Message', '')}"
        ) from problem
    except BotoCoreError as problem:
        raise ProviderError(f"{doing}: {problem}") from problem


def renamed(properties: Value, names: Mapping[str, str]) -> dict[str, Any]:
    """Those of the properties that have a name in the API, under that name."""
    given = properties if isinstance(properties, dict) else {}
    return {names[name]: value for name, value in given.items() if name in names}


def tag_list(tags: object) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in (tags if isinstance(tags, dict) else {}).items()]


def tag_specifications(kind: str, tags: object) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": tag_list(tags)}] if tags else []


def tags_of(described: Mapping[str, Any]) -> Properties:
    return {
        tag["Key"]: tag["Value"] for tag in described.get("Tags", []) if not tag["Key"].startswith("aws:")
    }
