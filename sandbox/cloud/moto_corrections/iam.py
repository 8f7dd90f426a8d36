"""Roles and their inline policies."""

import re
from typing import Any

from moto.iam.exceptions import LimitExceededException
from moto.iam.models import IAMBackend
from moto.iam.policy_validation import IAMTrustPolicyDocumentValidator

from sandbox.cloud.moto_corrections.correction import correct

INLINE_POLICIES = 10240
"""Characters of all inline policies of a role without white space (IAM User Guide, "IAM and AWS STS quotas")."""


@correct(IAMBackend, "create_role")
def validate_trust_policy(
    create: Any, backend: Any, role_name: str, assume_role_policy_document: str, *args: Any, **options: Any
) -> Any:
    """CreateRole returns MalformedPolicyDocument for an invalid trust policy (IAM API); moto checks it only on update."""
    IAMTrustPolicyDocumentValidator(assume_role_policy_document).validate()
    return create(backend, role_name, assume_role_policy_document, *args, **options)


@correct(IAMBackend, "put_role_policy")
def limit_inline_policies(put: Any, backend: Any, role_name: str, policy_name: str, policy_json: str) -> None:
    """PutRolePolicy returns LimitExceeded if the role's inline policies become too large (IAM API)."""
    policies = {**backend.get_role(role_name).policies, policy_name: policy_json}
    if sum(len(re.sub(r"\s", "", text)) for text in policies.values()) > INLINE_POLICIES:
        raise LimitExceededException(
            f"Maximum policy size of {INLINE_POLICIES} bytes exceeded for role {role_name}"
        )
    put(backend, role_name, policy_name, policy_json)
