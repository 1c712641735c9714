"""Distilling a draft from a full model: by its distribution, on its own samples and on texts.

Per row, KL(full || draft) and ``choice_weight`` times the chance that both choose differently: step by step in turn at 0.8,
at which people sample, and close to greedy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from outrider.training.loop import Measures, Run
from outrider.training.network import Decoder
from outrider.training.place import Place
from outrider.training.quantised import QuantisedForward
from outrider.training.samples import NUM_KEPT, PROMPT_ROWS, Drawing, FullModel, Tell, Windows, continued, said
from outrider.training.targets import Targets, disagreement, divergence

TEMPERATURES = (0.8, 0.8, 0.25, 0.8)
"""At which the chance of different choices counts, step by step in turn."""
HELD_OUT_PROMPTS = 64
HELD_OUT_TOKENS = 128
HELD_OUT_TEMPERATURE = 0.8
GREEDY, SAMPLED = "agreement, greedy", f"agreement at {HELD_OUT_TEMPERATURE}"

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a distillation consists of. ``samples_folder``: where the full model's continuations are kept, None to keep none."""

    rows: int
    batch: int
    samples: int
    samples_at_once: int
    samples_folder: Path | None
    sample_share: float = 0.75
    choice_weight: float = 2.0
    is_quantised: bool = False
    seed: int = 0


class Distillation:
    """A draft, the full model that it follows, and where it is judged and taught. ``forward_as`` is what is trained: the draft
    itself, or the draft as its 4-bit graph will compute."""

    def __init__(self, recipe: Recipe, full: FullModel, draft: Decoder, place: Place, tell: Tell = said) -> None:
        self._recipe, self._full, self._draft, self._place, self._tell = recipe, full, draft, place, tell
        self._pupil = QuantisedForward(draft) if recipe.is_quantised else draft

    def measures(self, prompts: Tensor, length: int) -> Measures:
        """How often draft and full model choose the same along the full model's own continuations, to ``length`` tokens, of
        held-out prompts: greedily, and sampled on shared noise (its chance, not a count)."""
        pupil, place = self._place.uncompiled().forward(self._pupil), self._place
        prompts = prompts.to(place.device)
        generator = torch.Generator(place.device).manual_seed(self._recipe.seed)
        paths = {t: continued(self._full, place, prompts, length, t, generator) for t in (0.0, HELD_OUT_TEMPERATURE)}
        first = prompts.shape[1] - 1

        @torch.no_grad()
        def measured(_: int) -> dict[str, float]:
            agreed: list[list[Tensor]] = [[], []]
            for start in range(0, len(prompts), 8):
                part = slice(start, start + 8)
                logits = {t: pupil(tokens[part, :-1])[:, first:] for t, (tokens, _) in paths.items()}
                same = logits[0.0].argmax(-1) == paths[0.0][1].token_ids[part, :, 0]
                targets = Targets(*(getattr(paths[HELD_OUT_TEMPERATURE][1], n)[part] for n in ("token_ids", "log_probs")))
                differing = disagreement(targets, logits[HELD_OUT_TEMPERATURE], HELD_OUT_TEMPERATURE)
                agreed[0].append(same.float().mean() * len(same))
                agreed[1].append((1 - differing) * len(same))
            return {name: float(sum(values)) / len(prompts) for name, values in zip((GREEDY, SAMPLED), agreed, strict=True)}

        judge: Measures = measured
        return judge

    def train(self, run: Run, windows: Windows) -> bool:
        """Draw what is missing of the samples, then go; False where a signal asked to stop before the end."""
        recipe, place = self._recipe, self._place
        forward, loss_fn = place.forward(self._pupil), place.compiled(loss_of)
        temperatures = torch.tensor(TEMPERATURES, device=place.device)
        batch = self._batches(windows)

        def loss(step: int) -> Tensor:
            tokens, targets = batch(step)
            logits = forward(tokens)[:, -targets.token_ids.shape[1] :]
            return loss_fn(targets, logits, recipe.choice_weight, temperatures[step % len(TEMPERATURES)])

        return run.go(loss, recipe.batch * recipe.rows)

    def _batches(self, windows: Windows) -> Callable[[int], tuple[Tensor, Targets]]:
        """Token ids [windows, rows] of a step, and the full model's targets of their last rows."""
        recipe, place = self._recipe, self._place
        folder, length = recipe.samples_folder, recipe.rows + 1
        drawing = Drawing(recipe.samples, length, recipe.samples_at_once, folder, recipe.seed, self._tell)
        drawn = drawing.of(self._full, place, windows, self._draft.shape.vocab_size)
        forward = place.uncompiled().forward(self._full)

        def batch(step: int) -> tuple[Tensor, Targets]:
            rng = np.random.default_rng((recipe.seed, step, 1))
            if rng.random() < recipe.sample_share:
                return drawn.batch(rng.integers(0, len(drawn), recipe.batch).tolist())
            tokens = windows.batch(step, recipe.batch)[:, :-1].to(place.device)
            with torch.no_grad():
                logits = forward(tokens)[:, PROMPT_ROWS - 1 :]
                return tokens, Targets.of(logits, min(NUM_KEPT, logits.shape[-1]))

        return batch


def loss_of(targets: Targets, logits: Tensor, choice_weight: float, temperature: Tensor) -> Tensor:
    """The mean loss of the rows that have targets. The temperature is a tensor, so that one compiled form does for all."""
    return divergence(targets, logits) + choice_weight * disagreement(targets, logits, temperature)
