"""A verifier for the capacity benchmark: the production server, whose forwards are timed apart.

    python -m benchmarks.processes.service [--slots N] [--draft-length N] [--run-drafts all] [--one-row]
        [--max-queued N] [--max-kept N] [--touch] [--draft FOLDER --full FOLDER] [--provider cuda] [--variant NAME]
        [--max-rows N]

Prints ``verifier on HOST:PORT``, then, for every line on its standard input, one line of JSON with what it has done so far.
``--one-row`` takes away the row that evens a session's count in the attention node: the same model without its exactness.
``--touch`` takes the memory of all caches at the start, so that none of it looks like growth later.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.processes.malloc import given_out_bytes
from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel, build_engine
from cloud_verifier.server import RunningVerifier, serve
from speculation.compiled import use_compiled
from speculation.engines.fitted import FittedEngine
from speculation.engines.onnx import OnnxEngine
from speculation.engines.providers import Provider
from speculation.engines.sharing import share_interpreter, share_processor
from speculation.engines.torch_engine import TorchEngine
from speculation.heap import freeze_heap
from speculation.shaping.engine import ShapedEngine


class Timed:
    """What runs the forwards, ONNX Runtime's session or a decoder on PyTorch; it adds up what they took of the thread's own
    time, with nobody else's work in it, and how long they were under way."""

    def __init__(self, inner: Any) -> None:
        self.cpu_s = self.wall_s = 0.0
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def run_with_iobinding(self, binding: Any) -> None:
        self._timed(self._inner.run_with_iobinding, binding)

    def run(self, *rows: Any) -> Any:
        return self._timed(self._inner.run, *rows)

    def _timed(self, run: Callable[..., Any], *arguments: Any) -> Any:
        began_s, began_wall_s = time.thread_time(), time.perf_counter()
        found = run(*arguments)
        self.cpu_s += time.thread_time() - began_s
        self.wall_s += time.perf_counter() - began_wall_s
        return found


def inner_of(engine: object) -> OnnxEngine | TorchEngine:
    """An engine without the machine around it that it may play."""
    inner = engine._engine if isinstance(engine, ShapedEngine) else engine
    if isinstance(inner, FittedEngine):
        inner = inner._engine
    assert isinstance(inner, OnnxEngine | TorchEngine)
    return inner


def timed(engine: object) -> Timed:
    """Put a clock around the forwards of an engine."""
    inner = inner_of(engine)
    if isinstance(inner, OnnxEngine):
        inner._session = clock = Timed(inner._session)
    else:
        clock = Timed(inner._decoder)
        inner._decoder = clock  # type: ignore[assignment]  # it does all that the decoder does
    return clock


def done_so_far(running: RunningVerifier, full: Timed, draft: Timed | None) -> dict[str, float]:
    """Counted since the start. Seconds are this process's CPU time."""
    statistics = running.verifier.statistics
    return {
        "passes": statistics.passes,
        "rows": statistics.rows,
        "forward_s": full.cpu_s,
        "draft_forward_s": draft.cpu_s if draft else 0.0,
        "forward_wall_s": full.wall_s + (draft.wall_s if draft else 0.0),
        "cpu_s": time.process_time(),
        "at_s": time.monotonic(),
    }


def held_now(running: RunningVerifier, engine: OnnxEngine | TorchEngine) -> dict[str, float]:
    """What is open at this moment. ``blocks`` is what Python's allocator has given out: objects, near enough, and cheap."""
    seats = running.verifier.seats
    return {
        "sessions": len(seats),
        "running": len(seats.running),
        "waiting": seats.num_waiting,
        "kept": seats.num_kept,
        "caches": len(engine._slots._open),
        "bindings": len(engine._bindings) if isinstance(engine, OnnxEngine) else 0,
        "reused_tokens": seats.reused_tokens,
        "tasks": len(asyncio.all_tasks()),
        "blocks": sys.getallocatedblocks(),
        "malloc_kib": given_out_bytes() // 1024,
    }


def build(config: VerifierConfig, one_row: bool, touch: bool) -> FullModel:
    full = build_engine(config)
    engine = inner_of(full.engine)
    if isinstance(engine, OnnxEngine) and touch:
        engine._memory.fill(0)
    if isinstance(engine, OnnxEngine) and one_row:
        engine._rows_multiple = 1  # type: ignore[misc]  # a law of the class, broken here to know its price
    return full


async def run(config: VerifierConfig, one_row: bool, touch: bool) -> None:
    """Until standard input ends."""
    full = build(config, one_row, touch)
    share_processor()
    engine = inner_of(full.engine)
    clock, draft_clock = timed(engine), timed(full.draft) if full.draft is not None else None
    async with serve(config, full_model=full) as running:
        freeze_heap()
        print(f"verifier on {running.target}", flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            figures = done_so_far(running, clock, draft_clock) | held_now(running, engine)
            print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--draft-length", type=int, default=0)
    parser.add_argument("--run-drafts", choices=("paying", "all"), default="paying")
    parser.add_argument("--one-row", action="store_true")
    parser.add_argument("--max-queued", type=int, default=VerifierConfig.model_fields["max_queued"].default)
    parser.add_argument("--max-kept", type=int, default=0)
    parser.add_argument("--touch", action="store_true")
    parser.add_argument("--draft", type=Path)
    parser.add_argument("--full", type=Path)
    parser.add_argument("--provider", type=Provider, choices=tuple(Provider), default=Provider.CPU)
    parser.add_argument("--variant")
    parser.add_argument("--max-rows", type=int, default=VerifierConfig.model_fields["max_rows"].default)
    given = parser.parse_args()
    config = VerifierConfig(
        port=0,
        num_slots=given.slots,
        max_sessions=given.slots,
        max_queued=given.max_queued,
        max_kept=given.max_kept,
        draft_length=given.draft_length,
        run_drafts=given.run_drafts,
        drain_grace_s=0.0,
        draft=given.draft,
        full=given.full,
        provider=given.provider,
        variant=given.variant,
        max_rows=given.max_rows,
    )
    share_interpreter()
    use_compiled()
    asyncio.run(run(config, given.one_row, given.touch))


if __name__ == "__main__":
    main()
