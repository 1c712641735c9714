"""An event loop whose clock jumps to the next timer instead of waiting: hours pass in milliseconds, and exactly.

::

    def test_a_nap_takes_exactly_an_hour():
        async def nap() -> float:
            await asyncio.sleep(3600)
            return asyncio.get_running_loop().time()

        assert virtual_time.run(nap()) == 3600

Only what runs on the loop itself may be awaited: timers, futures, queues, in-memory links, engines run inline. What is handed
to the loop's own threads, as the tokens of a long prompt are, is computed at once and takes no time. Work on any other thread
or a real socket would look like nothing to wait for, which is an error here, not a hang.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Given = TypeVarTuple("Given")


class StalledError(RuntimeError):
    """Nothing is ready and no timer is set: in real time this would hang for ever."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: where the loop would, its clock is moved on."""

    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and (timeout is None or timeout > 0):
            self.loop.jump()
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at time 0; each timer fires exactly at its own time."""

    def __init__(self) -> None:
        self._now_s = 0.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._now_s

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Given], T], *args: *Given) -> asyncio.Future[T]:
        """Computed here, before anything else."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def jump(self) -> None:
        """To the next timer. Raises ``StalledError`` where there is none."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        if not timers:
            raise StalledError("every task waits for something that no timer will bring")
        self._now_s = max(self._now_s, timers[0].when())


def run(main: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that runs from time 0 on a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
