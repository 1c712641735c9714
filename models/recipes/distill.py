"""Distil the draft from the full model: by its distribution, on its own samples and on corpus text.

Per row, KL(full || draft) and ``--choice-weight`` times the chance that both choose differently: step by step in turn at 0.8,
at which people sample, and close to greedy. What it reaches on held-out prompts is printed with every checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.recipes.data import Windows, validation_windows
from models.recipes.loop import Measures, Run, add_arguments, load_weights
from models.recipes.network import SHAPES, Decoder
from models.recipes.place import Place
from models.recipes.quantised import QuantisedForward
from models.recipes.samples import NUM_KEPT, PROMPT_ROWS, Drawing, continued
from models.recipes.targets import Targets, disagreement, divergence

TEMPERATURES = (0.8, 0.8, 0.25, 0.8)
"""At which the chance of different choices counts, step by step in turn."""
HELD_OUT_PROMPTS = 64
HELD_OUT_TOKENS = 128
HELD_OUT_TEMPERATURE = 0.8

Forward = Callable[[Tensor], Tensor]


def batches(arguments: argparse.Namespace, full: Decoder, place: Place) -> Callable[[int], tuple[Tensor, Targets]]:
    """Token ids [windows, rows] of a step, and the full model's targets of their last rows."""
    windows = Windows(arguments.corpus, arguments.rows, arguments.docs_share, arguments.seed)
    folder = arguments.out / "samples" if arguments.keep_samples else None
    drawing = Drawing(arguments.samples, arguments.rows + 1, arguments.samples_at_once, folder)
    drawn, forward = drawing.of(full, place, windows), place.uncompiled().forward(full)

    def batch(step: int) -> tuple[Tensor, Targets]:
        rng = np.random.default_rng((arguments.seed, step, 1))
        if rng.random() < arguments.sample_share:
            return drawn.batch(rng.integers(0, len(drawn), arguments.batch).tolist())
        tokens = windows.batch(step, arguments.batch)[:, :-1].to(place.device)
        with torch.no_grad():
            return tokens, Targets.of(forward(tokens)[:, PROMPT_ROWS - 1 :], NUM_KEPT)

    return batch


def agreement(corpus: Path, full: Decoder, pupil: Forward, place: Place) -> Measures:
    """How often draft and full model choose the same along the full model's own continuations of held-out documentation:
    greedily, and sampled on shared noise (its chance, not a count)."""
    prompts = validation_windows(corpus, "docs", PROMPT_ROWS, HELD_OUT_PROMPTS)[:, :-1].to(place.device)
    length = PROMPT_ROWS + HELD_OUT_TOKENS
    paths = {t: continued(full, place, prompts, length, t) for t in (0.0, HELD_OUT_TEMPERATURE)}

    @torch.no_grad()
    def measures(_: int) -> dict[str, float]:
        logits = {t: pupil(tokens[:, :-1])[:, PROMPT_ROWS - 1 :] for t, (tokens, _) in paths.items()}
        greedy = (logits[0.0].argmax(-1) == paths[0.0][1].token_ids[..., 0]).float().mean()
        differing = disagreement(paths[HELD_OUT_TEMPERATURE][1], logits[HELD_OUT_TEMPERATURE], HELD_OUT_TEMPERATURE)
        return {"agreement, greedy": float(greedy), f"agreement at {HELD_OUT_TEMPERATURE}": 1 - float(differing)}

    return measures


def loss_of(targets: Targets, logits: Tensor, choice_weight: float, temperature: Tensor) -> Tensor:
    """The mean loss of the rows that have targets. The temperature is a tensor, so that one compiled form does for all."""
    return divergence(targets, logits) + choice_weight * disagreement(targets, logits, temperature)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, required=True, help="the full model: a checkpoint, or its released package")
    parser.add_argument("--full-shape", choices=sorted(SHAPES), default="full")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="draft")
    parser.add_argument("--samples", type=int, default=12_288, help="continuations drawn from the full model (%(default)s)")
    parser.add_argument("--samples-at-once", type=int, default=256, help="drawn in one batch (%(default)s)")
    keeping = argparse.BooleanOptionalAction
    parser.add_argument("--keep-samples", action=keeping, default=True, help="beside the checkpoints, so that a run can go on")
    parser.add_argument("--sample-share", type=float, default=0.75, help="share of the steps on samples (%(default)s)")
    parser.add_argument("--choice-weight", type=float, default=2.0, help="weight of different choices (%(default)s)")
    parser.add_argument("--quantised", action="store_true", help="train the draft as its 4-bit graph computes")
    add_arguments(parser, tokens=10e6, muon_lr=0.02, adam_lr=5e-3)
    arguments = parser.parse_args()
    place = Place.of(arguments)
    full, draft = Decoder(SHAPES[arguments.full_shape]).to(place.device), Decoder(SHAPES[arguments.shape]).to(place.device)
    load_weights(arguments.full, full)
    pupil = QuantisedForward(draft) if arguments.quantised else draft
    forward, loss_fn = place.forward(pupil), place.compiled(loss_of)
    temperatures = torch.tensor(TEMPERATURES, device=place.device)
    run = Run(draft, arguments, place, agreement(arguments.corpus, full, place.uncompiled().forward(pupil), place))
    batch = batches(arguments, full, place)

    def loss(step: int) -> Tensor:
        tokens, targets = batch(step)
        logits = forward(tokens)[:, -targets.token_ids.shape[1] :]
        return loss_fn(targets, logits, arguments.choice_weight, temperatures[step % len(TEMPERATURES)])

    run.go(loss, arguments.batch * arguments.rows)


if __name__ == "__main__":
    main()
