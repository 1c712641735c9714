"""The interpreter handed over to an engine's thread: until when whoever gave the job waits."""

import asyncio
import threading
import time

import pytest

from speculation.engines import handover
from speculation.engines.base import Chunk
from speculation.engines.handover import HandOver, computing
from speculation.engines.onnx import OnnxEngine
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner, JobThread
from tests.speculation.engines.tiny import tiny_package


@pytest.fixture
def thread(monkeypatch):
    monkeypatch.setattr(handover, "LONGEST_S", 10.0)
    thread = JobThread("test")
    yield thread
    thread.shutdown()


async def test_whoever_gives_a_job_waits_until_it_computes_and_no_longer(thread):
    reached, is_over = [], threading.Event()

    def job():
        reached.append("prepared")
        computing()
        is_over.wait(10.0)
        reached.append("computed")

    submitted = thread.submit(job, hands_over=True)
    assert reached == ["prepared"]
    is_over.set()
    await submitted
    assert reached == ["prepared", "computed"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_job_that_never_computes_is_waited_for_until_it_is_over(thread, fails):
    reached = []

    def job():
        time.sleep(0.01)
        reached.append("over")
        if fails:
            raise LookupError

    began_s = time.monotonic()
    submitted = thread.submit(job, hands_over=True)
    assert reached == ["over"]
    assert time.monotonic() - began_s < handover.LONGEST_S / 2
    assert isinstance((await asyncio.gather(submitted, return_exceptions=True))[0], LookupError if fails else type(None))


async def test_nobody_waits_for_long():
    thread, is_over = JobThread("test"), threading.Event()
    submitted = thread.submit(lambda: is_over.wait(10.0), hands_over=True)
    assert not submitted.done()  # came back with the job under way
    is_over.set()
    assert await submitted
    thread.shutdown()


async def test_of_the_next_job_nothing_is_left_by_the_one_before(thread):
    await thread.submit(lambda: computing(), hands_over=True)
    assert await thread.submit(lambda: getattr(handover._of_thread, "act", None)) is None


async def test_a_runner_hands_over_where_it_was_told_to(monkeypatch):
    waited, plain = [], HandOver.wait
    monkeypatch.setattr(HandOver, "wait", lambda one: waited.append(one) or plain(one))
    for hands_over in (False, True):
        runner = EngineRunner.on_own_thread(RandomEngine(16, 8, seed=0), "test", hands_over)
        await runner.run(lambda engine: engine.open())
        runner.shutdown()
        assert len(waited) == hands_over


def test_an_engine_lets_go_before_its_runtime_runs(tmp_path):
    engine, left = OnnxEngine(tiny_package(tmp_path), num_slots=1), []
    hand_over, session = HandOver(), engine._session

    class Watched:
        io_binding = staticmethod(session.io_binding)

        def run_with_iobinding(self, binding):
            left.append(handover._of_thread.act)
            session.run_with_iobinding(binding)

    engine._session = Watched()
    hand_over.take()
    engine.extend([Chunk(engine.open(), [1, 2], 1)])
    assert left == [None]
    hand_over.wait()  # at once: it was let go
