"""What a distillation is asked for, checked before a model is read, and compared where a run goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from outrider.pictures import check_can_be_drawn
from outrider.training.place import PRECISIONS
from outrider.training.samples import PROMPT_ROWS
from speculation.engines.files import read_json
from speculation.engines.package_writer import write_json
from speculation.engines.staging import check_is_free
from speculation.engines.variants import LINEARS
from speculation.errors import InvalidRequestError, PackageError, UnknownNameError

RUN = "run.json"
LEAST_ROWS = PROMPT_ROWS + 16
MOST_SEED = 2**34 - 1
"""The parts of the samples have seeds from a billion times this one on, and PyTorch takes 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to distil. Either ``draft`` or ``shape`` is given: the hidden size, the feed-forward's, layers, heads and key-value
    heads of a new one. ``tokens`` and ``until_minutes`` are of the whole run; the decay is a part of it."""

    full: Path
    out: Path
    work: Path
    data: tuple[Path, ...]
    draft: Path | None = None
    shape: tuple[int, int, int, int, int] | None = None
    variants: tuple[str, ...] = ("fp32", "q4")
    tokens: float = 10e6
    until_minutes: float = math.inf
    rows: int = 256
    batch: int = 16
    samples: int = 4096
    samples_at_once: int = 64
    sample_share: float = 0.75
    held_out_share: float = 0.05
    is_quantised: bool | None = None
    muon_lr: float = 0.02
    adam_lr: float = 5e-3
    decay_share: float = 0.9
    warmup_steps: int = 50
    checkpoint_steps: int = 200
    seed: int = 0
    device: str = "cpu"
    precision: str | None = None
    is_compiled: bool = False
    threads: int = 1
    is_resumed: bool = False
    name: str | None = None
    licence: str | None = None
    plot: Path | None = None


NOT_OF_THE_RUN = {"out", "work", "data", "device", "precision", "is_compiled", "threads", "is_resumed", "name", "licence"}
NOT_OF_THE_RUN |= {"plot", "full", "draft"}
"""What may change where a run goes on; models and texts are compared by their digests."""


def check(job: Job) -> None:
    """Raises ``InvalidRequestError`` for all that can be known to be wrong before a model is read."""
    if (job.draft is None) == (job.shape is None):
        raise InvalidRequestError("name a draft to go on from, or the shape of a new one: either --draft or --shape", "draft")
    for variant in job.variants:
        if variant not in LINEARS:
            raise UnknownNameError("variant", variant, LINEARS)
    if len(set(job.variants)) != len(job.variants) or not job.variants:
        raise InvalidRequestError(f"name each variant once, and one at least, not {list(job.variants)}", "variant")
    if not job.data:
        raise InvalidRequestError("there is nothing to learn from; name files with --data", "data")
    _check_numbers(job)
    for name, length in (("tokens", job.tokens), ("until-minutes", job.until_minutes)):
        if not length > 0:
            raise InvalidRequestError(f"--{name} must be more than 0, not {length:g}", name)
    if not 0 < job.held_out_share < 1:
        raise InvalidRequestError(f"the share that is held out must be between 0 and 1, not {job.held_out_share:g}", "held-out")
    check_is_free(job.out)
    if job.out.resolve() in (job.work.resolve(), *job.work.resolve().parents):
        raise InvalidRequestError(
            f"{job.work} lies in {job.out}, which is put in place as a whole at the end; name a folder beside it", "work"
        )
    if not job.is_resumed and job.work.exists() and any(job.work.iterdir()):
        hint = "go on with it (--resume), name another folder for this one (--work), or take it away"
        raise InvalidRequestError(f"{job.work} holds a run already; {hint}", "work")
    if job.plot is not None:
        _check_plot(job.plot)


def _check_numbers(job: Job) -> None:
    counts = {"rows": job.rows, "batch": job.batch, "samples": job.samples, "samples-at-once": job.samples_at_once}
    counts |= {"checkpoint-steps": job.checkpoint_steps, "threads": job.threads}
    for name, count in counts.items():
        least = LEAST_ROWS if name == "rows" else 1
        if count < least:
            raise InvalidRequestError(f"--{name} must be at least {least}", name)
    for name, rate in (("muon-lr", job.muon_lr), ("adam-lr", job.adam_lr)):
        if not 0 <= rate < math.inf:
            raise InvalidRequestError(f"--{name} must be a number from 0 on, not {rate:g}", name)
    if not 0 <= job.seed <= MOST_SEED:
        raise InvalidRequestError(f"--seed must be from 0 to {MOST_SEED}, not {job.seed}", "seed")
    if job.precision not in (None, *PRECISIONS):
        raise UnknownNameError("precision", str(job.precision), PRECISIONS)


def _check_plot(file: Path) -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InvalidRequestError(f"--plot needs an extra: pip install 'outrider[plot]' ({error})", "plot") from error
    if not file.parent.is_dir() or file.suffix not in (".png", ".svg", ".pdf"):
        raise InvalidRequestError(f"{file} must be a .png, .svg or .pdf in a folder that is there", "plot")
    check_can_be_drawn(file, "plot")


def remember(job: Job, settings: Mapping[str, Any]) -> None:
    """Writes what the run is, or compares it where one goes on. Raises ``InvalidRequestError`` where it differs, and
    ``PackageError`` where what was written is damaged, or cannot be written."""
    file, wanted = job.work / RUN, json.loads(json.dumps({**_of_the_run(job), **settings}))
    if file.is_file():
        before = _before(file)
        differ = sorted(name for name in {*before, *wanted} if before.get(name) != wanted.get(name))
        if differ:
            hint = "a run goes on with what it began with; name another folder (--work) for another run"
            raise InvalidRequestError(f"{job.work} holds a run with another {', '.join(differ)}; {hint}", "resume")
        return
    partial = file.with_suffix(".partial")
    try:
        job.work.mkdir(parents=True, exist_ok=True)
        write_json(partial, wanted)
        partial.replace(file)
    except OSError as error:
        # Half of it would be a run that is there, and with which nothing can go on.
        with suppress(OSError):
            partial.unlink()
        raise PackageError(f"{file} could not be written: {error}") from error


def _before(file: Path) -> dict[str, Any]:
    hint = "without it nobody knows what the run began with; name another folder (--work) for a new one"
    try:
        found = read_json(file)
    except PackageError as error:
        raise PackageError(f"{error}; {hint}") from error
    if not isinstance(found, dict):
        raise PackageError(f"{file} must hold a JSON object; {hint}")
    return found


def _of_the_run(job: Job) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(job).items() if name not in NOT_OF_THE_RUN}
    limits = {name: kept[name] for name in ("tokens", "until_minutes")}
    return {**kept, **{name: None if math.isinf(value) else value for name, value in limits.items()}}
