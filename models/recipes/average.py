"""Average a run's last weights with those of the release that it went on from (Izmailov et al., arXiv 1803.05407).

A short run behind a release first loses what the raised learning rate takes, and may end no better than it began; the average
of both is better than either as long as they lie in one valley. Prints the validation loss of every share tried, and writes the
one that was asked for.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.recipes.runs import validation_loss
from models.recipes.shapes import SHAPES
from outrider.training.network import Decoder
from speculation.engines.manifest import WEIGHTS

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def averaged(old: dict[str, Tensor], new: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """``share`` of the new weights, the rest of the old ones. Raises ``SystemExit`` where they are of different models."""
    if {n: t.shape for n, t in old.items()} != {n: t.shape for n, t in new.items()}:
        raise SystemExit("the release and the checkpoint are of different shapes: only one model's weights can be averaged")
    return {name: torch.lerp(old[name].float(), new[name].float(), share) for name in old}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, required=True, help="package that the run went on from")
    parser.add_argument("--checkpoint", type=Path, required=True, help="final.pt of the run")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="full")
    parser.add_argument("--share", type=float, default=0.4, help="of the run's weights in what is written (%(default)s)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    model = Decoder(SHAPES[arguments.shape])
    state = torch.load(arguments.checkpoint, weights_only=True, map_location="cpu")
    old, new = load_file(arguments.release / WEIGHTS), state["model"]
    for share in sorted({*SHARES, arguments.share}):
        model.load_state_dict(averaged(old, new, share))
        losses = (f"{kind} {validation_loss(model, arguments.corpus, kind, 16):.3f}" for kind in ("docs", "code"))
        print(f"share {share:.1f}: validation loss {', '.join(losses)}", flush=True)
    torch.save({**state, "model": averaged(old, new, arguments.share)}, arguments.out)


if __name__ == "__main__":
    main()
