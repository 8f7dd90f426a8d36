"""Replaces methods and properties of moto's classes."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def correct(owner: Any, name: str) -> Callable[[Function], Function]:
    """Replaces a function of a moto class or module. The correction receives the original as its first argument."""

    def install(correction: Function) -> Function:
        original = getattr(owner, name)

        @wraps(original)
        def corrected(*args: Any, **kwargs: Any) -> Any:
            return correction(original, *args, **kwargs)

        setattr(owner, name, corrected)
        return correction

    return install


def correct_property(owner: Any, name: str) -> Callable[[Function], Function]:
    """Replaces a read-only property of a moto class."""

    def install(correction: Function) -> Function:
        setattr(owner, name, property(correction))
        return correction

    return install
