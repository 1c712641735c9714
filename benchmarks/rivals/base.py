"""What the shootout asks of an engine: sessions that hold a prompt, a step behind it, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int64]
"""Token ids [sessions, rows]: all sessions of a step have equally many rows."""
CAPACITY = 512
"""Positions that each session has room for; no engine needs more in any cell."""


class Rival(Protocol):
    """One engine with one form of the weights loaded, on one thread."""

    def fill(self, prompts: Tokens) -> None:
        """Give each session its prompt; called once."""

    def ready(self, tokens: Tokens) -> None:
        """Called before some steps with these tokens are timed, for what belongs to the measurement and not to the engine."""

    def step(self, tokens: Tokens) -> NDArray[np.float32]:
        """Run new rows of the first sessions behind their prompts: logits [sessions * rows, vocabulary] of all of them."""

    def rewind(self, sessions: int) -> None:
        """Forget what the last step added to the first sessions."""


@dataclass(frozen=True, slots=True)
class Form:
    """One engine and one form of the weights: a row of the table. ``bits`` says with which others it is compared."""

    engine: str
    variant: str
    bits: str

    @property
    def name(self) -> str:
        return f"{self.engine} {self.variant}"


def one_row_each(logits: Any, sessions: int, rows: int) -> NDArray[np.float32]:
    """Logits as one array [sessions * rows, vocabulary]."""
    return np.asarray(logits, np.float32).reshape(sessions * rows, -1)
