"""The full model's own continuations of corpus text, and what it thought at each of their tokens.

A draft is asked to follow the full model where the full model goes, not where the corpus went (Agarwal et al., arXiv
2306.13649). Half of the prompts are openings of sections, as people's are; a quarter of the samples is greedy (many greedy ones
end in the same loops), the others are drawn at temperature 0.8. They are drawn once, part by part; what is kept in a folder is
not drawn again.
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
from models.recipes.place import Place
from models.recipes.targets import Targets

PROMPT_ROWS = 48
NUM_KEPT = 64
TEMPERATURES = (0.0, 0.8, 0.8, 0.8)
"""Of the parts, in turn."""
_FIRST_STEP = 10**9
"""Windows of samples are those of steps that no training run reaches."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Token ids [samples, length], and targets [samples, length - PROMPT_ROWS, NUM_KEPT] of all that follow the prompts.

    Held as small as can be (int16, float16) where the run computes: a GPU waits for nothing then.
    """

    token_ids: Tensor
    target_ids: Tensor
    log_probs: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Samples]) -> Samples:
        names = ("token_ids", "target_ids", "log_probs")
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))

    def batch(self, chosen: Sequence[int]) -> tuple[Tensor, Targets]:
        """Token ids to feed, [chosen, length - 1], and the targets of its last rows."""
        index = torch.tensor(chosen, device=self.token_ids.device)
        return self.token_ids[index, :-1].long(), Targets(self.target_ids[index].long(), self.log_probs[index].float())

    def __len__(self) -> int:
        return len(self.token_ids)


@torch.no_grad()
def continued(full: Decoder, place: Place, prompts: Tensor, length: int, temperature: float) -> tuple[Tensor, Targets]:
    """Prompts [batch, rows] continued to ``length`` tokens, and the targets of the new ones; temperature 0 is argmax."""
    past = full.no_past(len(prompts), length, place.precision)
    tokens, new = prompts, prompts
    targets: list[Targets] = []
    while tokens.shape[1] < length:
        with place.autocast():
            logits = full.logits(full.hidden(new, past)[:, -1]).float()
        targets.append(Targets.of(logits, NUM_KEPT))
        if temperature == 0:
            new = targets[-1].token_ids[:, :1]
        else:
            new = torch.multinomial(torch.softmax(logits / temperature, -1), 1)
        tokens = torch.cat((tokens, new), dim=1)
    stacked = (torch.stack([getattr(t, name) for t in targets], dim=1) for name in ("token_ids", "log_probs"))
    return tokens, Targets(*stacked)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How samples are drawn: ``count`` of them, of ``length`` tokens, ``part`` at a time. Parts that a run before left in
    ``folder`` are not drawn again; without a folder nothing is kept."""

    count: int
    length: int
    part: int
    folder: Path | None

    def of(self, full: Decoder, place: Place, windows: Windows) -> Samples:
        parts = [self._part(number, full, place, windows) for number in range(-(-self.count // self.part))]
        return Samples.joined(parts)

    def _part(self, number: int, full: Decoder, place: Place, windows: Windows) -> Samples:
        path = self.folder / f"{number:04}.npz" if self.folder is not None else None
        if path is not None and path.exists():
            return _read(path, place)
        prompts = _prompts(windows, number, self.part).to(place.device)
        tokens, targets = continued(full, place, prompts, self.length, TEMPERATURES[number % len(TEMPERATURES)])
        drawn = Samples(tokens.short(), targets.token_ids.short(), targets.log_probs.half())
        if path is not None:
            _write(path, drawn)
        print(f"{(number + 1) * self.part} samples drawn", flush=True)
        return drawn


def _prompts(windows: Windows, number: int, size: int) -> Tensor:
    """Token ids [size, PROMPT_ROWS]: openings of sections and random windows, half and half."""
    step, half = _FIRST_STEP + number, size // 2
    return torch.cat((windows.openings(step, half, PROMPT_ROWS), windows.batch(step, size - half)[:, :PROMPT_ROWS]))


def _read(path: Path, place: Place) -> Samples:
    with np.load(path) as part:
        arrays = (part["token_ids"].astype(np.int16), part["target_ids"].astype(np.int16), part["log_probs"])
    return Samples(*(torch.from_numpy(array).to(place.device) for array in arrays))


def _write(path: Path, drawn: Samples) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    arrays = {"token_ids": drawn.token_ids, "target_ids": drawn.target_ids, "log_probs": drawn.log_probs}
    np.savez(partial, **{name: values.cpu().numpy() for name, values in arrays.items()})
    partial.replace(path)
