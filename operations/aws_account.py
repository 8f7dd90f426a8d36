"""Calls AWS as a stack's provider does."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import boto3
from botocore.config import Config

from cluster.aws_filters import split_filter_values
from operations.stack_state import StackState

# boto3's own limits add up to minutes when an endpoint does not answer.
_LIMITS = Config(connect_timeout=5, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 3})


class AwsClients:
    """Creates boto3 clients with the region, credentials and endpoints of an AWS provider's inputs."""

    def __init__(self, provider: Mapping[str, Any]) -> None:
        # Inputs that are not strings are JSON in strings.
        endpoints: list[dict[str, str]] = json.loads(provider.get("endpoints") or "[]")
        self._endpoints = {service: url for entry in endpoints for service, url in entry.items()}
        self._session: Any = boto3.Session(
            aws_access_key_id=provider.get("accessKey"),
            aws_secret_access_key=provider.get("secretKey"),
            aws_session_token=provider.get("token"),
            region_name=provider.get("region"),
            profile_name=provider.get("profile"),
        )
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        if service not in self._clients:
            endpoint = self._endpoints.get(service)
            self._clients[service] = self._session.client(service, endpoint_url=endpoint, config=_LIMITS)
        return self._clients[service]


def describe_instances(aws: AwsClients, state: StackState) -> list[Mapping[str, Any]]:
    """Returns what AWS knows of the stack's instances. Terminated ones disappear after an hour."""
    found = _describe(aws, "describe_instances", "instance-id", state.instances, "Reservations")
    return [instance for reservation in found for instance in reservation["Instances"]]


def describe_rules(aws: AwsClients, state: StackState) -> list[Mapping[str, Any]]:
    """Returns the rules of the stack's security groups."""
    groups = state.security_groups
    return _describe(aws, "describe_security_group_rules", "group-id", groups, "SecurityGroupRules")


def _describe(
    aws: AwsClients, operation: str, filter: str, ids: Iterable[str], key: str
) -> list[Mapping[str, Any]]:
    ec2 = aws.client("ec2")
    found: list[Mapping[str, Any]] = []
    for values in split_filter_values(ids):
        pages = ec2.get_paginator(operation).paginate(Filters=[{"Name": filter, "Values": values}])
        found += [item for page in pages for item in page[key]]
    return found
