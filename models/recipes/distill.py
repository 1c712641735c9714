"""Distil the draft from the full model: by its distribution, on its own samples and on corpus text.

Per row, KL(full || draft) and ``--choice-weight`` times the chance that both choose differently: step by step in turn at 0.8,
at which people sample, and close to greedy.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.recipes.data import Windows
from models.recipes.loop import Run, add_arguments, load
from models.recipes.network import SHAPES, Decoder
from models.recipes.place import Place
from models.recipes.quantised import QuantisedForward
from models.recipes.samples import NUM_KEPT, PROMPT_ROWS, draw
from models.recipes.targets import Targets, disagreement, divergence

TEMPERATURES = (0.25, 0.8)


def batches(arguments: argparse.Namespace, full: Decoder, place: Place) -> Callable[[int], tuple[Tensor, Targets]]:
    """Token ids [windows, rows] of a step, and the full model's targets of their last rows."""
    windows = Windows(arguments.corpus, arguments.rows, arguments.docs_share, arguments.seed)
    drawn = draw(full, windows, arguments.samples, arguments.rows + 1, arguments.out / "samples")
    forward = place.forward(full)

    def batch(step: int) -> tuple[Tensor, Targets]:
        rng = np.random.default_rng((arguments.seed, step, 1))
        if rng.random() < arguments.sample_share:
            return drawn.batch(rng.integers(0, len(drawn), arguments.batch).tolist())
        tokens = windows.batch(step, arguments.batch)[:, :-1]
        with torch.no_grad():
            return tokens, Targets.of(forward(tokens.to(place.device))[:, PROMPT_ROWS - 1 :], NUM_KEPT)

    return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, required=True, help="checkpoint of the full model")
    parser.add_argument("--full-shape", choices=sorted(SHAPES), default="full")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="draft")
    parser.add_argument("--samples", type=int, default=12_288, help="continuations drawn from the full model (%(default)s)")
    parser.add_argument("--sample-share", type=float, default=0.75, help="share of the steps on samples (%(default)s)")
    parser.add_argument("--choice-weight", type=float, default=2.0, help="weight of different choices (%(default)s)")
    parser.add_argument("--quantised", action="store_true", help="train the draft as its 4-bit graph computes")
    add_arguments(parser, tokens=10e6, muon_lr=0.02, adam_lr=5e-3)
    arguments = parser.parse_args()
    place = Place.of(arguments)
    full, draft = Decoder(SHAPES[arguments.full_shape]).to(place.device), Decoder(SHAPES[arguments.shape])
    load(arguments.full, full)
    run = Run(draft, arguments, place)
    batch = batches(arguments, full, place)
    pupil = place.forward(QuantisedForward(draft) if arguments.quantised else draft)

    def loss(step: int) -> Tensor:
        tokens, targets = batch(step)
        targets = targets.to(place.device)
        logits = pupil(tokens.to(place.device))[:, -targets.token_ids.shape[1] :]
        differing = disagreement(targets, logits, TEMPERATURES[step % len(TEMPERATURES)])
        return divergence(targets, logits) + arguments.choice_weight * differing

    run.go(loss, arguments.batch * arguments.rows)


if __name__ == "__main__":
    main()
