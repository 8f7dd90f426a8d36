"""Converts property values between protobuf and Python, and compares them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from google.protobuf import struct_pb2

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
Properties: TypeAlias = dict[str, Value]

# Pulumi sends this in a preview for a value that is known only after the update.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"

# The kind of a value that is not plain. Secrets have this one.
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"

Path: TypeAlias = "tuple[str | int, ...]"
"""The keys and indices that lead to a value."""


def from_struct(struct: struct_pb2.Struct) -> Properties:
    """Returns the properties of a message, with secrets in plain text. Pulumi treats a null property as absent."""
    plain = {name: _from_value(value) for name, value in struct.fields.items()}
    return {name: value for name, value in plain.items() if value is not None}


def _from_value(value: struct_pb2.Value) -> Value:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        if (secret := _secret_value(value)) is not None:
            return _from_value(secret)
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_from_value(item) for item in value.list_value.values]
    if kind == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    if kind == "bool_value":
        return value.bool_value
    return value.string_value if kind == "string_value" else None


def _secret_value(value: struct_pb2.Value) -> struct_pb2.Value | None:
    """Returns the value of a secret, or None for another value."""
    fields = value.struct_value.fields
    is_secret = SIGNATURE in fields and fields[SIGNATURE].string_value == SECRET
    return fields["value"] if is_secret else None


def find_secrets(struct: struct_pb2.Struct) -> frozenset[Path]:
    """Returns the paths of the secrets in a message. A secret may contain others."""

    def find(path: Path, value: struct_pb2.Value) -> Iterator[Path]:
        if (secret := _secret_value(value)) is not None:
            yield path
            yield from find(path, secret)
        elif value.WhichOneof("kind") == "struct_value":
            for name, item in value.struct_value.fields.items():
                yield from find((*path, name), item)
        elif value.WhichOneof("kind") == "list_value":
            for index, item in enumerate(value.list_value.values):
                yield from find((*path, index), item)

    return frozenset(path for name, value in struct.fields.items() for path in find((name,), value))


def mark_secrets(properties: Properties, paths: Iterable[Path]) -> Properties:
    """Returns the properties with the values at these paths as secrets. Paths without a value are ignored."""
    secrets = frozenset(paths)

    def mark(path: Path, value: Value) -> Value:
        if isinstance(value, dict):
            value = {name: mark((*path, name), item) for name, item in value.items()}
        elif isinstance(value, list):
            value = [mark((*path, index), item) for index, item in enumerate(value)]
        return {SIGNATURE: SECRET, "value": value} if path in secrets else value

    return {name: mark((name,), value) for name, value in properties.items()}


def to_struct(properties: Mapping[str, Value]) -> struct_pb2.Struct:
    """Returns the properties as a message, without absent ones."""
    struct = struct_pb2.Struct()
    struct.update({name: value for name, value in properties.items() if value is not None})
    return struct


def contains_unknown(value: Value) -> bool:
    """Returns whether the value or a part of it is unknown."""
    if isinstance(value, dict):
        return any(map(contains_unknown, value.values()))
    if isinstance(value, list):
        return any(map(contains_unknown, value))
    return value == UNKNOWN


def find_differences(path: str, old: Value, new: Value) -> Iterator[tuple[str, Value, Value]]:
    """Yields the path, the old and the new value of each difference. None is an absent value."""
    if old == new and type(old) is type(new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            step = f".{key}" if key.isidentifier() else f'["{key}"]'
            yield from find_differences(f"{path}{step}".lstrip("."), old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else None
            after = new[index] if index < len(new) else None
            yield from find_differences(f"{path}[{index}]", before, after)
    elif old != new:
        yield path, old, new
