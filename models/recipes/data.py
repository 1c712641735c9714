"""Windows of the token arrays that ``corpus.py`` wrote, addressed by (seed, step): a resumed run sees what any other sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

HEADINGS = ("##", "###")
"""Tokens that a section of the documentation begins with, as ``markup.py`` writes them."""


class Windows:
    """Random windows of ``rows + 1`` tokens; a share of them from the documentation, the rest from code."""

    def __init__(self, corpus: Path, rows: int, docs_share: float, seed: int) -> None:
        self._docs, self._code = (np.load(corpus / f"train-{kind}.npy") for kind in ("docs", "code"))
        self._rows, self._docs_share, self._seed = rows, docs_share, seed
        tokenizer = Tokenizer.from_file(str(corpus / "tokenizer.json"))
        self._headings = np.flatnonzero(np.isin(self._docs, [tokenizer.token_to_id(mark) for mark in HEADINGS]))

    def batch(self, step: int, size: int) -> Tensor:
        """Token ids [size, rows + 1] of one step."""
        rng = np.random.default_rng((self._seed, step))
        chosen = []
        for _ in range(size):
            tokens = self._docs if rng.random() < self._docs_share else self._code
            start = int(rng.integers(0, len(tokens) - self._rows - 1))
            chosen.append(tokens[start : start + self._rows + 1])
        return torch.from_numpy(np.stack(chosen).astype(np.int64))

    def openings(self, step: int, size: int, rows: int) -> Tensor:
        """Token ids [size, rows] of sections' first tokens, drawn from the documentation."""
        rng = np.random.default_rng((self._seed, step, 2))
        starts = rng.choice(self._headings[self._headings < len(self._docs) - rows], size)
        return torch.from_numpy(np.stack([self._docs[s : s + rows] for s in starts]).astype(np.int64))


def validation_windows(corpus: Path, kind: str, rows: int, count: int) -> Tensor:
    """Evenly spaced windows [count, rows + 1] of the held-out tokens of one kind ("docs" or "code")."""
    tokens = np.load(corpus / f"validation-{kind}.npy")
    starts = np.linspace(0, len(tokens) - rows - 1, count).astype(int)
    return torch.from_numpy(np.stack([tokens[s : s + rows + 1] for s in starts]).astype(np.int64))
