"""Train one model of the pair on the corpus: constant learning rate, then a linear decay; checkpoints and resume.

``--until-minutes`` ends the constant phase by the clock instead of by a number of tokens. The checkpoint at the end of the
constant phase is kept (``constant.pt``), so that a later run can go on from there.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from models.recipes.data import Windows, validation_windows
from models.recipes.network import SHAPES, Decoder
from models.recipes.optimiser import optimisers

ROWS = 512


@dataclass(slots=True)
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def cross_entropy(model: Decoder, batch: Tensor) -> Tensor:
    """Mean next-token loss in nats of token ids [batch, rows + 1]."""
    logits = model(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def validation_loss(model: Decoder, corpus: Path, kind: str, count: int = 32) -> float:
    """Mean loss in nats over held-out windows."""
    windows = validation_windows(corpus, kind, ROWS, count)
    return float(torch.stack([cross_entropy(model, part) for part in windows.split(8)]).mean())


def save(path: Path, model: Decoder, opts: list[torch.optim.Optimizer], progress: Progress) -> None:
    partial = path.with_suffix(".partial")
    state = {"model": model.state_dict(), "optimisers": [o.state_dict() for o in opts], "progress": asdict(progress)}
    torch.save(state, partial)
    partial.replace(path)


def load(path: Path, model: Decoder, opts: list[torch.optim.Optimizer] | None = None) -> Progress:
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optimiser, saved in zip(opts or [], state["optimisers"], strict=False):
        optimiser.load_state_dict(saved)
    return Progress(**state["progress"])


def set_scale(opts: list[torch.optim.Optimizer], bases: list[float], scale: float) -> None:
    for optimiser, base in zip(opts, bases, strict=True):
        for group in optimiser.param_groups:
            group["lr"] = base * scale


class StopRequest:
    """Set by SIGTERM or SIGINT, so that a run ends with a checkpoint."""

    def __init__(self) -> None:
        self.was_made = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._make)

    def _make(self, *_: object) -> None:
        self.was_made = True


def train(arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    model = Decoder(SHAPES[arguments.shape])
    opts = optimisers(model, arguments.muon_lr, arguments.adam_lr)
    bases = [arguments.muon_lr, arguments.adam_lr]
    arguments.out.mkdir(parents=True, exist_ok=True)
    latest = arguments.out / "latest.pt"
    progress = load(latest, model, opts) if latest.exists() else Progress()
    windows = Windows(arguments.corpus, ROWS, arguments.docs_share, arguments.seed)
    log = (arguments.out / "log.jsonl").open("a", buffering=1)
    print(f"{arguments.shape}: {model.num_parameters / 1e6:.2f} M parameters, from step {progress.step}", flush=True)
    began, decay_from, decay_steps = time.monotonic(), None, 0
    running = None
    stop = StopRequest()
    while not stop.was_made:
        elapsed = time.monotonic() - began
        constant_is_over = progress.tokens >= arguments.tokens or elapsed / 60 >= arguments.until_minutes
        if decay_from is None and constant_is_over:
            save(arguments.out / "constant.pt", model, opts, progress)
            decay_from, decay_steps = progress.step, max(1, int(progress.step * arguments.decay_share))
        scale = min(1.0, (progress.step + 1) / arguments.warmup_steps)
        if decay_from is not None:
            left = 1 - (progress.step - decay_from) / decay_steps
            if left <= 0:
                break
            scale *= left
        set_scale(opts, bases, scale)
        started = time.monotonic()
        loss = cross_entropy(model, windows.batch(progress.step, arguments.batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in opts:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        progress.step += 1
        progress.tokens += arguments.batch * ROWS
        progress.seconds += time.monotonic() - started
        value = loss.item()
        if not math.isfinite(value):
            raise SystemExit(f"loss is {value} at step {progress.step}")
        running = value if running is None else 0.95 * running + 0.05 * value
        if progress.step % 20 == 0:
            rate = progress.tokens / progress.seconds
            phase = "decay" if decay_from is not None else "constant"
            print(f"step {progress.step} {phase} loss {running:.3f} {progress.tokens / 1e6:.2f} M tokens {rate:.0f} tokens/s", flush=True)
            log.write(json.dumps({**asdict(progress), "loss": running, "phase": phase}) + "\n")
        if progress.step % 200 == 0 and decay_from is None:
            save(latest, model, opts, progress)
            print(f"validation loss: docs {validation_loss(model, arguments.corpus, 'docs', 16):.3f}", flush=True)
    if stop.was_made:
        save(latest, model, opts, progress)
        print(f"stopped at step {progress.step}; the same command goes on from there", flush=True)
        return
    save(arguments.out / "final.pt", model, opts, progress)
    for kind in ("docs", "code"):
        print(f"validation loss, {kind}: {validation_loss(model, arguments.corpus, kind):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="full")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokens", type=float, default=25e6, help="tokens of the constant phase")
    parser.add_argument("--until-minutes", type=float, default=math.inf, help="end the constant phase after this long")
    parser.add_argument("--decay-share", type=float, default=0.2, help="decay steps as a share of the steps before")
    parser.add_argument("--batch", type=int, default=8, help=f"windows of {ROWS} tokens a step")
    parser.add_argument("--docs-share", type=float, default=0.7)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
