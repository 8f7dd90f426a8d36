"""A resource as the rules see it, and how they read its inputs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

UNKNOWN, SECRET = "[unknown]", "[secret]"
"""What stands in a resource's inputs for a value that cannot be seen."""


@dataclass(frozen=True)
class Resource:
    """A resource as it will be after the update."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    """As checked by the provider, `UNKNOWN` and `SECRET` at any depth."""
    protect: bool = False
    depends: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Names of the resources that an input comes from: the engine's `propertyDependencies`. They tell the security group
    of a rule before the group has an id, and whose id it is afterwards."""


def as_list(value: Any) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else [] if value is None else [value]


def member(value: Any, key: str) -> Any:
    """Of an object; of one that cannot be seen, that."""
    return cast(Mapping[str, Any], value).get(key) if isinstance(value, Mapping) else value


def texts(value: Any) -> tuple[str, ...]:
    """What is known of a text or of a list of them."""
    return tuple(item for item in as_list(value) if isinstance(item, str) and item not in ("", UNKNOWN))


def leaves(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in cast(Mapping[str, Any], value).items():
            yield from leaves(f"{path}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(cast(list[Any], value)):
            yield from leaves(f"{path}[{index}]", item)
    elif value is not None:
        yield path, str(value)
