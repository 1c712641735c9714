"""How a command runs its coroutine, and how it speaks to a person."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from speculation.compiled import use_compiled
from speculation.engines.sharing import share_interpreter
from speculation.shaping import exact_time

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    """The text with its control characters replaced, one for one: a model, or a service that was called, must not steer the
    reader's terminal."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str) -> None:
    """A line on standard error, at once."""
    print(harmless(text), file=sys.stderr, flush=True)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Says what is waited for while the block runs: on a terminal, on standard error, and gone once it is over."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def choose_fast() -> None:
    """For a process that serves: choices by machine code, where the extra is installed."""
    try:
        with waiting("making the choice ready for this processor ..."):
            use_compiled()
    except ImportError as error:
        say(f"the extra outrider[compiled] is installed and cannot be used, so NumPy chooses: {error}")


def run_loop(work: Coroutine[Any, Any, int | None], is_emulated: bool = False) -> None:
    """Run to the end; timers are exact where something is emulated. Raises ``typer.Exit`` with a code that is not 0."""
    share_interpreter()
    code = exact_time.run(work) if is_emulated else asyncio.run(work)
    if code:
        raise typer.Exit(code)
