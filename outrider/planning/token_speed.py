"""Token speed under a memory bandwidth limit: every weight is read once a token, and nothing else is counted.

    tokens a second = bandwidth x utilisation / weight bytes / streams

As in Liang, *Computing Architecture for LLMs and LMMs* (ISPD 2024), "Token Speed under Memory Bandwidth Limit". Streams are of
different models, or of one that does not batch them: each token reads all of its weights, and all share the bandwidth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speculation.shaping.models import parse_model

LISTED = ("70B", "13B", "7B", "3.25B", "1.8B")
TYPES = ("int8", "int4")
UTILISATIONS = (1.0, 0.65, 0.33)
LPDDR5T_9600_BYTES_PER_S = 76.8e9
WORDS_PER_MINUTE = {"silent reading": 238.0, "skimming": 1000.0}
"""M. Brysbaert, *How many words do we read per minute?* (2019), and the talk's proficient reader."""
TOKENS_PER_WORD = 4 / 3
"""Of English text, by tokenizers of 32,000 entries and more; a rule of thumb."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model. ``tokens_per_s`` is of each stream, by utilisation."""

    model: str
    number_type: str
    weight_bytes: float
    tokens_per_s: dict[float, float]


@dataclass(frozen=True, slots=True)
class Speeds:
    """The table, and how fast people read in tokens a second."""

    bandwidth_bytes_per_s: float
    num_streams: int
    rows: Sequence[Row]
    reading_tokens_per_s: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "bandwidth_bytes_per_s": self.bandwidth_bytes_per_s,
            "num_streams": self.num_streams,
            "reading_tokens_per_s": self.reading_tokens_per_s,
            "rows": [
                {
                    "model": row.model,
                    "number_type": row.number_type,
                    "weight_bytes": row.weight_bytes,
                    "tokens_per_s": {f"{share:g}": speed for share, speed in row.tokens_per_s.items()},
                }
                for row in self.rows
            ],
        }


def speeds(
    bandwidth_bytes_per_s: float = LPDDR5T_9600_BYTES_PER_S,
    utilisations: Sequence[float] = UTILISATIONS,
    num_streams: int = 1,
) -> Speeds:
    """Every listed size in every type. ``num_streams`` share the bandwidth evenly."""
    rows = [_row(size, kind, bandwidth_bytes_per_s / num_streams, utilisations) for kind in TYPES for size in LISTED]
    reading = {name: words / 60 * TOKENS_PER_WORD for name, words in WORDS_PER_MINUTE.items()}
    return Speeds(bandwidth_bytes_per_s, num_streams, rows, reading)


def _row(size: str, kind: str, bytes_per_s: float, utilisations: Sequence[float]) -> Row:
    model = parse_model(f"{size}:{kind}")
    return Row(size, kind, model.weight_bytes, {share: bytes_per_s * share / model.weight_bytes for share in utilisations})
