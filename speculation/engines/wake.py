"""From another thread to an event loop, by the shortest way that the system has.

``call_soon_threadsafe`` wakes a loop through a pair of sockets, from which it reads until an exception says that there is no
more. On Linux a loop is woken by an event descriptor (eventfd(2)) here: one number written, one read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol


class Waker(Protocol):
    """What other threads have called on a loop."""

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Soon, on the loop, in the order of the calls. Nothing where the loop is closed: nobody is there to tell."""


class _Plain:
    """By what every loop has."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        loop = self._loop()
        if loop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(function, *arguments)


class _ByDescriptor:
    """Refers to no loop: it lives as long as its loop does, and who may still wake that."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        loop.add_reader(self._descriptor, self._run)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        self._calls.append((function, arguments))
        os.eventfd_write(self._descriptor, 1)

    def _run(self) -> None:
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            return  # woken for nothing
        for _ in range(len(self._calls)):  # what comes meanwhile has its own turn
            function, arguments = self._calls.popleft()
            try:
                function(*arguments)
            except Exception as error:  # as a loop does with any call
                told = {"message": f"a call from another thread failed: {function}", "exception": error}
                asyncio.get_running_loop().call_exception_handler(told)


_wakers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Waker] = weakref.WeakKeyDictionary()


def waker_of(loop: asyncio.AbstractEventLoop) -> Waker:
    """The loop's own. To be asked for on the loop."""
    waker = _wakers.get(loop)
    if waker is None:
        waker = _wakers[loop] = _made(loop)
    return waker


def _made(loop: asyncio.AbstractEventLoop) -> Waker:
    if not hasattr(os, "eventfd"):
        return _Plain(loop)
    try:
        return _ByDescriptor(loop)
    except NotImplementedError:  # a loop without descriptors
        return _Plain(loop)
