"""Splits the values of AWS filters."""

from collections.abc import Iterable

# AWS takes 200 values in all filters of a call together. 20 are left for subnets and states.
_MAX_VALUES = 180


def split_filter_values(values: Iterable[str]) -> list[list[str]]:
    """Returns the values, sorted, in lists that one call takes; no list if there are no values."""
    ordered = sorted(values)
    return [ordered[start : start + _MAX_VALUES] for start in range(0, len(ordered), _MAX_VALUES)]
