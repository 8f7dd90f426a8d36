"""The resource model that the rules check, and functions that read its inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

UNKNOWN, SECRET = "[unknown]", "[secret]"
"""Placeholders in a resource's inputs: a value that is known only after the update, and a secret."""


@dataclass(frozen=True)
class Resource:
    """A resource as it will be after the update."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    """Checked inputs. `UNKNOWN` and `SECRET` can occur at any depth."""
    protect: bool = False
    dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """For each input, the names of the resources that its value comes from (the engine's `propertyDependencies`).

    They identify the security group of a rule before the group has an id, and map its id to its name afterwards.
    """
    provider: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Checked inputs of the resource's provider. The engine passes objects among them as JSON text."""


def as_list(value: Any) -> list[Any]:
    """Returns a list as it is, None as an empty list, and any other value as a list of one."""
    return cast(list[Any], value) if isinstance(value, list) else [] if value is None else [value]


def get_member(value: Any, key: str) -> Any:
    """Returns a member of an object. A value that is no object, such as `UNKNOWN`, is returned unchanged."""
    return cast(Mapping[str, Any], value).get(key) if isinstance(value, Mapping) else value


def known_strings(value: Any) -> tuple[str, ...]:
    """Returns the known, non-empty strings of a string or of a list."""
    return tuple(item for item in as_list(value) if isinstance(item, str) and item not in ("", UNKNOWN))


def walk_leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    """Yields path and text of each scalar below a value: `environment.URL`, `ebsBlockDevices[0].encrypted`."""
    if isinstance(value, Mapping):
        for key, item in cast(Mapping[str, Any], value).items():
            yield from walk_leaves(f"{path}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(cast(list[Any], value)):
            yield from walk_leaves(f"{path}[{index}]", item)
    elif value is not None:
        yield path, str(value)
