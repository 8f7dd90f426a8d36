"""Recovery after an interrupted run: its locks, and the pending operations of its state."""

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from operations.recovery import locks
from operations.recovery.interrupted_update import (
    drop_tracked_ids,
    find_pending_creates,
    find_provider,
    import_created_resources,
)
from operations.recovery.locks import (
    Backend,
    Lock,
    find_valid_locks,
    is_engine_running,
    read_lock,
    unique_host_name,
)
from operations.recovery.untracked_resources import get_tags

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
STACK_AND_PROVIDER = [
    {"urn": STACK, "type": "pulumi:pulumi:Stack", "custom": False},
    {"urn": PROVIDER, "type": "pulumi:providers:aws", "custom": True, "id": "1", "inputs": {}},
]


def state(*pending: dict[str, Any], resources: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    operations = [{"type": "creating", "resource": one} for one in pending]
    return {"resources": STACK_AND_PROVIDER + (resources or []), "pending_operations": operations}


def resources_after(before: dict[str, Any], created_ids: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Returns the resources of the repaired state without the stack and its provider."""
    after = import_created_resources(before, created_ids)
    assert after["pending_operations"] == []
    assert after["resources"][:2] == STACK_AND_PROVIDER
    return after["resources"][2:]


def test_lock_names_its_owner() -> None:
    text = '{"pid":4711,"username":"jane","hostname":"build-1","timestamp":"2026-11-23T00:11:50.071376904Z"}'
    assert read_lock("s3://states/lock.json", text) == LOCK
    assert (
        str(LOCK) == "s3://states/lock.json: created by jane@build-1 (pid 4711) at 2026-11-23T00:11:50+00:00"
    )


INCOMPLETE_LOCKS = ["", "{", '{"pid": 4711}', "[]", '{"pid":1,"username":"","hostname":"","timestamp":"x"}']


@pytest.mark.parametrize("text", INCOMPLETE_LOCKS)
def test_incomplete_lock_is_no_lock_and_is_removed(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ".pulumi/locks/organization/p/dev"
    folder.mkdir(parents=True)
    (folder / "valid.json").write_text(
        '{"pid":4711,"username":"jane","hostname":"build-1","timestamp":"2026-11-23T00:11:50Z"}'
    )
    (folder / "incomplete.json").write_text(text)
    backend = Backend(f"file://{tmp_path}", "p")
    assert [lock.user for lock in backend.read_locks("dev")] == ["jane"]
    backend.remove_incomplete_files("dev")
    assert [file.name for file in folder.iterdir()] == ["valid.json"]
    assert "incomplete.json" in capsys.readouterr().out


def test_incomplete_lock_in_a_bucket_is_an_error_with_the_command_that_removes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, "_read_objects", lambda *_: [("s3://states/lock.json", "{")])
    with pytest.raises(
        SystemExit, match=r"s3://states/lock.json is not a complete lock.*pulumi cancel --yes dev"
    ):
        Backend("s3://states", "p").read_locks("dev")


def test_lock_is_stale_only_if_its_process_ended_on_unique_host_name() -> None:
    assert find_valid_locks([LOCK], "build-1", is_running=lambda _: False) == []
    assert find_valid_locks([LOCK], "build-1", is_running=lambda _: True) == [LOCK]
    assert find_valid_locks([LOCK], "laptop", is_running=lambda _: False) == [LOCK]
    assert find_valid_locks([LOCK], None, is_running=lambda _: False) == [LOCK]


def test_host_name_of_a_ci_job_is_not_unique_in_a_shared_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket, folder = Backend("s3://states", "p"), Backend("file:///states", "p")
    monkeypatch.delenv("CI", raising=False)
    assert unique_host_name(bucket) == unique_host_name(folder) == socket.gethostname()
    monkeypatch.setenv("CI", "true")
    assert (unique_host_name(bucket), unique_host_name(folder)) == (None, socket.gethostname())


def test_another_process_with_the_same_pid_is_not_the_engine() -> None:
    assert not is_engine_running(os.getpid())


def test_pending_creates_exclude_components_and_other_operations() -> None:
    deleting = {"type": "deleting", "resource": INSTANCE}
    component = entry("ant-media:media:MediaNodes", "origins", custom=False)
    before = state(GROUP, component)
    before["pending_operations"].append(deleting)
    assert find_pending_creates(before) == [GROUP]
    assert find_pending_creates({}) == []


def test_provider_is_found_by_its_reference() -> None:
    assert find_provider(state(), INSTANCE) == STACK_AND_PROVIDER[1]
    assert find_provider(state(), {**INSTANCE, "provider": f"{PROVIDER}::2"}) is None


def test_id_is_tracked_only_by_a_resource_of_the_same_type() -> None:
    role, profile = "aws:iam/role:Role", "aws:iam/instanceProfile:InstanceProfile"
    before = state(resources=[entry(role, "role", id="cluster-load-balancer")])
    assert drop_tracked_ids(before, role, ["cluster-load-balancer"]) == []
    assert drop_tracked_ids(before, profile, ["cluster-load-balancer"]) == ["cluster-load-balancer"]


def test_created_resource_is_imported_with_its_inputs_as_outputs() -> None:
    (imported,) = resources_after(state(INSTANCE), {INSTANCE["urn"]: ["i-1"]})
    assert (imported["urn"], imported["id"]) == (INSTANCE["urn"], "i-1")
    assert imported["outputs"] == {"name": "origin1", "id": "i-1"}
    assert "delete" not in imported


@pytest.mark.parametrize(
    "tags",
    [
        {"tags": {"Name": "x", "stack": "dev"}, "tagsAll": {"Name": "x", "stack": "dev"}},
        {"tags": {"Name": "x", "stack": "dev"}},
        {"tags": {"Name": "x"}, "tagsAll": {"Name": "x", "stack": "dev"}},
        {},
    ],
    ids=["provider v6", "provider v6 with tags only", "provider v7", "security group rule"],
)
def test_imported_resource_has_the_tags_that_the_provider_checked(tags: dict[str, Any]) -> None:
    inputs = {"__defaults": [], "name": "origin1", **tags}
    (imported,) = resources_after(state({**INSTANCE, "inputs": inputs}), {INSTANCE["urn"]: ["i-1"]})
    assert imported["inputs"] == inputs
    assert imported["outputs"] == {"name": "origin1", "id": "i-1", **tags}
    assert get_tags(imported["inputs"]) == ({"Name": "x", "stack": "dev"} if tags else {})


def test_pending_create_without_a_resource_is_dropped() -> None:
    assert resources_after(state(INSTANCE), {}) == []


def test_security_group_is_marked_for_deletion() -> None:
    (marked,) = resources_after(state(GROUP), {GROUP["urn"]: ["sg-1"]})
    assert (marked["id"], marked["delete"]) == ("sg-1", True)


def test_duplicate_is_marked_for_deletion_and_the_tracked_resource_stays() -> None:
    tracked = {**INSTANCE, "id": "i-1", "outputs": {}}
    first, marked = resources_after(state(INSTANCE, resources=[tracked]), {INSTANCE["urn"]: ["i-2"]})
    assert first == tracked
    assert (marked["id"], marked["delete"]) == ("i-2", True)
    first, second = resources_after(state(INSTANCE), {INSTANCE["urn"]: ["i-1", "i-2"]})
    assert (first["id"], first.get("delete"), second["id"], second["delete"]) == ("i-1", None, "i-2", True)


def test_replacement_takes_the_place_of_the_deleted_resource() -> None:
    deleted = {**INSTANCE, "id": "i-1", "pendingReplacement": True}
    dependent = entry("command:remote:Command", "scripts", dependencies=[INSTANCE["urn"]])
    new, last = resources_after(state(INSTANCE, resources=[deleted, dependent]), {INSTANCE["urn"]: ["i-2"]})
    assert (new["id"], new.get("pendingReplacement")) == ("i-2", None)
    assert last == dependent


def test_imported_resource_has_no_dependencies_that_the_state_lacks() -> None:
    present, missing = GROUP["urn"], "urn:pulumi:dev::p::aws:ec2/subnet:Subnet::gone"
    depending = {
        **INSTANCE,
        "dependencies": [present, missing],
        "propertyDependencies": {"subnetId": [missing], "groups": [present], "ami": None},
    }
    _, imported = resources_after(
        state(depending, resources=[{**GROUP, "id": "sg-1"}]), {INSTANCE["urn"]: ["i-1"]}
    )
    assert imported["dependencies"] == [present]
    assert imported["propertyDependencies"] == {"subnetId": [], "groups": [present], "ami": []}
