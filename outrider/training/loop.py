"""The training loop: constant learning rate, then a linear decay; checkpoints, resume, progress."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.training.network import Decoder
from outrider.training.optimiser import optimisers
from outrider.training.place import Place
from outrider.training.samples import Tell, said
from speculation.errors import EngineError, PackageError

REPORT_STEPS = 20
"""Steps between two lines of progress; only then does the host wait for the device."""
LOG = "log.jsonl"
LATEST, FINAL = "latest.pt", "final.pt"

Measures = Callable[[int], dict[str, float]]
"""What a run is judged by: name -> value, taken on so many held-out windows."""
Watch = Callable[[float], None]
"""Told after each step which share of the run is over, as far as that can be known."""


@dataclass(slots=True)
class Progress:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    began_from: str = ""
    """Provenance of the released weights that the run went on from; empty for a run from random weights."""
    decay_from: int | None = None
    """The step at which the decay began; None before it, and where a decay is always done as a whole."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast a run learns. The constant phase ends after ``tokens`` or ``until_minutes`` of this process; the
    decay takes ``decay_share`` of the steps before it.

    ``num_steps``: of the whole run, where its constant phase ended by tokens.
    ``resumes_decay``: a run that was stopped in its decay goes on there. Otherwise it goes on from the constant phase's last
    checkpoint, so that a longer phase can be asked for.
    """

    tokens: float
    until_minutes: float = math.inf
    decay_share: float = 0.9
    warmup_steps: int = 50
    checkpoint_steps: int = 200
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    num_steps: int | None = None
    resumes_decay: bool = False


class StopRequest:
    """Set by SIGTERM or SIGINT within its block, so that a run ends with a checkpoint. Other threads get no signals."""

    def __init__(self) -> None:
        self.was_made = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._make) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _make(self, *_: object) -> None:
        self.was_made = True


def cross_entropy(logits_of: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Mean next-token loss in nats of token ids [batch, rows + 1]."""
    logits = logits_of(batch[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@torch.no_grad()
def mean_loss(logits_of: Callable[[Tensor], Tensor], windows: Tensor) -> float:
    """Mean next-token loss in nats over windows [count, rows + 1], 8 at a time."""
    return float(torch.stack([cross_entropy(logits_of, part) for part in windows.split(8)]).mean())


def save(path: Path, model: Decoder, opts: list[torch.optim.Optimizer], progress: Progress) -> None:
    """Write a checkpoint whole or not at all."""
    partial = path.with_suffix(".partial")
    state = {"model": model.state_dict(), "optimisers": [o.state_dict() for o in opts], "progress": asdict(progress)}
    try:
        torch.save(state, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        raise EngineError(f"{path} could not be written: {error}; a run goes on from its last checkpoint") from error


def load(path: Path, model: Decoder, opts: list[torch.optim.Optimizer] | None = None) -> Progress:
    """Read a checkpoint into a model and, where given, its optimisers. Raises ``PackageError`` for a file that is none."""
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is cut off, or was never one")
        state = torch.load(path, weights_only=True, map_location=model.cos.device)
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(opts or [], state["optimisers"], strict=False):
            optimiser.load_state_dict(saved)
        return Progress(**state["progress"])
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
        hint = "a run begins anew without it, or goes on from another checkpoint in its place"
        raise PackageError(f"{path} is no checkpoint of this run ({error}); {hint}") from error


def learning_rate_scale(progress: Progress, warmup_steps: int, decay_from: int | None, decay_steps: int) -> float:
    """Warm-up, constant, then linear to 0 over ``decay_steps`` from ``decay_from`` on."""
    scale = min(1.0, (progress.step + 1) / warmup_steps)
    return scale if decay_from is None else scale * max(0.0, 1 - (progress.step - decay_from) / decay_steps)


class Run:
    """One training run in a folder: ``latest.pt`` and ``decaying.pt`` while it runs, ``constant.pt`` before the decay,
    ``final.pt`` at the end, and ``log.jsonl``. A run that resumes its decay has ``latest.pt`` and ``final.pt`` alone."""

    def __init__(
        self,
        model: Decoder,
        out: Path,
        schedule: Schedule,
        place: Place,
        measures: Measures,
        start: Callable[[], Progress] = Progress,
        tell: Tell = said,
        watch: Watch = lambda share: None,
    ) -> None:
        """``start`` gives the model the weights that a new run begins with; it is not called where a run goes on."""
        self.model, self.out, self.schedule = model.to(place.device), out, schedule
        self._measures, self._tell, self._watch = measures, tell, watch
        self.optimisers = optimisers(model, schedule.muon_lr, schedule.adam_lr, place.precision)
        self._bases = (schedule.muon_lr, schedule.adam_lr)
        self.out.mkdir(parents=True, exist_ok=True)
        latest = self.out / LATEST
        self.progress = load(latest, model, self.optimisers) if latest.exists() else start()
        self._log = self.out / LOG
        self._running: Tensor | None = None
        tell(f"{model.num_parameters / 1e6:.2f} M parameters, from step {self.progress.step}")

    def go(self, loss_of_step: Callable[[int], Tensor], tokens_per_step: int) -> bool:
        """Train until the constant phase and the decay are over; False where a signal asked to stop before."""
        began, decay_from = time.monotonic(), self.progress.decay_from
        if self.progress.step == 0 and (self.progress.began_from or self.schedule.resumes_decay):
            self.validate(8)
        with StopRequest() as stop:
            while not stop.was_made:
                elapsed_s = time.monotonic() - began
                if decay_from is None and self._constant_phase_is_over(elapsed_s):
                    decay_from = self._begin_decay()
                decay_steps = self._decay_steps(decay_from or 0)
                scale = learning_rate_scale(self.progress, self.schedule.warmup_steps, decay_from, decay_steps)
                if scale == 0:
                    self._save(FINAL)
                    self.validate(32)
                    return True
                self._step(loss_of_step, tokens_per_step, scale, "constant" if decay_from is None else "decay")
                self._watch(self._share_done(decay_from, decay_steps, elapsed_s))
                if self.progress.step % self.schedule.checkpoint_steps == 0:
                    self._save(LATEST if decay_from is None or self.schedule.resumes_decay else "decaying.pt")
                    self.validate(8)
        if decay_from is None or self.schedule.resumes_decay:
            self._save(LATEST)
        self._tell(f"stopped at step {self.progress.step}; a run goes on from its last checkpoint")
        return False

    def validate(self, count: int) -> None:
        """Tell and log what is measured on held-out text."""
        measured = self._measures(count)
        self._tell("; ".join(f"{name}: {value:.3f}" for name, value in measured.items()))
        self._write(measured)

    def _begin_decay(self) -> int:
        if self.schedule.resumes_decay:
            self.progress.decay_from = self.progress.step
        else:
            self._save("constant.pt")
        return self.progress.step

    def _decay_steps(self, decay_from: int) -> int:
        total, ended_by_tokens = self.schedule.num_steps, self.progress.tokens >= self.schedule.tokens
        if total is not None and ended_by_tokens and total > decay_from:
            return total - decay_from
        return max(1, int(decay_from * self.schedule.decay_share))

    def _constant_phase_is_over(self, elapsed_s: float) -> bool:
        return self.progress.tokens >= self.schedule.tokens or elapsed_s / 60 >= self.schedule.until_minutes

    def _share_done(self, decay_from: int | None, decay_steps: int, elapsed_s: float) -> float:
        of_constant = max(self.progress.tokens / max(1, self.schedule.tokens), elapsed_s / 60 / self.schedule.until_minutes)
        of_decay = 0.0 if decay_from is None else (self.progress.step - decay_from) / decay_steps
        constant = min(1.0, of_constant) if decay_from is None else 1.0
        return (constant + self.schedule.decay_share * of_decay) / (1 + self.schedule.decay_share)

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
            raise EngineError(f"the loss is {loss} at step {p.step} or a little before; smaller learning rates may help")
        rate = p.tokens / max(p.seconds, 1e-9)
        self._tell(f"step {p.step} ({phase}) loss {loss:.3f}, {p.tokens / 1e6:.2f} M tokens, {rate:.0f} tokens/s")
        self._write({"loss": loss, "phase": phase})

    def _write(self, entries: dict[str, Any]) -> None:
        with self._log.open("a") as log:
            log.write(json.dumps({**asdict(self.progress), **entries}) + "\n")
