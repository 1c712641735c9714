"""One owner for an engine: jobs run first come, first served, off the event loop, and take at least their emulated time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Generic, TypeVar

from speculation.engines.base import Charging, Engine

T = TypeVar("T")
E = TypeVar("E", bound=Engine)


class EngineRunner(Generic[E]):
    """Runs jobs on an engine. All access to the engine goes through ``run``; nothing else may touch it.

    ``executor`` None computes inline, on the loop itself: only for a virtual clock and for tests.
    """

    def __init__(self, engine: E, executor: Executor | None = None) -> None:
        self.engine = engine
        self._executor = executor
        # Asked once: the check of a runtime protocol costs as much as a small forward.
        self._charging = engine if isinstance(engine, Charging) else None
        self._turn = asyncio.Lock()

    @classmethod
    def on_own_thread(cls, engine: E, name: str) -> EngineRunner[E]:
        return cls(engine, ThreadPoolExecutor(1, thread_name_prefix=name))

    async def run(self, job: Callable[[E], T]) -> T:
        """The job's result, once the job is done and its emulated time is over."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            began = loop.time()
            if self._executor is None:
                result = job(self.engine)
            else:
                result = await asyncio.shield(loop.run_in_executor(self._executor, job, self.engine))
            if self._charging is not None:
                await asyncio.sleep(max(0.0, began + self._charging.take_charge_s() - loop.time()))
            return result

    def shutdown(self) -> None:
        """End the thread once its job is done."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
