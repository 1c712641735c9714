"""The training loop that both recipes share: constant learning rate, then a linear decay; checkpoints, resume, progress."""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from models.recipes.data import validation_windows
from models.recipes.network import Decoder
from models.recipes.optimiser import optimisers
from models.recipes.place import Place, add_place_arguments
from speculation.engines.manifest import MANIFEST, TOKENIZER, WEIGHTS

VALIDATION_ROWS = 512
REPORT_STEPS = 20
"""Steps between two lines of progress; only then does the host wait for the device."""

Measures = Callable[[int], dict[str, float]]
"""What a run is judged by: name -> value, taken on so many held-out windows."""


@dataclass(slots=True)
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    began_from: str = ""
    """Provenance of the released weights that the run went on from; empty for a run from random weights."""


class StopRequest:
    """Set by SIGTERM or SIGINT, so that a run ends with a checkpoint."""

    def __init__(self) -> None:
        self.was_made = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._make)

    def _make(self, *_: object) -> None:
        self.was_made = True


def cross_entropy(logits_of: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Mean next-token loss in nats of token ids [batch, rows + 1]."""
    logits = logits_of(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: Decoder, corpus: Path, kind: str, count: int = 32) -> float:
    """Mean loss in nats over held-out windows."""
    windows = validation_windows(corpus, kind, VALIDATION_ROWS, count).to(model.cos.device)
    return float(torch.stack([cross_entropy(model, part) for part in windows.split(8)]).mean())


def save(path: Path, model: Decoder, opts: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Write a checkpoint whole or not at all."""
    partial = path.with_suffix(".partial")
    state = {"model": model.state_dict(), "optimisers": [o.state_dict() for o in opts], "progress": asdict(progress)}
    torch.save(state, partial)
    partial.replace(path)


def load(path: Path, model: Decoder, opts: list[torch.optim.Optimizer] | None = None) -> Progress:
    """Read a checkpoint into a model and, where given, its optimisers."""
    state = torch.load(path, weights_only=True, map_location=model.cos.device)
    model.load_state_dict(state["model"])
    for optimiser, saved in zip(opts or [], state["optimisers"], strict=False):
        optimiser.load_state_dict(saved)
    return Progress(**state["progress"])


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


def learning_rate_scale(progress: Progress, warmup_steps: int, decay_from: int | None, decay_steps: int) -> float:
    """Warm-up, constant, then linear to 0 over ``decay_steps`` from ``decay_from`` on."""
    scale = min(1.0, (progress.step + 1) / warmup_steps)
    return scale if decay_from is None else scale * max(0.0, 1 - (progress.step - decay_from) / decay_steps)


class Run:
    """One training run in a folder: ``latest.pt`` and ``decaying.pt`` while it runs, ``constant.pt`` before the decay,
    ``final.pt`` at the end. A run goes on from ``latest.pt``, so that a decay is done as a whole."""

    def __init__(self, model: Decoder, arguments: argparse.Namespace, place: Place, measures: Measures | None = None) -> None:
        """``measures`` are taken besides the validation losses."""
        model.to(place.device)
        self._more_measures = measures
        self.model, self.out, self.arguments = model, arguments.out, arguments
        self.optimisers = optimisers(model, arguments.muon_lr, arguments.adam_lr, place.precision)
        self._bases = (arguments.muon_lr, arguments.adam_lr)
        self.out.mkdir(parents=True, exist_ok=True)
        latest = self.out / "latest.pt"
        self.progress = Progress()
        if latest.exists():
            self.progress = load(latest, model, self.optimisers)
        elif arguments.start_from is not None:
            self.progress = start_from(arguments.start_from, arguments.corpus, model)
        self._log = (self.out / "log.jsonl").open("a", buffering=1)
        self._running: Tensor | None = None
        print(f"{model.num_parameters / 1e6:.2f} M parameters, from step {self.progress.step}", flush=True)

    def go(self, loss_of_step: Callable[[int], Tensor], tokens_per_step: int) -> None:
        """Train until the constant phase and the decay are over, or a signal asks to stop."""
        stop, began, decay_from, decay_steps = StopRequest(), time.monotonic(), None, 1
        if self.progress.began_from:
            self.validate(8)
        while not stop.was_made:
            if decay_from is None and self._constant_phase_is_over(time.monotonic() - began):
                self._save("constant.pt")
                decay_from, decay_steps = self.progress.step, max(1, int(self.progress.step * self.arguments.decay_share))
            scale = learning_rate_scale(self.progress, self.arguments.warmup_steps, decay_from, decay_steps)
            if scale == 0:
                self._save("final.pt")
                self.validate(32)
                return
            self._step(loss_of_step, tokens_per_step, scale, "constant" if decay_from is None else "decay")
            if self.progress.step % self.arguments.checkpoint_steps == 0:
                self._save("latest.pt" if decay_from is None else "decaying.pt")
                self.validate(8)
        if decay_from is None:
            self._save("latest.pt")
        print(f"stopped at step {self.progress.step}; the same command goes on from the last checkpoint", flush=True)

    def validate(self, count: int) -> None:
        """Print and log what is measured on held-out text."""
        measured = {
            f"validation loss, {kind}": validation_loss(self.model, self.arguments.corpus, kind, count)
            for kind in ("docs", "code")
        }
        if self._more_measures is not None:
            measured |= self._more_measures(count)
        print("; ".join(f"{name}: {value:.3f}" for name, value in measured.items()), flush=True)
        self._log.write(json.dumps({**asdict(self.progress), **measured}) + "\n")

    def _constant_phase_is_over(self, elapsed_s: float) -> bool:
        return self.progress.tokens >= self.arguments.tokens or elapsed_s / 60 >= self.arguments.until_minutes

    def _save(self, name: str) -> None:
        save(self.out / name, self.model, self.optimisers, self.progress)

    def _step(self, loss_of_step: Callable[[int], Tensor], tokens_per_step: int, scale: float, phase: str) -> None:
        for optimiser, base in zip(self.optimisers, self._bases, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * scale
        started = time.monotonic()
        loss = loss_of_step(self.progress.step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.tokens += tokens_per_step
        loss = loss.detach()
        self._running = loss if self._running is None else self._running.lerp(loss, 0.05)
        if self.progress.step % REPORT_STEPS == 0:
            self._report(self._running.item(), phase)
        self.progress.seconds += time.monotonic() - started

    def _report(self, loss: float, phase: str) -> None:
        p = self.progress
        if not math.isfinite(loss):
            raise SystemExit(f"the loss is {loss} at step {p.step} or a little before")
        rate = p.tokens / max(p.seconds, 1e-9)
        print(f"step {p.step} ({phase}) loss {loss:.3f}, {p.tokens / 1e6:.2f} M tokens, {rate:.0f} tokens/s", flush=True)
        self._log.write(json.dumps({**asdict(p), "loss": loss, "phase": phase}) + "\n")


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
    add_place_arguments(parser)
