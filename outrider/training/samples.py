"""The full model's own continuations of texts, and what it thought at each of their tokens.

A draft is asked to follow the full model where the full model goes, not where the texts went (Agarwal et al., arXiv
2306.13649). Half of the prompts are openings, as people's are; a quarter of the samples is greedy (many greedy ones
end in the same loops), the others are drawn at temperature 0.8. They are drawn once, part by part; what is kept in a folder is
not drawn again, and a part does not depend on which others were drawn before it.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from outrider.training.place import Place
from outrider.training.targets import Targets
from speculation.errors import PackageError

PROMPT_ROWS = 48
NUM_KEPT = 64
TEMPERATURES = (0.0, 0.8, 0.8, 0.8)
"""Of the parts, in turn."""
_FIRST_STEP = 10**9
"""Windows of samples are those of steps that no training run reaches."""

Tell = Callable[[str], None]


def said(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


class Windows(Protocol):
    """Where texts come from, addressed by (seed, step): a resumed run sees what any other sees."""

    def batch(self, step: int, size: int) -> Tensor:
        """Token ids [size, rows + 1] of one step."""

    def openings(self, step: int, size: int, rows: int) -> Tensor:
        """Token ids [size, rows] with which texts, or parts of them, begin."""


class FullModel(Protocol):
    """A model whose continuations are drawn: a ``Decoder``, or another library's."""

    def __call__(self, token_ids: Tensor) -> Tensor:
        """Logits [batch, rows, vocabulary]."""

    def no_past(self, batch: int, capacity: int, dtype: torch.dtype) -> Any:
        """An empty past with room for so many rows."""

    def last_logits(self, token_ids: Tensor, past: Any) -> Tensor:
        """Logits [batch, vocabulary] behind the last of these tokens, which the past grows by."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Token ids [samples, length], and targets [samples, length - PROMPT_ROWS, NUM_KEPT] of all that follow the prompts.

    Held as small as can be (int16 where the vocabulary allows it, else int32; float16) where the run computes: a GPU waits for
    nothing then.
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


def type_of_ids(vocabulary_size: int) -> torch.dtype:
    """The smallest type that holds every token id."""
    return torch.int16 if vocabulary_size - 1 <= torch.iinfo(torch.int16).max else torch.int32


@torch.no_grad()
def continued(
    full: FullModel, place: Place, prompts: Tensor, length: int, temperature: float, generator: torch.Generator | None = None
) -> tuple[Tensor, Targets]:
    """Prompts [batch, rows] continued to ``length`` tokens, and the targets of the new ones; temperature 0 is argmax."""
    past = full.no_past(len(prompts), length, place.precision)
    tokens, new = prompts, prompts
    targets: list[Targets] = []
    while tokens.shape[1] < length:
        with place.autocast():
            logits = full.last_logits(new, past).float()
        targets.append(Targets.of(logits, min(NUM_KEPT, logits.shape[-1])))
        if temperature == 0:
            new = targets[-1].token_ids[:, :1]
        else:
            new = torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)
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
    seed: int = 0
    tell: Tell = said

    def of(self, full: FullModel, place: Place, windows: Windows, vocabulary_size: int) -> Samples:
        ids = type_of_ids(vocabulary_size)
        parts = [self._part(number, full, place, windows, ids) for number in range(-(-self.count // self.part))]
        return Samples.joined(parts)

    def _part(self, number: int, full: FullModel, place: Place, windows: Windows, ids: torch.dtype) -> Samples:
        path = self.folder / f"{number:04}.npz" if self.folder is not None else None
        if path is not None and path.exists():
            return _read(path, place, ids)
        prompts = _prompts(windows, number, self.part).to(place.device)
        generator = torch.Generator(place.device).manual_seed(self.seed * _FIRST_STEP + number)
        temperature = TEMPERATURES[number % len(TEMPERATURES)]
        tokens, targets = continued(full, place, prompts, self.length, temperature, generator)
        drawn = Samples(tokens.to(ids), targets.token_ids.to(ids), targets.log_probs.half())
        if path is not None:
            _write(path, drawn)
        self.tell(f"{(number + 1) * self.part} samples drawn")
        return drawn


def _prompts(windows: Windows, number: int, size: int) -> Tensor:
    """Token ids [size, PROMPT_ROWS]: openings and random windows, half and half."""
    step, half = _FIRST_STEP + number, size // 2
    return torch.cat((windows.openings(step, half, PROMPT_ROWS), windows.batch(step, size - half)[:, :PROMPT_ROWS]))


def _read(path: Path, place: Place, ids: torch.dtype) -> Samples:
    try:
        with path.open("rb") as file, np.load(file) as part:
            arrays = [torch.from_numpy(part[name]).to(place.device) for name in ("token_ids", "target_ids", "log_probs")]
    except (AttributeError, EOFError, OSError, LookupError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise PackageError(f"{path} holds no samples ({error}); take it away, and they are drawn again") from error
    return Samples(arrays[0].to(ids), arrays[1].to(ids), arrays[2])


def _write(path: Path, drawn: Samples) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.npz")
    arrays = {"token_ids": drawn.token_ids, "target_ids": drawn.target_ids, "log_probs": drawn.log_probs}
    np.savez(partial, **{name: values.cpu().numpy() for name, values in arrays.items()})
    partial.replace(path)
