import json

import pytest

from cluster.settings.stack_checks import stack_problems

TAGS = {"project": "ant-media-cluster", "stack": "dev", "owner": "media-team"}


def problems(name: str = "dev", **tags: object) -> list[str]:
    given = {key: value for key, value in {**TAGS, **tags}.items() if value is not None}
    return [
        problem.removeprefix("aws:defaultTags.tags.")
        for problem in stack_problems("ant-media-cluster", name, {"tags": given})
    ]


def test_a_stack_with_its_own_tags_and_any_others_will_do():
    assert problems() == []
    assert problems(expiry="2026-11-22T04:00:00Z", costCentre=4711) == []
    # What looks like a number on the command line is one in the file.
    assert problems("2026", stack=2026, owner=7) == []


def test_every_tag_that_is_missing_is_told_with_the_command_that_sets_it():
    set_it = "is not set: pulumi config set --path aws:defaultTags.tags."
    everything = [
        f"aws:defaultTags.tags.project {set_it}project ant-media-cluster",
        f"aws:defaultTags.tags.stack {set_it}stack dev",
        f"aws:defaultTags.tags.owner {set_it}owner your-team",
    ]
    for nothing in (None, "", "oops", "[]", '{"tags": null}', {"tags": ["stack"]}, {"keys": TAGS}):
        assert stack_problems("ant-media-cluster", "dev", nothing) == everything, nothing


def test_the_tags_of_another_stack_are_refused():
    assert problems("dev2") == ['stack is "dev": pulumi config set --path aws:defaultTags.tags.stack dev2']
    assert problems(project="ant-media") == [
        'project is "ant-media": pulumi config set --path aws:defaultTags.tags.project ant-media-cluster'
    ]
    assert problems(owner="") == [
        "owner is not set: pulumi config set --path aws:defaultTags.tags.owner your-team"
    ]


def test_a_tag_has_a_value_that_aws_takes():
    for value in ("Équipe média", "a_b.c:d/e=f+g-h@i 7", "ö" * 256):
        assert problems(owner=value, costCentre=value) == [], value
    does = "which AWS does not take: give letters, digits, spaces and _ . : / = + - @, at most 256 in all"
    for value in ("R&D", "you, me", "a\tb", "team\n", "#1", "ö" * 257):
        shown = json.dumps(value, ensure_ascii=False)
        assert problems(owner=value) == [f"owner is {shown}, {does}"]
        assert problems(costCentre=value) == [f"costCentre is {shown}, {does}"]
    assert problems(costCentre={"a": 1}) == [f'costCentre is {{"a": 1}}, {does}']


@pytest.mark.parametrize(
    "expiry",
    ["", "4h", "2026-11-22", "2026-11-22T04:00:00", "2026-11-22T04:00:00+00:00", "2026-11-22T04:00Z",
     "2026-11-22T4:00:00Z", "2026-11-31T04:00:00Z", "2026-11-22 04:00:00 +0000 UTC", 20261122, None, []],
)  # fmt: skip
def test_an_expiry_is_a_time_in_utc_to_the_second(expiry: object):
    (problem,) = stack_problems("ant-media-cluster", "dev", {"tags": TAGS | {"expiry": expiry}})
    assert problem.startswith("aws:defaultTags.tags.expiry is ")
    assert problem.endswith(
        ": give a time in UTC to the second, in the file in quotes: "
        "pulumi config set --path aws:defaultTags.tags.expiry 2026-11-22T04:00:00Z"
    )


def test_a_stacks_name_leaves_room_in_the_names_of_aws():
    most = "a" * 32
    assert problems(most, stack=most) == []
    assert len(f"ant-media-cluster-{most}-load-balancer") == 64
    assert problems(f"{most}a", stack=f"{most}a") == [
        f"The stack's name is {most}a, too long for the names in AWS that begin with ant-media-cluster-{most}a: "
        "give it at most 32 characters by pulumi stack rename"
    ]
