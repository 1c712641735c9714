"""Values that are made for every pass: unchangeable to type checkers, and at run time as cheap as an object can be. Pure.

A frozen dataclass writes each field through ``object.__setattr__``: some thousand instructions a field in CPython 3.11, ten
times what one without takes. What is made a few times a session stays a frozen dataclass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots that compares and hashes by its fields. Assigning to a field is an error that mypy finds."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
