"""The policy documents of docs/aws, held against AWS's own list of actions, resources and condition keys.

That they are enough for what the cluster asks of AWS shows at the end of the end-to-end tests.
"""

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.project import PROJECT

FOLDER = PROJECT / "docs/aws"
PERMISSIONS = ("preview-permissions", "deploy-permissions", "state-permissions", "stack-removal-permissions")
CFN_LINT = find_spec("cfnlint")  # moto brings it; to import it takes seconds
assert CFN_LINT
assert CFN_LINT.origin
AWS: dict[str, Any] = json.loads(
    (Path(CFN_LINT.origin).parent / "data/AdditionalSpecs/Policies.json").read_text()
)


def statements(document: str) -> list[dict[str, Any]]:
    policy = json.loads((FOLDER / f"{document}.json").read_text())
    assert policy["Version"] == "2012-10-17"
    return policy["Statement"]


def several(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def types_of(action: str) -> list[str]:
    """Of resources that the action may be allowed on; none where AWS only knows all or nothing."""
    service, name = action.split(":")
    known = AWS[service]["Actions"].get(name.lower())
    assert known is not None, f"AWS has no {action}"
    return [name.lower() for name in several(known.get("Resources", []))]


def type_of(arn: str) -> str:
    """`arn:aws:ec2:REGION:ACCOUNT:subnet/*` is of a subnet, as the list of that service says."""
    service, _, _, resource = arn.split(":", 5)[2:]
    if service == "s3":  # whose names say nothing
        return "object" if "/" in resource else "bucket"
    for name, known in AWS[service]["Resources"].items():
        for form in several(known["ARNFormats"]):
            if re.fullmatch(form.split(":", 5)[5], resource):
                return name.lower()
    raise AssertionError(f"AWS has no resource {arn}")


def granted(document: str) -> Iterator[tuple[dict[str, Any], str]]:
    for statement in statements(document):
        for action in several(statement["Action"]):
            yield statement, action


@pytest.mark.parametrize("document", PERMISSIONS)
def test_a_document_names_actions_that_there_are_on_resources_that_they_have(document: str) -> None:
    for statement, action in granted(document):
        assert "*" not in action
        types = types_of(action)
        for arn in several(statement["Resource"]):
            if arn != "*" and not arn.endswith(":*/*"):
                # Each resource is of use to some action, each action has some resource here.
                assert type_of(arn) in {t for a in several(statement["Action"]) for t in types_of(a)}, arn
        assert any(
            arn == "*" or arn.endswith(":*/*") or type_of(arn) in types
            for arn in several(statement["Resource"])
        ), f"{statement['Sid']} never allows {action}"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_a_document_is_within_the_size_that_aws_takes(path: Path) -> None:
    # Without white space: 6,144 characters of a managed policy, 2,048 of a trust policy. The names that stand for
    # yours become longer.
    length = len(re.sub(r"\s", "", path.read_text()))
    assert length < (1_500 if path.stem.startswith("trust") else 5_500)


def test_a_preview_only_reads_and_reads_no_secret() -> None:
    for _, action in granted("preview-permissions"):
        assert re.match(r"\w+:(Describe|List|Get)[A-Z]", action), action
        assert action not in ("secretsmanager:GetSecretValue", "ec2:GetPasswordData", "ec2:GetConsoleOutput")


def test_what_is_written_is_the_stacks_own() -> None:
    own = {"aws:ResourceTag/project": "ant-media-cluster", "aws:ResourceTag/stack": "STACK"}
    asked = {"aws:RequestTag/project": "ant-media-cluster", "aws:RequestTag/stack": "STACK"}
    if_tagged = {
        "StringEqualsIfExists": {"aws:ResourceTag/project": "ant-media-cluster"},
        "StringLikeIfExists": {"aws:ResourceTag/stack": "STACK"},
    }
    without_tags = {"image", "network-interface", "security-group-rule", "volume"}
    for statement, action in granted("deploy-permissions"):
        resources = several(statement["Resource"])
        keys = {key: value for keys in statement.get("Condition", {}).values() for key, value in keys.items()}
        if re.search(r":(Describe|List|Get)", action):
            continue
        if all("ant-media-cluster-STACK-" in arn or "ZONE" in arn for arn in resources):
            continue
        certain = not any("IfExists" in operator for operator in statement.get("Condition", {}))
        if (certain and keys.items() >= own.items()) or (
            action == "ec2:CreateTags" and keys.items() >= asked.items()
        ):
            continue
        if keys.items() >= asked.items():
            # Tags that are asked for say nothing of what it is made in or with.
            made = {"RunInstances": "instance", "AllocateAddress": "elastic-ip"}.get(action[4:]) or re.sub(
                r"(?<=[a-z])(?=[A-Z])", "-", action.removeprefix("ec2:Create")
            ).lower()
            assert {type_of(arn) for arn in resources} & {*types_of(action)} == {made}, action
            continue
        assert {type_of(arn) for arn in resources} <= without_tags, f"{statement['Sid']}: {action}"
        # What another stack has tagged is not for this one; an image may be anybody's.
        if resources != ["arn:aws:ec2:REGION::image/*"]:
            assert statement["Condition"] == if_tagged, f"{statement['Sid']}: {action}"
        # Never on these alone: the same call needs something that is tagged.
        assert {*types_of(action)} - without_tags, action


def test_of_the_state_only_the_lock_is_deleted_but_where_the_stack_itself_goes() -> None:
    deleted = {
        document: [
            arn.split(".pulumi/")[1].split("/")[0]
            for statement, action in granted(document)
            if action == "s3:DeleteObject"
            for arn in several(statement["Resource"])
        ]
        for document in PERMISSIONS
    }
    assert {document: of for document, of in deleted.items() if of} == {
        "state-permissions": ["locks"],
        "stack-removal-permissions": ["stacks", "history"],
    }


def test_a_role_goes_to_machines_only_and_names_are_all_that_is_left_to_fill_in() -> None:
    passing = [statement for statement, action in granted("deploy-permissions") if action == "iam:PassRole"]
    assert [one["Condition"] for one in passing] == [
        {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    ]
    for path in FOLDER.glob("*.json"):
        names = {*re.findall(r"(?<![A-Za-z])[A-Z]{4,}(?![A-Za-z])", path.read_text())}
        assert names <= {
            "ACCOUNT",
            "REGION",
            "STACK",
            "ZONE",
            "DOMAIN",
            "BUCKET",
            "OWNER",
            "REPOSITORY",
            "SUBJECT",
        }


def test_what_scripts_ask_of_aws_themselves_is_allowed_too() -> None:
    allowed = {action.lower() for document in PERMISSIONS for _, action in granted(document)}
    text = "".join(path.read_text() for path in (FOLDER.parents[1] / "operations").rglob("*.py"))
    asked = [
        *re.findall(r'account\("(\w+)"\)\.(\w+)\(', text),
        *(("ec2", name) for name in re.findall(r'"(describe_\w+)"', text)),
    ]
    assert len(asked) > 10
    for service, name in asked:
        assert f"{service}:{name.replace('_', '')}" in allowed
