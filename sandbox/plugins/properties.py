"""Converts property values between protobuf and Python, and compares them."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

from google.protobuf import struct_pb2

Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
Properties: TypeAlias = dict[str, Value]

# Pulumi sends this in a preview for a value that is known only after the update.
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def from_struct(struct: struct_pb2.Struct) -> Properties:
    """Returns the properties of a message. Pulumi treats a null property as absent."""
    plain = {name: _from_value(value) for name, value in struct.fields.items()}
    return {name: value for name, value in plain.items() if value is not None}


def _from_value(value: struct_pb2.Value) -> Value:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return from_struct(value.struct_value)
    if kind == "list_value":
        return [_from_value(item) for item in value.list_value.values]
    if kind == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    if kind == "bool_value":
        return value.bool_value
    return value.string_value if kind == "string_value" else None


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
