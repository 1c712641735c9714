"""One owner for an engine: jobs run first come, first served, off the event loop, and take at least their emulated time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from speculation.engines.base import Charging, Engine, Timed
from speculation.engines.handover import HandOver, computing
from speculation.engines.sharing import computes
from speculation.engines.wake import Waker, waker_of

T = TypeVar("T")
E = TypeVar("E", bound=Engine)
HAND_OVER_S = 0.003
"""An emulated job that comes this soon behind another began when that one was over: what lies between is this computer's own
timers and software, and the utilisation of a profile, taken from published speeds, holds a machine's already. Under a virtual
clock neither takes time, and nothing is moved."""


class JobThread:
    """A thread that calls one function after the other, first come, first served.

    A plain queue one way and one wake-up of the loop the other way: a third of what an executor's futures cost.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        # A daemon, so that an owner that forgets ``shutdown`` keeps no process alive; it ends with its owner.
        self._thread = threading.Thread(target=_serve, args=(self._calls,), name=name, daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, self._calls.put, None)

    def submit(self, function: Callable[[], Any], hands_over: bool = False) -> asyncio.Future[Any]:
        """What the function returns or raises, told to the running loop. Once submitted it runs, whoever waits for it.

        ``hands_over`` gives it the interpreter at once (``handover.py``). Raises ``RuntimeError`` after ``shutdown``.
        """
        if not self._end.alive:
            raise RuntimeError("this thread was shut down: it takes no more jobs")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        hand_over = HandOver() if hands_over else None
        self._calls.put((function, waker_of(loop), future, hand_over))
        if hand_over is not None:
            hand_over.wait()
        return future

    def shutdown(self) -> None:
        """Wait until all that was submitted is done. Safe to call twice."""
        self._end()
        self._thread.join()


_Call = tuple[Callable[[], Any], Waker, "asyncio.Future[Any]", HandOver | None]


def _serve(calls: SimpleQueue[_Call | None]) -> None:
    computes()
    while (call := calls.get()) is not None:
        function, waker, future, hand_over = call
        result, error = None, None
        if hand_over is not None:
            hand_over.take()
        try:
            result = function()
        except BaseException as raised:
            error = raised
        computing()  # if it has not, nobody waits on for that
        waker.call(_tell, future, result, error)
        del call, function, waker, future, hand_over, result, error  # nothing is kept alive while the thread waits


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return  # its waiter gave up
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class EngineRunner(Generic[E]):
    """Runs jobs on an engine. All access to the engine goes through ``run``; nothing else may touch it.

    ``thread`` None computes inline, on the loop itself: only for a virtual clock and for tests. ``hands_over``: a job has the
    interpreter before all that the loop has to do. ``may_follow``: whether the thread may run one job behind the other without
    the loop. ``is_charged``: the newest job took emulated time, or the first will, by all that is known. ``is_inline``: jobs
    hold up the loop.
    """

    def __init__(self, engine: E, thread: JobThread | None = None, hands_over: bool = False, may_follow: bool = True) -> None:
        self.engine = engine
        self.is_inline = thread is None
        self._thread, self._hands_over, self._may_follow = thread, hands_over, may_follow
        # Asked once: the check of a runtime protocol costs as much as a small forward.
        self._charging = engine if isinstance(engine, Charging) else None
        self.is_charged = self._charging is not None
        self._told_time = engine if isinstance(engine, Timed) else None
        self._turn = asyncio.Lock()
        self._free_at_s = -math.inf

    @classmethod
    def on_own_thread(cls, engine: E, name: str, hands_over: bool = False, may_follow: bool = True) -> EngineRunner[E]:
        return cls(engine, JobThread(name), hands_over, may_follow)

    async def run(
        self,
        job: Callable[[E], T],
        abandon: asyncio.Event | None = None,
        follow: Callable[[T], Callable[[E], T] | None] | None = None,
    ) -> T:
        """The job's result, once the job is done and its emulated time is over.

        ``abandon`` cuts the emulated time short: once it is set, what has passed is passed and the rest is not waited for. The
        job itself always runs to its end, also where the caller is cancelled, and no other begins before that.

        ``follow`` saves the way to the loop and back: the engine's thread asks it, with a job's result, for another job to run
        at once, until it gives None; the result is then the last job's. It is not asked of work that took emulated time, where
        jobs run inline, or where the loop shall have its turn between two jobs.
        """
        await self._turn.acquire()  # not ``async with``: that takes two coroutines more, and most of the time it is free
        try:
            began_s = self._emulated_start_s(asyncio.get_running_loop().time())
            if self._thread is None:
                result, charge_s = self._compute(job, began_s)
            else:
                then = follow if self._may_follow else None
                submitted = self._thread.submit(lambda: self._compute(job, began_s, then), self._hands_over)
                result, charge_s = await submitted
            self.is_charged = charge_s is not None
            if charge_s is not None:
                await _until(began_s + charge_s, abandon)
                self._free_at_s = min(began_s + charge_s, asyncio.get_running_loop().time())
            return result
        finally:
            self._turn.release()

    def _emulated_start_s(self, now_s: float) -> float:
        return now_s if self._thread is None else emulated_start_s(now_s, self._free_at_s)

    def _compute(
        self, job: Callable[[E], T], began_s: float, follow: Callable[[T], Callable[[E], T] | None] | None = None
    ) -> tuple[T, float | None]:
        """The last job's result, and its emulated seconds: taken here, so that no other pays for a job whose caller gave up."""
        if self._told_time is not None:
            self._told_time.work_begins(began_s)
        while True:
            result = job(self.engine)
            charge_s = None if self._charging is None else self._charging.take_charge_s()
            computing()  # if it has not, nobody waits on for that
            following = None if follow is None or charge_s is not None else follow(result)
            if following is None:
                return result, charge_s
            job = following

    def shutdown(self) -> None:
        """End the thread once its jobs are done."""
        if self._thread is not None:
            self._thread.shutdown()


def emulated_start_s(now_s: float, free_at_s: float) -> float:
    """When a job that is there now began, where the engine had been free from ``free_at_s`` on."""
    return free_at_s if now_s - free_at_s <= HAND_OVER_S else now_s


async def _until(moment_s: float, abandon: asyncio.Event | None) -> None:
    """Let the loop's clock reach a moment, or the event be set. Always at least one turn of the loop."""
    if abandon is None or abandon.is_set():
        left_s = 0.0 if abandon is not None else moment_s - asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, left_s))
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout_at(moment_s):
            await abandon.wait()
