"""How the local cloud evaluates IAM policies."""

import dataclasses
from typing import Any

import pytest

from sandbox.cloud import iam_policies
from sandbox.cloud.aws_endpoints import normalize_record_name
from sandbox.cloud.iam_policies import AccessRequest

CHANGE = AccessRequest(
    "route53:ChangeResourceRecordSets",
    "arn:aws:route53:::hostedzone/Z1",
    {"route53:ChangeResourceRecordSetsRecordTypes": ["TXT", "TXT"]},
)
TYPES = "route53:ChangeResourceRecordSetsRecordTypes"


def statement(**changes: Any) -> dict[str, Any]:
    defaults = {"Effect": "Allow", "Action": CHANGE.action, "Resource": CHANGE.resource}
    return {key: value for key, value in {**defaults, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([statement()], True),
        ([], False),
        ([statement(Action="route53:*")], True),
        ([statement(Action=["route53:GetChange", "ROUTE53:change*Sets"])], True),
        ([statement(Action="route53:GetChange")], False),
        ([statement(Resource="arn:aws:route53:::hostedzone/*")], True),
        ([statement(Resource="arn:aws:route53:::hostedzone/Z?")], True),
        ([statement(Resource="arn:aws:route53:::hostedzone/z1")], False),
        ([statement(), statement(Effect="Deny", Action="*", Resource="*")], False),
        ([statement(Condition={"ForAllValues:StringEquals": {TYPES: ["A", "TXT"]}})], True),
        ([statement(Condition={"ForAllValues:StringEquals": {TYPES.lower(): "TXT"}})], True),
        ([statement(Condition={"ForAllValues:StringEquals": {TYPES: "T*"}})], False),
        ([statement(Condition={"ForAllValues:StringEquals": {TYPES: "A"}})], False),
    ],
)
def test_policies_are_evaluated_as_by_iam(statements: list[dict[str, Any]], expected: bool) -> None:
    assert iam_policies.is_allowed([{"Statement": statements}], CHANGE) is expected


@pytest.mark.parametrize(
    "unsupported",
    [
        statement(Condition={"StringEquals": {TYPES: "TXT"}}),
        statement(Condition={"ForAllValues:StringLike": {TYPES: "T*"}}),
        statement(Condition={"ForAllValues:StringEqualsIgnoreCase": {TYPES: "TXT"}}),
        statement(Condition={"ForAllValues:StringEquals": {"aws:SourceIp": "TXT"}}),
        statement(Resource=None, NotResource="arn:aws:route53:::hostedzone/Z2"),
    ],
)
def test_unsupported_policy_elements_are_denied_and_logged(
    unsupported: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not iam_policies.is_allowed([{"Statement": [statement(), unsupported]}], CHANGE)
    assert "the local cloud does not support" in capsys.readouterr().err


def test_one_forbidden_value_denies_the_whole_request() -> None:
    mixed = dataclasses.replace(CHANGE, context={TYPES: ["TXT", "A"]})
    only_txt = statement(Condition={"ForAllValues:StringEquals": {TYPES: "TXT"}})
    assert not iam_policies.is_allowed([{"Statement": [only_txt]}], mixed)


def test_record_names_are_normalized_as_by_iam() -> None:
    assert (
        normalize_record_name("_ACME-Challenge.Live.ant-media.test.") == "_acme-challenge.live.ant-media.test"
    )
    assert normalize_record_name("*.live.ant-media.test") == r"\052.live.ant-media.test"
