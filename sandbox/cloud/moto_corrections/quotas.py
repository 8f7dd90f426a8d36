"""The account's quotas: what Service Quotas returns, and what EC2 enforces."""

import json
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.servicequotas.models import ServiceQuotasBackend
from moto.servicequotas.responses import ServiceQuotasResponse

from sandbox.cloud.moto_corrections.correction import correct

VCPUS = 256
"""Running On-Demand Standard instances; an account that has been in use for a while. A new one has 5."""
ELASTIC_IPS = 20
"""Enough for the test clusters. A new account has 5."""
STANDARD_FAMILIES = "acdhimrtz"

_QUOTAS = {
    "L-1216C47A": ("Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances", VCPUS),
    "L-0263D0A3": ("EC2-VPC Elastic IPs", ELASTIC_IPS),
}


@correct(ServiceQuotasBackend, "get_service_quota")
def get_quota(get: Any, backend: Any, service_code: str, quota_code: str) -> dict[str, Any]:
    """GetServiceQuota returns the quotas of EC2 by code (Service Quotas console); moto knows those of VPC only."""
    if service_code != "ec2" or quota_code not in _QUOTAS:
        return get(backend, service_code, quota_code)
    return _describe_quota(backend, quota_code)


def serve_default_quota(response: Any) -> str:
    """GetAWSDefaultServiceQuota returns the default value of a quota; moto does not serve it."""
    request = json.loads(response.body)
    quota = response.backend.get_service_quota(request.get("ServiceCode"), request.get("QuotaCode"))
    return json.dumps({"Quota": quota})


setattr(ServiceQuotasResponse, "get_aws_default_service_quota", serve_default_quota)  # noqa: B010  (a class without the name)


@correct(ServiceQuotasBackend, "list_aws_default_service_quotas")
def list_quotas(list_defaults: Any, backend: Any, service_code: str) -> list[dict[str, Any]]:
    """ListAWSDefaultServiceQuotas returns the quotas of EC2, too."""
    if service_code != "ec2":
        return list_defaults(backend, service_code)
    return [_describe_quota(backend, code) for code in _QUOTAS]


def _describe_quota(backend: Any, code: str) -> dict[str, Any]:
    name, value = _QUOTAS[code]
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": f"arn:aws:servicequotas:{backend.region_name}:{backend.account_id}:ec2/{code}",
        "QuotaCode": code,
        "QuotaName": name,
        "Value": float(value),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }


def check_vcpus(backend: Any, instance_types: list[str]) -> None:
    """RunInstances and StartInstances answer VcpuLimitExceeded beyond the vCPUs of the quota (EC2 API error codes)."""
    running = [
        instance.instance_type
        for instance in backend.all_instances()
        if instance.state in ("pending", "running")
    ]
    if sum(map(_count_standard_vcpus, [*running, *instance_types])) > VCPUS:
        raise EC2ClientError(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {VCPUS} allows for the instance "
            "bucket that the specified instance type belongs to. Please visit "
            "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )


def _count_standard_vcpus(instance_type: str) -> int:
    """Returns the vCPUs of a type, 0 for families with other quotas (G, P, X, …)."""
    if instance_type[:1] not in STANDARD_FAMILIES or instance_type not in INSTANCE_TYPES:
        return 0
    vcpus: int = INSTANCE_TYPES[instance_type]["VCpuInfo"]["DefaultVCpus"]
    return vcpus
