"""What recovery reads out of a killed run's remains, and makes of them."""

import os
import socket
from typing import Any

import pytest

from operations.recovery.__main__ import Backend, runs, this_host
from operations.recovery.interrupted_update import (
    Lock,
    in_force,
    pending_creates,
    provider_of,
    read_lock,
    unknown,
    with_made,
)

LOCK = Lock(4711, "jane", "build-1", "2026-11-23T00:11:50+00:00", "s3://states/lock.json")
STACK = "urn:pulumi:dev::p::pulumi:pulumi:Stack::p-dev"
PROVIDER = "urn:pulumi:dev::p::pulumi:providers:aws::default"


def entry(type: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "urn": f"urn:pulumi:dev::p::{type}::{name}",
        "type": type,
        "custom": True,
        "parent": STACK,
        "provider": f"{PROVIDER}::1",
        "inputs": {"__defaults": [], "name": name},
        **more,
    }


INSTANCE = entry("aws:ec2/instance:Instance", "origin1")
GROUP = entry("aws:ec2/securityGroup:SecurityGroup", "nodes")
BEGINNING = [
    {"urn": STACK, "type": "pulumi:pulumi:Stack", "custom": False},
    {"urn": PROVIDER, "type": "pulumi:providers:aws", "custom": True, "id": "1", "inputs": {}},
]


def state(*pending: dict[str, Any], resources: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    operations = [{"type": "creating", "resource": one} for one in pending]
    return {"resources": BEGINNING + (resources or []), "pending_operations": operations}


def after(before: dict[str, Any], made: dict[str, list[str]]) -> list[dict[str, Any]]:
    """What is in the state beside its beginning."""
    healed = with_made(before, made)
    assert healed["pending_operations"] == []
    assert healed["resources"][:2] == BEGINNING
    return healed["resources"][2:]


def test_a_lock_says_whose_it_is() -> None:
    text = '{"pid":4711,"username":"jane","hostname":"build-1","timestamp":"2026-11-23T00:11:50.071376904Z"}'
    assert read_lock("s3://states/lock.json", text) == LOCK
    assert (
        str(LOCK) == "s3://states/lock.json: created by jane@build-1 (pid 4711) at 2026-11-23T00:11:50+00:00"
    )


def test_only_the_lock_of_a_dead_process_of_this_host_has_no_force() -> None:
    assert in_force([LOCK], "build-1", runs=lambda _: False) == []
    assert in_force([LOCK], "build-1", runs=lambda _: True) == [LOCK]
    assert in_force([LOCK], "laptop", runs=lambda _: False) == [LOCK]
    assert in_force([LOCK], None, runs=lambda _: False) == [LOCK]


def test_the_name_of_a_job_s_machine_says_nothing_of_a_state_that_others_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket, folder = Backend("s3://states", "p"), Backend("file:///states", "p")
    monkeypatch.delenv("CI", raising=False)
    assert this_host(bucket) == this_host(folder) == socket.gethostname()
    monkeypatch.setenv("CI", "true")
    assert (this_host(bucket), this_host(folder)) == (None, socket.gethostname())


def test_a_process_that_took_over_the_number_is_not_the_engine() -> None:
    assert not runs(os.getpid())


def test_nothing_but_creations_of_real_resources_is_looked_up() -> None:
    deleting = {"type": "deleting", "resource": INSTANCE}
    component = entry("ant-media:media:MediaNodes", "origins", custom=False)
    before = state(GROUP, component)
    before["pending_operations"].append(deleting)
    assert pending_creates(before) == [GROUP]
    assert pending_creates({}) == []


def test_the_provider_of_a_pending_creation_is_the_one_that_it_names() -> None:
    assert provider_of(state(), INSTANCE) == BEGINNING[1]
    assert provider_of(state(), {**INSTANCE, "provider": f"{PROVIDER}::2"}) is None


def test_a_profile_by_the_name_of_a_role_is_another_thing() -> None:
    role, profile = "aws:iam/role:Role", "aws:iam/instanceProfile:InstanceProfile"
    before = state(resources=[entry(role, "role", id="cluster-load-balancer")])
    assert unknown(before, role, ["cluster-load-balancer"]) == []
    assert unknown(before, profile, ["cluster-load-balancer"]) == ["cluster-load-balancer"]


def test_what_was_made_is_taken_up_with_its_inputs_for_outputs() -> None:
    (taken,) = after(state(INSTANCE), {INSTANCE["urn"]: ["i-1"]})
    assert (taken["urn"], taken["id"]) == (INSTANCE["urn"], "i-1")
    assert taken["outputs"] == {"name": "origin1", "id": "i-1"}
    assert "delete" not in taken


def test_what_was_not_made_is_forgotten() -> None:
    assert after(state(INSTANCE), {}) == []


def test_a_group_that_still_lets_everything_out_is_made_anew() -> None:
    (marked,) = after(state(GROUP), {GROUP["urn"]: ["sg-1"]})
    assert (marked["id"], marked["delete"]) == ("sg-1", True)


def test_one_too_many_goes_and_the_one_that_the_state_has_stays() -> None:
    known = {**INSTANCE, "id": "i-1", "outputs": {}}
    kept, marked = after(state(INSTANCE, resources=[known]), {INSTANCE["urn"]: ["i-2"]})
    assert kept == known
    assert (marked["id"], marked["delete"]) == ("i-2", True)
    first, second = after(state(INSTANCE), {INSTANCE["urn"]: ["i-1", "i-2"]})
    assert (first["id"], first.get("delete"), second["id"], second["delete"]) == ("i-1", None, "i-2", True)


def test_a_replacement_takes_the_place_of_what_was_deleted_for_it() -> None:
    gone = {**INSTANCE, "id": "i-1", "pendingReplacement": True}
    dependent = entry("command:remote:Command", "scripts", dependencies=[INSTANCE["urn"]])
    new, last = after(state(INSTANCE, resources=[gone, dependent]), {INSTANCE["urn"]: ["i-2"]})
    assert (new["id"], new.get("pendingReplacement")) == ("i-2", None)
    assert last == dependent


def test_what_is_taken_up_depends_on_nothing_that_the_state_lacks() -> None:
    there, missing = GROUP["urn"], "urn:pulumi:dev::p::aws:ec2/subnet:Subnet::gone"
    depending = {
        **INSTANCE,
        "dependencies": [there, missing],
        "propertyDependencies": {"subnetId": [missing], "groups": [there], "ami": None},
    }
    _, taken = after(state(depending, resources=[{**GROUP, "id": "sg-1"}]), {INSTANCE["urn"]: ["i-1"]})
    assert taken["dependencies"] == [there]
    assert taken["propertyDependencies"] == {"subnetId": [], "groups": [there], "ami": []}
