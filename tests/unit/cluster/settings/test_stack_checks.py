import json

import pytest

from cluster.settings.stack_checks import find_stack_problems

TAGS = {"project": "ant-media-cluster", "stack": "dev", "owner": "media-team"}


def problems(name: str = "dev", **tags: object) -> list[str]:
    given = {key: value for key, value in {**TAGS, **tags}.items() if value is not None}
    return [
        problem.removeprefix("aws:defaultTags.tags.")
        for problem in find_stack_problems("ant-media-cluster", name, {"tags": given})
    ]


def test_valid_tags_have_no_problems():
    assert problems() == []
    assert problems(expiry="2026-11-22T04:00:00Z", costCentre=4711) == []
    # YAML reads a value such as 2026 as a number.
    assert problems("2026", stack=2026, owner=7) == []


def test_each_missing_tag_is_reported_with_the_command_that_sets_it():
    set_it = "is not set: pulumi config set --path aws:defaultTags.tags."
    all_missing = [
        f"aws:defaultTags.tags.project {set_it}project ant-media-cluster",
        f"aws:defaultTags.tags.stack {set_it}stack dev",
        f"aws:defaultTags.tags.owner {set_it}owner your-team",
    ]
    for no_tags in (None, "", "oops", "[]", '{"tags": null}', {"tags": ["stack"]}, {"keys": TAGS}):
        assert find_stack_problems("ant-media-cluster", "dev", no_tags) == all_missing, no_tags


def test_the_tags_of_another_stack_are_refused():
    assert problems("dev2") == ['stack is "dev": pulumi config set --path aws:defaultTags.tags.stack dev2']
    assert problems(project="ant-media") == [
        'project is "ant-media": pulumi config set --path aws:defaultTags.tags.project ant-media-cluster'
    ]
    assert problems(owner="") == [
        "owner is not set: pulumi config set --path aws:defaultTags.tags.owner your-team"
    ]


def test_tag_values_must_be_allowed_by_aws():
    for value in ("Équipe média", "a_b.c:d/e=f+g-h@i 7", "ö" * 256):
        assert problems(owner=value, costCentre=value) == [], value
    problem = "which AWS does not allow: give at most 256 letters, digits, spaces and _ . : / = + - @"
    for value in ("R&D", "you, me", "a\tb", "team\n", "#1", "ö" * 257):
        shown = json.dumps(value, ensure_ascii=False)
        assert problems(owner=value) == [f"owner is {shown}, {problem}"]
        assert problems(costCentre=value) == [f"costCentre is {shown}, {problem}"]
    assert problems(costCentre={"a": 1}) == [f'costCentre is {{"a": 1}}, {problem}']


@pytest.mark.parametrize(
    "expiry",
    ["", "4h", "2026-11-22", "2026-11-22T04:00:00", "2026-11-22T04:00:00+00:00", "2026-11-22T04:00Z",
     "2026-11-22T4:00:00Z", "2026-11-31T04:00:00Z", "2026-11-22 04:00:00 +0000 UTC", 20261122, None, []],
)  # fmt: skip
def test_expiry_must_be_a_utc_time_to_the_second(expiry: object):
    (problem,) = find_stack_problems("ant-media-cluster", "dev", {"tags": TAGS | {"expiry": expiry}})
    assert problem.startswith("aws:defaultTags.tags.expiry is ")
    assert problem.endswith(
        ": give a UTC time to the second, quoted if you edit the file: "
        "pulumi config set --path aws:defaultTags.tags.expiry 2026-11-22T04:00:00Z"
    )


def test_a_stack_name_fits_into_aws_names():
    longest = "a" * 32
    assert problems(longest, stack=longest) == []
    assert len(f"ant-media-cluster-{longest}-load-balancer") == 64
    assert problems(f"{longest}a", stack=f"{longest}a") == [
        f"The stack name {longest}a is too long for AWS names that start with ant-media-cluster-{longest}a: "
        "give it at most 32 characters with pulumi stack rename"
    ]
