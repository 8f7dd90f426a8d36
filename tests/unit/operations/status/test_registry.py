"""The cluster registry as `make status` judges it: by what each node sees of the others' live streams."""

from dataclasses import replace

import pytest

from operations.status.registry import (
    Application,
    Fault,
    Finding,
    Registry,
    find_faults,
    read_applications,
    read_standby,
)

ORIGIN = Application(
    key="k1", played=["live1", "live1_720p", "live1_adaptive"], live={"live1"}, is_complete=True
)
EDGE = Application(key="k1", live={"live1"}, is_complete=True)


def faults(**applications: Application) -> list[Finding]:
    return find_faults({node: {"LiveApp": application} for node, application in applications.items()})


def test_output_of_the_script_is_read() -> None:
    output = """\
=== LiveApp
key 5eed
plays live1.m3u8
plays live1_adaptive.m3u8
known [{"streamId":"live1","status":"broadcasting"},{"streamId":"camera","status":"finished"}]
known []
=== live
answer 500
"""
    assert read_applications(output) == {
        "LiveApp": Application("5eed", ["live1", "live1_adaptive"], {"live1"}, "200", is_complete=True),
        "live": Application(status="500"),
    }


def test_nodes_that_see_the_same_streams_have_no_fault() -> None:
    assert faults(origin1=ORIGIN, edge1=EDGE, edge2=EDGE) == []


@pytest.mark.parametrize(
    ("edge", "origin", "expected"),
    [
        # The registry was emptied: nobody knows the stream that the origin still plays.
        (
            replace(EDGE, live=set()),
            replace(ORIGIN, live=set(), played=["live1"]),
            [Finding(Fault.UNKNOWN, "origin1", "LiveApp/live1")],
        ),
        # The edge uses another registry.
        (replace(EDGE, live={"other"}), ORIGIN, [Finding(Fault.INVISIBLE, "edge1", "LiveApp/live1")]),
        (replace(EDGE, status="500"), ORIGIN, [Finding(Fault.UNREADABLE, "edge1", "LiveApp answers 500")]),
        (replace(EDGE, key="k2"), ORIGIN, [Finding(Fault.OTHER_KEY, "edge1", "LiveApp")]),
        # What cannot be compared is no fault: a closed REST API, more streams than were read, no key yet.
        (replace(EDGE, status="403", live=set()), ORIGIN, []),
        (replace(EDGE, live=set(), is_complete=False), ORIGIN, []),
        (replace(EDGE, key=""), ORIGIN, []),
        # A record that a crashed node left behind plays nowhere.
        (replace(EDGE, live={"live1", "stale"}), ORIGIN, []),
    ],
)
def test_node_that_the_registry_leaves_out_is_named(
    edge: Application, origin: Application, expected: list[Finding]
) -> None:
    edge2 = replace(EDGE, live=origin.live)
    assert faults(origin1=origin, edge1=edge, edge2=edge2) == expected


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("none\n", []),
        ("follows\n", []),
        (
            "leads\n",
            [
                "The database does not answer: its standby on the load balancer is the cluster registry until it is back."
            ],
        ),
        (
            "is not connected to the database\n",
            [
                "The standby of the cluster registry on the load balancer is not connected to the database. "
                "It could not replace a database that fails now."
            ],
        ),
    ],
)
def test_standby_that_leads_or_could_not_is_named(output: str, problem: list[str]) -> None:
    assert Registry(read_standby(output)).problems == problem


def test_each_node_has_one_sentence_for_each_fault() -> None:
    streams = [Finding(Fault.UNKNOWN, "origin1", f"LiveApp/live{number}") for number in range(7)]
    keys = [Finding(Fault.OTHER_KEY, "edge1", app) for app in ("LiveApp", "live")]
    assert Registry([*streams, *keys]).problems == [
        "origin1 has live streams that the cluster registry does not know: LiveApp/live0, LiveApp/live1, LiveApp/live2, "
        "LiveApp/live3, LiveApp/live4 and 2 more. Other nodes cannot play them until Ant Media Server on origin1 restarts.",
        "edge1 has another clusterCommunicationKey than most nodes (LiveApp, live): they reject its requests "
        "until Ant Media Server on edge1 restarts.",
    ]
