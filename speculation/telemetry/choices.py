"""What settings may ask of telemetry; without the libraries that do it, which a command line need not load."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

Compat = Literal["vllm"]
"""Whose names figures have besides their own."""


class LogFormat(StrEnum):
    """How a service writes its log: for people, or one JSON object a line."""

    TEXT = "text"
    JSON = "json"
