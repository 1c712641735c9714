"""Independent measurements on several processes: in order, with a bar that tells how far they are."""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from rich.progress import Progress

MOST_PROCESSES = 64

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def in_processes(
    job: Callable[[Item], Outcome], items: Sequence[Item], num_processes: int, title: str = "cells"
) -> list[Outcome]:
    """What ``job`` gives for each item; with one process, in this one."""
    with Progress(transient=True) as progress:
        if num_processes == 1:
            return [job(item) for item in progress.track(items, description=title)]
        # Spawned: the bar has a thread, and a fork would copy its locks.
        with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:
            return list(progress.track(pool.map(job, items), total=len(items), description=title))


def add_processes_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--processes", type=_count, default=2, metavar="N", help="cells that run at once (%(default)s)")


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= MOST_PROCESSES:
        raise argparse.ArgumentTypeError(f"{count} is not between 1 and {MOST_PROCESSES}")
    return count
