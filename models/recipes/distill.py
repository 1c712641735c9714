"""Distil the draft from the full model: KL to its distribution, on corpus text and on the full model's own samples.

The samples (half greedy, half at temperature 0.8) are drawn once, at the start, and kept beside the checkpoints: the draft is
asked to follow the full model where the full model goes, not where the corpus went (Agarwal et al., arXiv 2306.13649).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.recipes.data import Windows
from models.recipes.loop import Run, add_arguments, load
from models.recipes.network import SHAPES, Decoder
from models.recipes.place import Place
from models.recipes.quantised import QuantisedForward

PROMPT_ROWS = 48
SAMPLE_BATCH = 64
SAMPLING_TEMPERATURES = (0.0, 0.8)


def divergence(full_logits: Tensor, draft_logits: Tensor) -> Tensor:
    """Mean KL(full || draft) in nats over rows; logits [..., vocabulary]."""
    full, draft = F.log_softmax(full_logits, -1), F.log_softmax(draft_logits, -1)
    return F.kl_div(draft.flatten(0, -2), full.flatten(0, -2), log_target=True, reduction="batchmean")


def samples(full: Decoder, windows: Windows, count: int, length: int, path: Path) -> Tensor:
    """Continuations [count, length] of corpus text by the full model; read from ``path`` where a run before left them."""
    if path.exists():
        return torch.from_numpy(np.load(path).astype(np.int64))
    drawn: list[Tensor] = []
    while len(drawn) * SAMPLE_BATCH < count:
        prompts = windows.batch(10**9 + len(drawn), SAMPLE_BATCH)[:, :PROMPT_ROWS].to(full.cos.device)
        drawn.append(full.sample(prompts, length, SAMPLING_TEMPERATURES[len(drawn) % 2]).cpu())
        print(f"{min(count, len(drawn) * SAMPLE_BATCH)} of {count} samples", flush=True)
    tokens = torch.cat(drawn)[:count]
    np.save(path, tokens.numpy().astype(np.uint16))
    return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=Path, required=True, help="checkpoint of the full model")
    parser.add_argument("--full-shape", choices=sorted(SHAPES), default="full")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="draft")
    parser.add_argument("--samples", type=int, default=1024, help="continuations drawn from the full model")
    parser.add_argument("--sample-length", type=int, default=256)
    parser.add_argument("--sample-share", type=float, default=0.4, help="share of the steps that train on samples")
    parser.add_argument("--quantised", action="store_true", help="train the draft as its 4-bit graph computes")
    add_arguments(parser, tokens=10e6, muon_lr=0.02, adam_lr=5e-3)
    arguments = parser.parse_args()
    place = Place.of(arguments)
    full, draft = Decoder(SHAPES[arguments.full_shape]).to(place.device), Decoder(SHAPES[arguments.shape])
    load(arguments.full, full)
    windows = Windows(arguments.corpus, arguments.rows, arguments.docs_share, arguments.seed)
    run = Run(draft, arguments, place)
    drawn = samples(full, windows, arguments.samples, arguments.sample_length, arguments.out / "samples.npy")
    teacher, pupil = place.forward(full), place.forward(QuantisedForward(draft) if arguments.quantised else draft)
    sample_rows = arguments.batch * arguments.rows // arguments.sample_length

    def batch(step: int) -> Tensor:
        rng = np.random.default_rng((arguments.seed, step, 1))
        if rng.random() >= arguments.sample_share:
            return windows.batch(step, arguments.batch)[:, :-1]
        return drawn[torch.from_numpy(rng.integers(0, len(drawn), sample_rows))]

    def loss(step: int) -> Tensor:
        tokens = batch(step).to(place.device)
        with torch.no_grad():
            wanted = teacher(tokens)
        return divergence(wanted, pupil(tokens))

    run.go(loss, arguments.batch * arguments.rows)


if __name__ == "__main__":
    main()
