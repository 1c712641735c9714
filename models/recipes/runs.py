"""What the recipes have in common: their flags, where a run begins, and what it is judged by besides."""

from __future__ import annotations

import argparse
import json
import math
from functools import partial
from pathlib import Path

from safetensors.torch import load_file

from models.recipes.data import validation_windows
from outrider.training.loop import Measures, Progress, Run, Schedule, load, mean_loss
from outrider.training.network import Decoder
from outrider.training.place import PRECISIONS, Place
from speculation.engines.manifest import MANIFEST, TOKENIZER, WEIGHTS
from speculation.errors import ConfigurationError

VALIDATION_ROWS = 512


def validation_loss(model: Decoder, corpus: Path, kind: str, count: int = 32) -> float:
    """Mean loss in nats over held-out windows."""
    return mean_loss(model, validation_windows(corpus, kind, VALIDATION_ROWS, count).to(model.cos.device))


def load_weights(trained: Path, model: Decoder) -> None:
    """The weights of a checkpoint, or of a released package."""
    if trained.is_dir():
        model.load_state_dict(load_file(trained / WEIGHTS))
    else:
        load(trained, model)


def start_from(package: Path, corpus: Path, model: Decoder) -> Progress:
    """Read a released package's weights into a model, as the start of a new run.

    Raises ``SystemExit`` where the corpus has another tokenizer: what the weights know of tokens would be of the wrong ones.
    """
    released, here = (json.loads((folder / TOKENIZER).read_text("utf-8")) for folder in (package, corpus))
    if released["model"] != here["model"]:
        raise SystemExit(f"{corpus} has another tokenizer than {package}: make it with --tokenizer {package / TOKENIZER}")
    model.load_state_dict(load_file(package / WEIGHTS))
    return Progress(began_from=json.loads((package / MANIFEST).read_text("utf-8"))["provenance"])


def run_of(model: Decoder, arguments: argparse.Namespace, place: Place, more: Measures | None = None) -> Run:
    """A run as the flags ask for it; ``more`` is measured besides the validation losses."""
    names = ("tokens", "until_minutes", "decay_share", "warmup_steps", "checkpoint_steps", "muon_lr", "adam_lr")
    schedule = Schedule(**{name: getattr(arguments, name) for name in names})

    def measures(count: int) -> dict[str, float]:
        losses = {kind: validation_loss(model, arguments.corpus, kind, count) for kind in ("docs", "code")}
        return {f"validation loss, {kind}": loss for kind, loss in losses.items()} | (more(count) if more else {})

    begins = partial(start_from, arguments.start_from, arguments.corpus, model) if arguments.start_from else Progress
    return Run(model, arguments.out, schedule, place, measures, begins)


def place_of(arguments: argparse.Namespace) -> Place:
    """Where the flags say that a run computes. Raises ``SystemExit`` where the device is not there."""
    try:
        return Place.at(arguments.device, arguments.precision, arguments.compile, arguments.threads, arguments.seed)
    except ConfigurationError as error:
        raise SystemExit(str(error)) from error


def add_arguments(parser: argparse.ArgumentParser, tokens: float, muon_lr: float, adam_lr: float) -> None:
    """The flags that every recipe takes."""
    parser.add_argument("--corpus", type=Path, required=True, help="folder that corpus.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run's checkpoints")
    parser.add_argument("--tokens", type=float, default=tokens, help="tokens of the constant phase (default: %(default)g)")
    parser.add_argument("--until-minutes", type=float, default=math.inf, help="end the constant phase after this long")
    parser.add_argument("--decay-share", type=float, default=0.9, help="decay steps as a share of the steps before")
    parser.add_argument("--start-from", type=Path, metavar="PACKAGE", help="go on from a released package's weights")
    parser.add_argument("--rows", type=int, default=256, help="tokens of a window (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="windows a step (default: %(default)s)")
    parser.add_argument("--docs-share", type=float, default=0.7, help="share of the windows that are documentation")
    parser.add_argument("--muon-lr", type=float, default=muon_lr)
    parser.add_argument("--adam-lr", type=float, default=adam_lr)
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--checkpoint-steps", type=int, default=200, help="steps between checkpoints (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--precision", choices=sorted(PRECISIONS), help="of matrix products (default: the device's fastest)")
    parser.add_argument("--compile", action="store_true", help="compile the forward; wants a C++ compiler on a CPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
