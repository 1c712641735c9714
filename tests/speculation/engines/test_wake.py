"""Calls from other threads reach a loop in order, whatever one of them does, and nothing is left behind."""

import asyncio
import gc
import os
import threading

import pytest

from speculation.engines.wake import waker_of


def without_descriptors(*_):
    raise NotImplementedError


@pytest.fixture(params=["descriptor", "plain", "elsewhere"])
def loop_kind(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(asyncio.SelectorEventLoop, "add_reader", without_descriptors)
    elif request.param == "elsewhere":
        monkeypatch.delattr(os, "eventfd", raising=False)


async def all_came(waker):
    """What was called before this has been done."""
    last = asyncio.Event()
    waker.call(last.set)
    async with asyncio.timeout(5):
        await last.wait()


@pytest.mark.usefixtures("loop_kind")
async def test_calls_of_many_threads_all_come_each_threads_in_order_on_the_loop():
    waker, came, here = waker_of(asyncio.get_running_loop()), [], threading.get_ident()

    def calls(number):
        for index in range(200):
            waker.call(lambda *told: came.append((threading.get_ident(), *told)), number, index)

    threads = [threading.Thread(target=calls, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    await all_came(waker)
    assert len(came) == 1000
    for number in range(5):
        assert [index for _, who, index in came if who == number] == list(range(200))
    assert {ident for ident, _, _ in came} == {here}


@pytest.mark.usefixtures("loop_kind")
async def test_a_call_that_fails_is_told_to_the_loop_and_those_behind_it_come():
    loop, told, came = asyncio.get_running_loop(), [], []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))

    def fails():
        raise ValueError("no")

    waker = waker_of(loop)
    for call in (fails, lambda: came.append(1), fails, lambda: came.append(2)):
        waker.call(call)
    await all_came(waker)
    assert came == [1, 2]
    assert [str(error) for error in told] == ["no", "no"]


@pytest.mark.usefixtures("loop_kind")
async def test_an_idle_loop_is_woken_at_once_every_time():
    loop = asyncio.get_running_loop()
    waker = waker_of(loop)
    assert waker_of(loop) is waker
    for _ in range(50):
        came = loop.create_future()
        threading.Thread(target=waker.call, args=(came.set_result, None)).start()
        async with asyncio.timeout(5):
            await came


@pytest.mark.usefixtures("loop_kind")
def test_for_a_closed_loop_nothing_happens():
    async def made():
        return waker_of(asyncio.get_running_loop())

    waker = asyncio.run(made())
    waker.call(print, "never")
    gc.collect()
    waker.call(print, "never")


@pytest.mark.skipif(not hasattr(os, "eventfd"), reason="event descriptors are Linux's")
def test_the_descriptor_is_closed_with_its_loop():
    async def made():
        return waker_of(asyncio.get_running_loop())._descriptor

    descriptor = asyncio.run(made())
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
