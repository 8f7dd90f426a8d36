"""Reads and repairs the state that an interrupted update left."""

from collections.abc import Mapping, Sequence
from typing import Any

Resource = dict[str, Any]
"""A resource in the state."""

RECREATED_TYPES = frozenset({"aws:ec2/securityGroup:SecurityGroup"})
"""Types whose creation has a second part that a refresh does not check. AWS adds an egress rule that allows everything
to a new security group, and the provider then removes it."""


def get_resources(deployment: Mapping[str, Any]) -> list[Resource]:
    return deployment.get("resources") or []


def find_pending_creates(deployment: Mapping[str, Any]) -> list[Resource]:
    """Returns the resources of pending create operations, without components."""
    operations: list[dict[str, Any]] = deployment.get("pending_operations") or []
    resources: list[Resource] = [one["resource"] for one in operations if one["type"] == "creating"]
    return [resource for resource in resources if resource["custom"]]


def find_provider(deployment: Mapping[str, Any], resource: Resource) -> Resource | None:
    """Returns the provider that a resource refers to, or None if the state no longer has it."""
    urn, _, id = str(resource["provider"]).rpartition("::")
    return next(
        (other for other in get_resources(deployment) if (other["urn"], other.get("id")) == (urn, id)), None
    )


def drop_tracked_ids(deployment: Mapping[str, Any], type: str, ids: Sequence[str]) -> list[str]:
    """Returns the ids that no resource of the same type has. A role and its instance profile may share an id."""
    tracked = {other.get("id") for other in get_resources(deployment) if other["type"] == type}
    return [id for id in ids if id not in tracked]


def import_created_resources(
    deployment: Mapping[str, Any], created_ids: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Returns the state with the resources that pending operations created, and without pending operations.

    `created_ids` holds the ids of created resources by URN. A created resource is added to the state, and the next
    refresh reads its properties. It is marked for deletion instead if the state already has a resource with its URN, or if its
    type must be created again. Pulumi then deletes it at the end of the next run.
    """
    resources = [*get_resources(deployment)]
    for pending in find_pending_creates(deployment):
        for id in created_ids.get(pending["urn"], ()):
            created = _new_entry(pending, id, {other["urn"] for other in resources})
            same_urn = [
                other for other in resources if other["urn"] == pending["urn"] and not other.get("delete")
            ]
            # A resource with `pendingReplacement` was deleted before its replacement was created.
            replaced = [other for other in same_urn if other.get("pendingReplacement")]
            if pending["type"] in RECREATED_TYPES or same_urn != replaced:
                resources.append({**created, "delete": True})
            elif replaced:
                resources[resources.index(replaced[0])] = created
            else:
                resources.append(created)
    return {**deployment, "resources": resources, "pending_operations": []}


def _new_entry(pending: Resource, id: str, urns: set[str]) -> Resource:
    """Returns the state's entry of a created resource. Copies the inputs to the outputs, because the provider reads some types by them."""
    inputs: dict[str, Any] = pending.get("inputs", {})
    outputs = {key: value for key, value in inputs.items() if not key.startswith("__")}
    entry = {**pending, "id": id, "outputs": {**outputs, "id": id}}
    # Runs without recovery may have deleted its dependencies and its parent since.
    dependencies: list[str] = pending.get("dependencies", [])
    property_dependencies: dict[str, list[str] | None] = pending.get("propertyDependencies", {})
    entry["dependencies"] = [urn for urn in dependencies if urn in urns]
    entry["propertyDependencies"] = {
        key: [urn for urn in needed or [] if urn in urns] for key, needed in property_dependencies.items()
    }
    if pending.get("parent") not in urns:
        entry.pop("parent", None)
    return entry
