"""Train one model of the pair on the corpus by next-token loss."""

from __future__ import annotations

import argparse

from torch import Tensor

from models.recipes.data import Windows
from models.recipes.runs import add_arguments, place_of, run_of
from models.recipes.shapes import SHAPES
from outrider.training.loop import cross_entropy
from outrider.training.network import Decoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="full")
    add_arguments(parser, tokens=25e6, muon_lr=0.02, adam_lr=3e-3)
    arguments = parser.parse_args()
    place = place_of(arguments)
    model = Decoder(SHAPES[arguments.shape])
    windows = Windows(arguments.corpus, arguments.rows, arguments.docs_share, arguments.seed)
    run = run_of(model, arguments, place)
    forward = place.forward(model)

    def loss(step: int) -> Tensor:
        return cross_entropy(forward, windows.batch(step, arguments.batch).to(place.device))

    run.go(loss, arguments.batch * arguments.rows)


if __name__ == "__main__":
    main()
