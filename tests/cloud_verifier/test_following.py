"""Passes that follow each other on the engine's thread, while the event loop is at something else."""

import asyncio
import sys
import threading
import time
from contextlib import ExitStack, asynccontextmanager

import pytest

from cloud_verifier import assembly
from cloud_verifier.assembly import assemble
from cloud_verifier.engine import FullModel
from cloud_verifier.metrics import PREFIX, VerifierMetrics
from cloud_verifier.observer import UNOBSERVED
from cloud_verifier.verification import Verifier
from speculation.engines.handover import computing
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.errors import DeadlineError, EngineError, LinkError, MalformedMessageError, OutriderError
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Cancel, Draft, Finished, FinishReason, Node, Opened, Verdict
from tests.cloud_verifier.doubles import (
    CONTEXT,
    IDENTITY,
    SAMPLED,
    SELF_TEST,
    VOCABULARY,
    WatchedEngine,
    open_message,
    settings,
)
from tests.cloud_verifier.sessions import LIMIT_S, device, truth_of
from tests.support.figures import Figures

LONG_S = 10.0


@asynccontextmanager
async def running(engine, **changes):
    """A verifier as a service puts it together."""
    with ExitStack() as stack:
        verifier = (await assemble(FullModel(engine, IDENTITY, SELF_TEST), settings(**changes), stack)).newest
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
            group.create_task(verifier.run())
            try:
                yield verifier
            finally:
                engine.gate.set()
                verifier.stop()


@pytest.fixture(autouse=True)
def two_processors(monkeypatch):
    """Whatever this machine has."""
    monkeypatch.setattr(assembly, "num_processors", lambda: 2)


def hold_the_loop(until) -> None:
    """Nothing of the loop runs meanwhile."""
    end_s = time.monotonic() + LONG_S
    while not until() and time.monotonic() < end_s:
        time.sleep(0.0005)
    assert until()


