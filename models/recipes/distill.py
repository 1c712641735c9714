"""Distil the draft from the full model, on its own samples and on corpus text: ``outrider.training.distillation`` tells how.

What it reaches on held-out prompts is printed with every checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from models.recipes.data import Windows, validation_windows
from models.recipes.runs import add_arguments, load_weights, place_of, run_of
from models.recipes.shapes import SHAPES
from outrider.training.distillation import HELD_OUT_PROMPTS, HELD_OUT_TOKENS, Distillation, Recipe
from outrider.training.network import Decoder
from outrider.training.samples import PROMPT_ROWS


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
    place = place_of(arguments)
    full, draft = Decoder(SHAPES[arguments.full_shape]).to(place.device), Decoder(SHAPES[arguments.shape]).to(place.device)
    load_weights(arguments.full, full)
    recipe = Recipe(
        rows=arguments.rows,
        batch=arguments.batch,
        samples=arguments.samples,
        samples_at_once=arguments.samples_at_once,
        samples_folder=arguments.out / "samples" if arguments.keep_samples else None,
        sample_share=arguments.sample_share,
        choice_weight=arguments.choice_weight,
        is_quantised=arguments.quantised,
        seed=arguments.seed,
    )
    distillation = Distillation(recipe, full, draft, place)
    prompts = validation_windows(arguments.corpus, "docs", PROMPT_ROWS, HELD_OUT_PROMPTS)[:, :-1]
    run = run_of(draft, arguments, place, distillation.measures(prompts, PROMPT_ROWS + HELD_OUT_TOKENS))
    distillation.train(run, Windows(arguments.corpus, arguments.rows, arguments.docs_share, arguments.seed))


if __name__ == "__main__":
    main()
