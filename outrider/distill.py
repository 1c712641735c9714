"""`outrider models distill`: its flags, and what is shown while it runs."""

from __future__ import annotations

import json as json_format
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from speculation.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from outrider.training.job import Outcome

EXTRA = "pip install 'outrider[train]'"
INTERRUPTED = 130
SHAPE_PARTS = 5

FullOption = Annotated[Path, typer.Option(metavar="F", help="The model to follow: a package or a checkpoint.")]
DraftOption = Annotated[Path | None, typer.Option(metavar="D", help="The draft to go on from: a package or a checkpoint.")]
ShapeOption = Annotated[
    str | None, typer.Option(metavar="H,I,L,A,KV", help="A new draft: width, feed-forward, layers, heads, key-value heads.")
]
DataOption = Annotated[
    list[Path], typer.Option("--data", metavar="FILE...", help='Texts in UTF-8, or .jsonl with an entry "text".')
]
OutOption = Annotated[Path, typer.Option(metavar="DIR", help="The package to make: a folder that is new, or empty.")]
WorkOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Checkpoints, samples and log.jsonl; OUT.run by default.")]
VariantOption = Annotated[list[str] | None, typer.Option(metavar="NAME", help="fp32 and q4 by default; may repeat.")]
StepsOption = Annotated[int | None, typer.Option(metavar="N", help="Steps in all.")]
TokensOption = Annotated[float | None, typer.Option(metavar="N", help="Or tokens in all; 10e6 by default.")]
MinutesOption = Annotated[float | None, typer.Option(metavar="N", help="Or minutes, about.")]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run that lies in the work folder.")]
DeviceOption = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, mps, ...")]
PrecisionOption = Annotated[str | None, typer.Option(metavar="NAME", help="fp32 or bf16; the device's fastest by default.")]
QuantisedOption = Annotated[
    bool | None, typer.Option("--quantised/--no-quantised", help="Teach it as its 4-bit graph computes; with q4 by default.")
]
PlotOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw acceptance against steps (extra plot).")]


def distill_command(
    full: FullOption,
    data: DataOption,
    out: OutOption,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE...]", help="More texts.")] = None,
    draft: DraftOption = None,
    shape: ShapeOption = None,
    work: WorkOption = None,
    variant: VariantOption = None,
    steps: StepsOption = None,
    tokens: TokensOption = None,
    until_minutes: MinutesOption = None,
    resume: ResumeOption = False,
    rows: Annotated[int, typer.Option(metavar="N", help="Tokens of a window.")] = 256,
    batch: Annotated[int, typer.Option(metavar="N", help="Windows a step.")] = 16,
    samples: Annotated[int, typer.Option(metavar="N", help="Continuations drawn from the full model.")] = 4096,
    samples_at_once: Annotated[int, typer.Option(metavar="N", help="Drawn in one batch.")] = 64,
    held_out: Annotated[float, typer.Option(metavar="SHARE", help="Of the texts, to judge by.")] = 0.05,
    quantised: QuantisedOption = None,
    muon_lr: Annotated[float, typer.Option(metavar="RATE", help="Learning rate of the matrices.")] = 0.02,
    adam_lr: Annotated[float, typer.Option(metavar="RATE", help="Learning rate of the rest.")] = 5e-3,
    checkpoint_steps: Annotated[int, typer.Option(metavar="N", help="Steps between two checkpoints.")] = 200,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = None,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the forward.")] = False,
    threads: Annotated[int, typer.Option(metavar="N", help="Of the CPU.")] = 1,
    seed: Annotated[int, typer.Option(metavar="S")] = 0,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="What it is called; DIR's name by default.")] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="The terms of the weights.")] = None,
    plot: PlotOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")] = False,
) -> None:
    """Distil a draft from a full model, and make a package of it (extra train).

    The draft learns the full model's distribution on its own continuations and on texts; acceptance on texts that are held out
    is told as it goes. Ctrl-C leaves a checkpoint, and --resume goes on there.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(f"distilling needs an extra: {EXTRA} ({error})") from error
    from outrider.training.job import distil
    from outrider.training.request import Job

    given: dict[str, Any] = {"tokens": _tokens(steps, tokens, until_minutes, batch * rows)}
    given |= {"until_minutes": math.inf if until_minutes is None else until_minutes}
    given |= {"variants": tuple(variant)} if variant else {}
    job = Job(
        full=full,
        out=out,
        work=work or _beside(out),
        data=(*data, *(more or ())),
        draft=draft,
        shape=_shape(shape),
        rows=rows,
        batch=batch,
        samples=samples,
        samples_at_once=samples_at_once,
        held_out_share=held_out,
        is_quantised=quantised,
        muon_lr=muon_lr,
        adam_lr=adam_lr,
        checkpoint_steps=checkpoint_steps,
        seed=seed,
        device=device,
        precision=precision,
        is_compiled=compile,
        threads=threads,
        is_resumed=resume,
        name=name,
        licence=licence,
        plot=plot,
        **given,
    )
    with _shown(is_terminal=sys.stderr.isatty() and not json) as (tell, watch):
        outcome = distil(job, tell, watch)
    _tell(outcome, job.out, job.work, json)


def _beside(out: Path) -> Path:
    named = out if out.name else out.resolve()
    return named.with_name(named.name + ".run")


def _tell(outcome: Outcome, out: Path, work: Path, is_json: bool) -> None:
    if is_json:
        before_after = {name: list(values) for name, values in outcome.acceptance.items()}
        told: dict[str, Any] = {"package": str(out) if outcome.is_done else None, "run": str(work), "steps": outcome.steps}
        told |= {"tokens": outcome.tokens, "seconds": round(outcome.seconds, 3), "acceptance": before_after}
        print(json_format.dumps(told))
    elif outcome.is_done:
        grew = "; ".join(f"{name} {after:.3f} (before {before:.3f})" for name, (before, after) in outcome.acceptance.items())
        print(f"{out}: {outcome.steps} steps, {outcome.tokens / 1e6:.2f} M tokens; {grew}; the run is kept in {work}")
    if not outcome.is_done:
        print(f"the same command with --resume goes on in {work}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED)


def _tokens(steps: int | None, tokens: float | None, until_minutes: float | None, tokens_per_step: int) -> float:
    if steps is not None and tokens is not None:
        raise InvalidRequestError("how long is said in --steps or in --tokens, not in both", "steps")
    if steps is not None:
        return float(steps * tokens_per_step)
    if tokens is not None:
        return tokens
    return 10e6 if until_minutes is None else math.inf


def _shape(text: str | None) -> tuple[int, int, int, int, int] | None:
    if text is None:
        return None
    try:
        hidden, inner, layers, heads, kv_heads = (int(part) for part in text.split(","))
    except ValueError:
        raise InvalidRequestError(
            f"--shape has {SHAPE_PARTS} whole numbers, such as 128,352,2,4,2, not {text!r}", "shape"
        ) from None
    return hidden, inner, layers, heads, kv_heads


@contextmanager
def _shown(is_terminal: bool) -> Iterator[tuple[Callable[[str], None], Callable[[float], None]]]:
    """Lines on stderr, with a bar below them on a terminal."""
    if not is_terminal:
        yield lambda line: print(line, file=sys.stderr, flush=True), lambda share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("distilling"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=1.0)
        yield (
            lambda line: bar.console.print(line, highlight=False, markup=False),
            lambda share: bar.update(task, completed=share),
        )