class Pause:
    """So long from its construction on."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    def is_over(self) -> bool:
        return time.monotonic() > self._end_s


async def under_way(engine, verifier, **changes):
    """A session whose first pass is held, with a loop that will not turn before the test lets it."""
    engine.gate.clear()
    live = verifier.attach(open_message(**changes))
    while not engine.entered.is_set():  # noqa: ASYNC110
        await asyncio.sleep(0)
    return live


async def told(live) -> list[object]:
    """All that the device is told, and the error that ends it, if one does."""
    messages = []
    try:
        while (message := await live.next()) is not None:
            messages.append(message)
    except OutriderError as error:
        messages.append(error)
    return messages


async def test_passes_go_on_without_the_loop_until_nobody_can_be_told_more():
    engine = WatchedEngine()
    async with running(engine, outbox_messages=6) as verifier:
        live = await under_way(engine, verifier, max_tokens=20)
        engine.gate.set()
        hold_the_loop(lambda: len(engine.passes) >= 5)
        hold_the_loop(Pause(0.05).is_over)
        assert len(engine.passes) == 5  # with Opened six messages wait
        messages = await told(live)
    assert [type(message) for message in messages] == [Opened, *[Verdict] * 20, Finished]
    assert [message.choice for message in messages[1:-1]] == truth_of([1, 2, 3], SamplingParameters(), 20)[3:]


async def test_drafts_that_came_beside_a_pass_are_in_the_next_though_the_loop_had_no_turn():
    engine, truth = WatchedEngine(), truth_of([1, 2, 3], SamplingParameters(), 12)
    async with running(engine) as verifier:
        live = await under_way(engine, verifier, max_tokens=12)
        live.receive(Draft(tuple(Node(n, n - 1, truth[2 + n], 3 if n == 1 else 0) for n in range(1, 6)), 3))
        engine.gate.set()
        hold_the_loop(lambda: len(engine.passes) >= 2)
        await told(live)
    assert engine.passes[:3] == [(3,), (5,), (1,)]


@pytest.mark.parametrize(("num_processors", "threads"), [(1, 1), (2, 2), (4, 8)])
async def test_where_forwards_have_all_processors_the_loop_has_its_turn_in_between(monkeypatch, num_processors, threads):
    engine = WatchedEngine()
    monkeypatch.setattr(assembly, "num_processors", lambda: num_processors)
    async with running(engine, threads=threads) as verifier:
        live = await under_way(engine, verifier, max_tokens=5)
        engine.gate.set()
        hold_the_loop(Pause(0.05).is_over)
        assert len(engine.passes) == 1
        assert len(await told(live)) == 7


class StandsComputing(RandomEngine):
    """Says that it computes, as engines do, and then stands at the gate, in every pass but the first."""

    def __init__(self) -> None:
        super().__init__(VOCABULARY, CONTEXT, seed=1)
        self.gate, self._passes = threading.Event(), 0

    def extend(self, chunks):
        computing()
        self._passes += 1
        assert self._passes == 1 or self.gate.wait(LONG_S)
        return super().extend(chunks)


async def test_a_pass_is_told_while_the_next_computes():
    engine = StandsComputing()
    async with running(engine) as verifier:
        live = verifier.attach(open_message(max_tokens=4))
        first = [await live.next(), await live.next()]
        engine.gate.set()
        rest = await told(live)
    assert [type(message) for message in first + rest] == [Opened, *[Verdict] * 4, Finished]


TOUCHES = {
    "attach": lambda verifier, live: verifier.attach(open_message("another")),
    "message": lambda verifier, live: live.receive(Draft((), 3)),
    "close": lambda verifier, live: live.close(),
    "end": lambda verifier, live: live.end(None),
    "finish": lambda verifier, live: live.finish(Finished(FinishReason.SHUTDOWN, live.state.usage)),
    "shutdown": lambda verifier, live: live.shut_down(),
    "tell": lambda verifier, live: live.tell(),
    "patience": lambda verifier, live: verifier.patience_s,
}


@pytest.mark.parametrize("touch", TOUCHES.values(), ids=TOUCHES)
@pytest.mark.parametrize("what", ["plan", "settle"])
async def test_whoever_touches_a_session_waits_while_the_engines_thread_settles_and_plans(what, touch):
    engine, inside, gate = WatchedEngine(), threading.Event(), threading.Event()
    loop_thread = threading.current_thread()
    async with running(engine) as verifier:
        live, plain = await under_way(engine, verifier, max_tokens=4), getattr(verifier.rounds, what)

        def stands(now_s):
            if threading.current_thread() is not loop_thread:
                inside.set()
                assert gate.wait(LONG_S)
            return plain(now_s)

        setattr(verifier.rounds, what, stands)
        engine.gate.set()
        assert inside.wait(LONG_S)
        loop = asyncio.get_running_loop()
        touched = threading.Thread(target=_touch, args=(touch, verifier, live, loop))
        touched.start()
        touched.join(0.03)
        is_waiting = touched.is_alive()
        gate.set()
        touched.join(LONG_S)
        live.close()
    assert is_waiting


def _touch(touch, verifier, live, loop) -> None:
    """As the loop would, for code that asks which loop is running."""
    asyncio.events._set_running_loop(loop)
    try:
        touch(verifier, live)
    finally:
        asyncio.events._set_running_loop(None)


@pytest.mark.parametrize("way", ["message", "cancel", "shutdown", "close", "deadline", "broken"])
async def test_what_was_settled_is_told_before_anything_else(way):
    """A whole text is settled while the loop stands; then something else of the loop comes first."""
    engine = WatchedEngine()
    async with running(engine) as verifier:
        live = await under_way(engine, verifier, max_tokens=3)
        engine.gate.set()
        hold_the_loop(lambda: len(live.state.final) == 6)
        {
            "message": lambda: live.receive(Draft((Node(1, 0, 5, 3),), 3)),
            "cancel": lambda: live.receive(Cancel()),
            "shutdown": live.shut_down,
            "close": live.close,
            "deadline": lambda: live.end(DeadlineError("late")),
            "broken": lambda: live.receive(open_message()),
        }[way]()
        messages = await told(live)
    assert [type(message) for message in messages] == [Opened, *[Verdict] * 3, Finished]
    assert messages[-1].reason is FinishReason.LENGTH
    assert live.outbox.error is None


@pytest.mark.parametrize("num_settled", [0, 1, 3])
async def test_the_wait_of_a_session_that_is_cut_before_its_passes_are_told_is_measured_too(num_settled):
    engine = WatchedEngine()
    async with running(engine) as verifier:
        metrics = VerifierMetrics(verifier, "model")
        live = await under_way(engine, verifier, max_tokens=3)
        if num_settled:
            plain = engine.extend

            def stands(chunks):
                if len(engine.passes) == num_settled:
                    engine.gate.clear()
                return plain(chunks)

            engine.extend = stands
            engine.gate.set()
            hold_the_loop(lambda: len(live.state.final) == 3 + num_settled)
        live.close()
        await told(live)
        figures = Figures.of(metrics.registry)
    names = ("queue_seconds_count", "first_token_seconds_count", "prefill_seconds_count")
    assert [figures[PREFIX + name] for name in names] == [1, num_settled > 0, num_settled > 0]
    assert (figures[PREFIX + "prefill_seconds_sum"] > 0) == (num_settled > 0)
    assert figures[PREFIX + "sessions_waiting"] == figures[PREFIX + "sessions_running"] == 0


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (lambda live: live.close(), LinkError),
        (lambda live: live.receive(open_message()), MalformedMessageError),
        (lambda live: live.receive(Cancel()), None),
    ],
)
async def test_a_session_that_ends_beside_a_pass_is_in_no_other(end, error):
    engine = WatchedEngine()
    async with running(engine) as verifier:
        live = await under_way(engine, verifier, max_tokens=20)
        end(live)
        engine.gate.set()
        messages = await told(live)
        while engine.open_caches:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert len(engine.passes) == 1
    assert type(messages[-1]) is (error or Finished)
    assert not any(isinstance(message, Verdict) for message in messages)


async def test_a_pass_that_fails_behind_another_ends_its_sessions_behind_what_was_settled():
    engine = WatchedEngine()
    async with running(engine) as verifier:
        live = await under_way(engine, verifier, max_tokens=20)
        plain = engine.extend

        def fails_third(chunks):
            engine.failure = LookupError("broken") if len(engine.passes) == 2 else None
            return plain(chunks)

        engine.extend = fails_third
        engine.gate.set()
        hold_the_loop(lambda: len(engine.passes) == 3)
        messages = await told(live)
        assert [type(message) for message in messages] == [Opened, Verdict, Verdict, EngineError]
        other = verifier.attach(open_message("other", max_tokens=2))
        assert isinstance((await told(other))[-1], Finished)


async def test_when_the_pass_loop_ends_the_engines_thread_runs_no_other():
    engine = WatchedEngine()
    runner = EngineRunner.on_own_thread(engine, "test")
    verifier = Verifier(runner, IDENTITY, SELF_TEST, settings())
    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as group:
        passes = group.create_task(verifier.run())
        await asyncio.sleep(0)
        live = await under_way(engine, verifier, max_tokens=20)
        passes.cancel()
        await asyncio.sleep(0)
        late = verifier.attach(open_message("late", max_tokens=20))
        engine.gate.set()
        messages = await told(live)
    runner.shutdown()
    assert isinstance(messages[-1], EngineError)
    assert len(engine.passes) == 1
    assert not late.outbox.is_ended


async def test_a_fault_in_telling_ends_the_pass_loop_and_every_session():
    engine = WatchedEngine()
    runner = EngineRunner.on_own_thread(engine, "test")
    verifier, told_first = Verifier(runner, IDENTITY, SELF_TEST, settings()), []

    class Broken(type(UNOBSERVED)):
        def settled(self, live, entry, verdicts, now_s):
            told_first.append(live)
            raise LookupError("an observer that must not raise")

    verifier.observer = Broken()
    async with asyncio.timeout(LIMIT_S):
        lives = [verifier.attach(open_message(f"s{n}", max_tokens=400)) for n in range(3)]
        with pytest.raises(LookupError):
            await verifier.run()
        ends = [(await told(live))[-1] for live in lives]
    runner.shutdown()
    assert told_first
    assert [type(end) for end in ends] == [EngineError] * 3


@pytest.fixture
def restless():
    """Threads lose the interpreter wherever they can."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before_s)


async def test_sessions_that_come_and_go_beside_passes_disturb_no_text(restless):
    """Sixty sessions on eight seats, with others in between that leave without a word: each text is plain decoding's."""
    engine = WatchedEngine()
    cases = [([1 + n % 7, 2, 3], SamplingParameters() if n % 2 else SAMPLED) for n in range(60)]
    truths = [truth_of(prompt, parameters, 24) for prompt, parameters in cases]
    async with running(engine, max_queued=200) as verifier:
        connector = MemoryConnector(verifier)

        async def one(number):
            prompt, parameters = cases[number]
            return await device(number, truths[number], prompt, parameters, 0.5, 24).run(connector)

        async def leaving(number):
            for turns in range(40):
                live = verifier.attach(open_message(f"leaves-{number}-{turns}", max_tokens=50))
                for _ in range(turns % 9):
                    await asyncio.sleep(0)
                live.close()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(len(cases))]
            for number in range(4):
                group.create_task(leaving(number))
        assert [task.result() for task in tasks] == truths
        assert not len(verifier.seats)
        while engine.open_caches:  # noqa: ASYNC110
            await asyncio.sleep(0)
