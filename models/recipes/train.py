"""Train one model of the pair on the corpus by next-token loss."""

from __future__ import annotations

import argparse

import torch

from models.recipes.data import Windows
from models.recipes.loop import ROWS, Run, add_arguments, cross_entropy
from models.recipes.network import SHAPES, Decoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="full")
    add_arguments(parser, tokens=25e6, muon_lr=0.02, adam_lr=3e-3)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    model = Decoder(SHAPES[arguments.shape])
    windows = Windows(arguments.corpus, ROWS, arguments.docs_share, arguments.seed)
    run = Run(model, arguments)
    run.go(lambda step: cross_entropy(model, windows.batch(step, arguments.batch)), arguments.batch * ROWS)


if __name__ == "__main__":
    main()
