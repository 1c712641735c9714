"""The full model's own continuations of corpus text, and what it thought at each of their tokens.

A draft is asked to follow the full model where the full model goes, not where the corpus went (Agarwal et al., arXiv
2306.13649). Half of the prompts are openings of sections, as people's are; half of the samples are greedy, half are drawn at
temperature 0.8. They are drawn once, part by part, and kept beside the checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.recipes.data import Windows
from models.recipes.network import Decoder
from models.recipes.targets import Targets

PROMPT_ROWS = 48
NUM_KEPT = 64
BATCH = 256
TEMPERATURES = (0.0, 0.8)
_FIRST_STEP = 10**9
"""Windows of samples are those of steps that no training run reaches."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Token ids [samples, length], and targets [samples, length - PROMPT_ROWS, NUM_KEPT] of all that follow the prompts."""

    token_ids: np.ndarray
    target_ids: np.ndarray
    log_probs: np.ndarray

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Targets]:
        """Token ids to feed, [chosen, length - 1], and the targets of its last rows."""
        token_ids = torch.from_numpy(self.token_ids[chosen, :-1].astype(np.int64))
        target_ids = torch.from_numpy(self.target_ids[chosen].astype(np.int64))
        return token_ids, Targets(target_ids, torch.from_numpy(self.log_probs[chosen].astype(np.float32)))

    def __len__(self) -> int:
        return len(self.token_ids)


@torch.no_grad()
def continued(full: Decoder, prompts: Tensor, length: int, temperature: float) -> tuple[Tensor, Targets]:
    """Prompts [batch, rows] continued to ``length`` tokens, and the targets of the new ones; temperature 0 is argmax."""
    past = full.no_past(len(prompts), length)
    tokens, new = prompts, prompts
    targets: list[Targets] = []
    while tokens.shape[1] < length:
        logits = full.logits(full.hidden(new, past)[:, -1])
        targets.append(Targets.of(logits, NUM_KEPT))
        if temperature == 0:
            new = targets[-1].token_ids[:, :1]
        else:
            new = torch.multinomial(torch.softmax(logits / temperature, -1), 1)
        tokens = torch.cat((tokens, new), dim=1)
    stacked = (torch.stack([getattr(t, name) for t in targets], dim=1) for name in ("token_ids", "log_probs"))
    return tokens, Targets(*stacked)


def draw(full: Decoder, windows: Windows, count: int, length: int, folder: Path) -> Samples:
    """``count`` samples; parts that a run before left in ``folder`` are not drawn again."""
    folder.mkdir(parents=True, exist_ok=True)
    num_parts = -(-count // BATCH)
    for number in range(num_parts):
        path = folder / f"{number:04}.npz"
        if not path.exists():
            _write(path, *continued(full, _prompts(windows, number).to(full.cos.device), length, TEMPERATURES[number % 2]))
            print(f"{(number + 1) * BATCH} of {num_parts * BATCH} samples", flush=True)
    parts = [np.load(folder / f"{number:04}.npz") for number in range(num_parts)]
    return Samples(*(np.concatenate([part[name] for part in parts]) for name in ("token_ids", "target_ids", "log_probs")))


def _prompts(windows: Windows, number: int) -> Tensor:
    """Token ids [BATCH, PROMPT_ROWS]: openings of sections and random windows, half and half."""
    step, half = _FIRST_STEP + number, BATCH // 2
    return torch.cat((windows.openings(step, half, PROMPT_ROWS), windows.batch(step, BATCH - half)[:, :PROMPT_ROWS]))


def _write(path: Path, tokens: Tensor, targets: Targets) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        token_ids=tokens.cpu().numpy().astype(np.uint16),
        target_ids=targets.token_ids.cpu().numpy().astype(np.uint16),
        log_probs=targets.log_probs.cpu().numpy().astype(np.float16),
    )
    partial.replace(path)
