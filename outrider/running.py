"""What commands share that run for a while: the loop that they run in, the log, and what is said on standard error."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any

import typer

from speculation.shaping import exact_time

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
TOLD = ("speculation.engines.exports", "speculation.engines.remote", "outrider.pool")
"""Loggers that are heard from INFO on: they say how a model is run, or by whom, and who serves."""


def start_log() -> None:
    """Warnings, and what nothing else tells: why a model is slower."""
    logging.basicConfig(format=LOG_FORMAT)
    for name in TOLD:
        logging.getLogger(name).setLevel(logging.INFO)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(work: Coroutine[Any, Any, int | None], is_emulated: bool = False) -> None:
    """Run to the end, with timers as exact as emulated time needs them. Raises ``typer.Exit`` for a code that is not 0."""
    code = exact_time.run(work) if is_emulated else asyncio.run(work)
    if code:
        raise typer.Exit(code)
