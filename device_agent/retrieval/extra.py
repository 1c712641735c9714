"""The libraries of the extra ``rag``: what is missing is told with what would install it."""

from __future__ import annotations

import importlib
from typing import Any

from speculation.errors import ConfigurationError


def library(name: str) -> Any:
    """A module of the extra. Raises ``ConfigurationError`` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = name.partition(".")[0]
        raise ConfigurationError(f"documents need {missing}, which is not installed: pip install 'outrider[rag]'") from error
