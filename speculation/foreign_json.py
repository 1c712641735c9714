"""JSON that others wrote, read with a bound on its nesting.

Python's parser has the interpreter's recursion limit for a bound. What the garbage collector happens to end near that limit
fails as well, anywhere in the process; so the nesting is looked at before anything is parsed.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

MAX_DEPTH = 64

# A depth takes eight bytes a character: a large file is gone through in parts.
_CHARACTERS_AT_ONCE = 2**16
_STEPS = np.zeros(256, np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1

# Matches at every quote, closed or not, and never goes back: time stays linear in the text.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


class NestingError(ValueError):
    """Arrays and objects within each other, more than ``MAX_DEPTH`` deep."""


def loads(content: str | bytes, **hooks: Any) -> Any:
    """What ``json.loads`` makes of it, with its ``hooks``. Raises ``NestingError``, and ``ValueError`` for no JSON."""
    text = content if isinstance(content, str) else content.decode(json.detect_encoding(content), "surrogatepass")
    if text.count("[") + text.count("{") > MAX_DEPTH and depth(text) > MAX_DEPTH:
        raise NestingError(f"nested more than {MAX_DEPTH} deep")
    return json.loads(text, **hooks)


def depth(text: str) -> int:
    """How deep arrays and objects lie within each other at most; of what is no JSON, the same by its brackets."""
    outside = np.frombuffer(_STRING.sub("", text).encode("ascii", "replace"), np.uint8)
    deepest = within = 0
    for start in range(0, len(outside), _CHARACTERS_AT_ONCE):
        depths = within + np.cumsum(_STEPS[outside[start : start + _CHARACTERS_AT_ONCE]], dtype=np.int64)
        deepest, within = max(deepest, int(depths.max())), int(depths[-1])
    return deepest
