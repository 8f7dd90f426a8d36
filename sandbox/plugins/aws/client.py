"""botocore clients for the configured region and endpoints, and the official provider's error texts."""

import json
import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any, TypeVar

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from sandbox.plugins.properties import Properties, Value
from sandbox.plugins.provider import ProviderError

T = TypeVar("T")

TEXT_SETTINGS = frozenset({"region", "accessKey", "secretKey", "version"})
FLAGS = frozenset(
    {
        "s3UsePathStyle",
        "skipCredentialsValidation",
        "skipMetadataApiCheck",
        "skipRegionValidation",
        "skipRequestingAccountId",
    }
)
SETTINGS = TEXT_SETTINGS | FLAGS | {"endpoints", "defaultTags"}


def get_region(settings: Properties) -> str:
    """Returns the region of the settings or the environment, empty if neither has one."""
    return str(
        settings.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
    )


class AwsClient:
    """The clients of the configured account."""

    # Seconds to wait for a state, or for the deletion of dependent resources.
    wait_timeout = 300.0
    # Seconds to wait until an IAM change is visible in all of AWS.
    propagation_timeout = 120.0

    def __init__(self, settings: Properties, cancelled: threading.Event | None = None) -> None:
        # The SDK and the stack's file both pass other values than text as JSON.
        self.settings: dict[str, Any] = {
            name: value if name in TEXT_SETTINGS or not isinstance(value, str) else json.loads(value)
            for name, value in settings.items()
        }
        self.region = get_region(settings)
        self.default_tags: dict[str, str] = (self.settings.get("defaultTags") or {}).get("tags") or {}
        self.cancelled = cancelled or threading.Event()
        # Clients of one session share the files that it has read.
        self._session = Session()
        self._making_clients = threading.Lock()
        self.account = self._find_account()
        """The account id, empty with `skipRequestingAccountId`."""

    def _find_account(self) -> str:
        if self.settings.get("skipCredentialsValidation"):
            action = "retrieving AWS account details"
            if self.settings.get("skipRequestingAccountId"):
                return ""
        else:
            action = "validating provider credentials: retrieving caller identity from STS"
        with translate_errors(action):
            account = str(self._client("sts").get_caller_identity()["Account"])
        return "" if self.settings.get("skipRequestingAccountId") else account

    def merge_tags(self, tags: object) -> dict[str, str]:
        """Returns the tags of a resource in AWS: the provider's default tags, and the resource's own."""
        return {**self.default_tags, **(tags if isinstance(tags, dict) else {})}

    def _client(self, service: str) -> Any:
        endpoints = {k: v for entry in self.settings.get("endpoints") or [] for k, v in entry.items()}
        with self._making_clients:
            client = self._session.create_client(
                service,
                region_name=self.region,
                endpoint_url=endpoints.get(service.replace("-", "")),
                aws_access_key_id=self.settings.get("accessKey"),
                aws_secret_access_key=self.settings.get("secretKey"),
                config=Config(
                    max_pool_connections=64,
                    retries={"mode": "standard", "max_attempts": 10},
                    user_agent_extra="Pulumi/1.0",  # as the official provider
                    s3={"addressing_style": "path" if self.settings.get("s3UsePathStyle") else "virtual"},
                ),
            )
        client.meta.events.register("after-call", _note_service)
        return client

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
    def s3(self) -> Any:
        return self._client("s3")

    @cached_property
    def sts(self) -> Any:
        return self._client("sts")

    @cached_property
    def secrets(self) -> Any:
        return self._client("secretsmanager")

    @cached_property
    def quotas(self) -> Any:
        return self._client("service-quotas")

    def arn(self, account: str, resource: str) -> str:
        return f"arn:aws:ec2:{self.region}:{account}:{resource}"

    def own_tags(self, tags: Value, given: Value) -> Properties:
        """Returns the tags that are not the provider's default tags, or that the program gives too."""
        assert isinstance(tags, dict)
        given = given if isinstance(given, dict) else {}
        return {
            key: value
            for key, value in tags.items()
            if self.default_tags.get(key) != value or given.get(key) == value
        }

    def wait(self, for_what: str, done: Callable[[], bool]) -> None:
        """Waits until `done` returns true, at most `wait_timeout` seconds or until the run is cancelled."""
        deadline, pause = time.monotonic() + self.wait_timeout, 0.1
        while not done():
            if self.cancelled.is_set():
                raise ProviderError(f"waiting for {for_what}: context canceled")
            if time.monotonic() > deadline:
                raise ProviderError(f"waiting for {for_what}: timeout while waiting for state")
            time.sleep(pause)
            pause = min(pause * 1.5, 3.0)

    def delete_when_unused(self, what: str, delete: Callable[[], object]) -> None:
        """Deletes a resource, with retries while others depend on it. A missing resource is no error."""

        def deleted() -> bool:
            try:
                delete()
            except ClientError as problem:
                if is_not_found(problem):
                    return True
                if error_code(problem) in ("DependencyViolation", "InvalidIPAddress.InUse"):
                    return False
                raise
            return True

        self.wait(f"{what} to be free of dependencies", deleted)

    @staticmethod
    def ignore_not_found(delete: Callable[[], object]) -> None:
        """Calls `delete`. A missing resource is no error."""
        try:
            delete()
        except ClientError as problem:
            if not is_not_found(problem):
                raise

    def retry_until_propagated(self, attempt: Callable[[], T], passes: Callable[[ClientError], bool]) -> T:
        """Calls `attempt`, and again while `passes` accepts its error, at most `propagation_timeout` seconds."""
        deadline, pause = time.monotonic() + self.propagation_timeout, 0.1
        while True:
            try:
                return attempt()
            except ClientError as problem:
                if not passes(problem) or self.cancelled.is_set() or time.monotonic() > deadline:
                    raise
            time.sleep(pause)
            pause = min(pause * 1.5, 3.0)


def _note_service(parsed: dict[str, Any], model: Any, **_: Any) -> None:
    """Adds to an answer what the text of its error needs: the service, and whether the error is of the service's model."""
    metadata = parsed.setdefault("ResponseMetadata", {})
    metadata["Service"] = str(model.service_model.service_id)
    modeled = {str(shape.error_code) for shape in model.service_model.error_shapes}
    metadata["Modeled"] = parsed.get("Error", {}).get("Code") in modeled


def error_code(problem: ClientError) -> str:
    """Returns AWS's code of the error."""
    return str(problem.response.get("Error", {}).get("Code", ""))


def is_not_found(problem: ClientError) -> bool:
    """Returns whether the error says that the resource does not exist."""
    # A HEAD request of S3 has no body with a code, so boto3 gives its status.
    codes = ("NoSuchHostedZone", "NoSuchEntity", "NoSuchBucket", "Gateway.NotAttached", "404")
    return "NotFound" in error_code(problem) or error_code(problem) in codes


def api_error(operation: str, error: str, message: str, service: str = "EC2") -> ClientError:
    """Returns an error as AWS sends it, for a request that moto answers differently."""
    metadata = {"HTTPStatusCode": 400, "Service": service, "Modeled": service != "EC2"}
    return ClientError(
        {"Error": {"Code": error, "Message": message}, "ResponseMetadata": metadata}, operation
    )


def describe_one(describe: Callable[[], list[dict[str, Any]]]) -> dict[str, Any] | None:
    """Returns the first result of a query, or None if the resource does not exist."""
    try:
        found = describe()
    except ClientError as problem:
        if is_not_found(problem):
            return None
        raise
    return found[0] if found else None


@contextmanager
def translate_errors(action: str) -> Generator[None]:
    """Turns an API error into a ProviderError with the official provider's text."""
    try:
        yield
    except ClientError as problem:
        answer: dict[str, Any] = dict(problem.response.get("ResponseMetadata", {}))
        kind = "" if answer.get("Modeled") else "api error "
        raise ProviderError(
            f"{action}: operation error {answer.get('Service', '')}: {problem.operation_name}, https response error "
            f"StatusCode: {answer.get('HTTPStatusCode', 0)}, RequestID: {answer.get('RequestId', '')}, "
            f"{kind}{error_code(problem)}: {problem.response.get('Error', {}).get('Message', '')}"
        ) from problem
    except BotoCoreError as problem:
        raise ProviderError(f"{action}: {problem}") from problem


def list_errors(problem: ProviderError) -> str:
    """Returns the text of an error as the official provider lists it."""
    return f"1 error occurred:\n\t* {problem}\n\n"


def rename_keys(properties: Value, names: Mapping[str, str]) -> dict[str, Any]:
    """Returns the properties that `names` maps, under their names in the API."""
    given = properties if isinstance(properties, dict) else {}
    return {names[name]: value for name, value in given.items() if name in names}


def to_tag_list(tags: object) -> list[dict[str, str]]:
    """Returns the tags as the API takes them."""
    return [{"Key": key, "Value": value} for key, value in (tags if isinstance(tags, dict) else {}).items()]


def tag_specifications(api_type: str, tags: object) -> list[dict[str, Any]]:
    """Returns the tags of a new resource as the EC2 API takes them. `api_type` is EC2's name of the type."""
    return [{"ResourceType": api_type, "Tags": to_tag_list(tags)}] if tags else []


def get_tags(resource: Mapping[str, Any]) -> Properties:
    """Returns the tags of a described resource, without AWS's own."""
    return {tag["Key"]: tag["Value"] for tag in resource.get("Tags", []) if not tag["Key"].startswith("aws:")}
