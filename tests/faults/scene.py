"""One seed, one scene: an agent, its verifiers, the links between them, some answers, and all that goes wrong with them.

The agent and the verifiers are production code under the virtual clock with inline engines; the links are hostile doubles.
Each answer is followed by a client that refuses whatever breaks the contract of ``docs/stream.md``, and is compared with plain
decoding.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from device_agent.agent import DeviceAgent
from speculation.shaping import virtual_time
from tests.device_agent.replay import Replay
from tests.faults.client import read
from tests.faults.fate import Asked, fate
from tests.faults.fleet import Fleet
from tests.faults.hostile_link import Witness
from tests.faults.models import Pair
from tests.faults.tables import runner_of

LONGEST_S = 3600.0
"""By then, on the virtual clock, an answer that has not ended never will."""


class Ending(enum.Enum):
    """How an answer ended, and so what of it is compared."""

    WHOLE = "compared whole"
    ALONE = "ended alone: the verified part compared"
    DEADLINE = "ended by a deadline: a beginning compared"
    ABANDONED = "ended without a reader: a beginning compared"


@dataclass(frozen=True, slots=True)
class Answer:
    """How one answer ended, compared already."""

    num_tokens: int
    finish_reason: str
    ending: Ending


class SceneError(AssertionError):
    """A scene went wrong; says the seed and how to see it again."""

    def __init__(self, seed: int, command: str, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        what = str(error).strip().partition("\n")[0]
        self.seed, self.reason = seed, f"{type(error).__name__}: {what}" if what else type(error).__name__
        super().__init__(f"seed {seed}: {self.reason}\nagain: {command} {seed}")


def play(seed: int, pair: Pair, command: str, tally: Counter[str]) -> list[Answer]:
    """Every answer of a scene; raises ``SceneError`` where one is not as it must be."""
    try:
        return virtual_time.run(_Scene(seed, pair, tally).answers())
    except Exception as error:
        raise SceneError(seed, command, error) from error


@dataclass
class _Watch:
    """A client that follows one answer, and notes what it sees of a device that writes alone."""

    tally: Counter[str]
    replay: Replay = field(default_factory=Replay)
    is_alone: bool = False
    num_alone: int = 0

    def sees(self, event: dict[str, Any]) -> None:
        self.replay.feed(event)
        if event["event"] == "state" and event["reason"] != "exactness":
            is_alone = event["mode"] == "device"
            self.tally["audited"] += self.is_alone and not is_alone and self.num_alone > 0
            self.is_alone, self.num_alone = is_alone, 0
        elif event["event"] == "speculative":
            self.num_alone += self.is_alone

    @property
    def committed(self) -> list[int]:
        return self.replay.token_ids[: self.replay.tokens_committed]


class _Scene:
    def __init__(self, seed: int, pair: Pair, tally: Counter[str]) -> None:
        self._seed = seed
        self._fate = fate(seed, pair)
        self._tally = tally
        self._draft = self._fate.models.draft()

    async def answers(self) -> list[Answer]:
        drawn, models, draft = self._fate, self._fate.models, self._draft
        async with asyncio.timeout(LONGEST_S), asyncio.TaskGroup() as tasks:
            witness = Witness(self._tally, {})
            fleet = Fleet(models, drawn.verifiers, drawn.deaths, drawn.habits, self._seed, witness, tasks)
            async with DeviceAgent(models.facts, runner_of(draft), fleet, drawn.agent) as agent:
                answers = await asyncio.gather(*(self._answer(agent, asked) for asked in drawn.asked))
                assert agent.num_streams == 0, "the agent still holds a stream"
            assert not draft.open_caches, "the agent still holds a cache"
            await fleet.settle()
        self._tally["draft caches copied"] += draft.num_forks
        return answers

    async def _answer(self, agent: DeviceAgent, asked: Asked) -> Answer:
        await asyncio.sleep(asked.after_s)
        watch = _Watch(self._tally)
        async for event in read(agent, asked.request, asked.breaks, self._tally):
            watch.sees(event)
        last = watch.replay.last
        assert last is not None, "the stream ended without a last event"
        if last["event"] == "error":
            return _abandoned(asked, watch, last, agent.config.resume_grace_s)
        return self._done(asked, watch, last)

    def _done(self, asked: Asked, watch: _Watch, last: dict[str, Any]) -> Answer:
        truth, reason = asked.truth, last["finish_reason"]
        token_ids, text = list(last["token_ids"]), last["text"]
        verified = token_ids[: last["verified_count"]]
        _check_beginning(verified, truth.uncut)
        assert not any(stop in text for stop in asked.request.stop), "the text holds a stop string"
        if watch.is_alone:
            ending = Ending.ALONE
        elif reason == "deadline":
            assert asked.request.deadline_ms is not None, "there was no deadline"
            assert verified == token_ids, "tokens that are not verified were left behind by a deadline"
            ending = Ending.DEADLINE
        else:
            difference = _difference(verified, truth.token_ids)
            assert verified == token_ids == truth.token_ids, f"the text is not the full model's: {difference}"
            assert text == truth.text, f"the text is {text!r}, not {truth.text!r}"
            assert reason == truth.finish_reason, f"the answer ended by {reason}, not by {truth.finish_reason}"
            self._tally["ended by a stop string"] += truth.is_cut
            ending = Ending.WHOLE
        return Answer(len(token_ids), reason, ending)


def _abandoned(asked: Asked, watch: _Watch, last: dict[str, Any], grace_s: float) -> Answer:
    """Its reader came back too late: it was cancelled."""
    error = last["error"]
    is_late = any(broken.away_s > grace_s and not broken.is_taken_over for broken in asked.breaks)
    assert (is_late, error["code"]) == (True, "link"), f"the answer ended with an error: {error['message']}"
    _check_beginning(watch.committed, asked.truth.uncut)
    return Answer(len(watch.committed), "error", Ending.ABANDONED)


def _check_beginning(verified: list[int], truth: list[int]) -> None:
    is_right = verified == truth[: len(verified)]
    assert is_right, f"what is verified is not the full model's: {_difference(verified, truth)}"


def _difference(ours: list[int], truth: list[int]) -> str:
    at = next((i for i, (a, b) in enumerate(zip(ours, truth, strict=False)) if a != b), min(len(ours), len(truth)))
    return f"at token {at} {ours[at : at + 3]} in place of {truth[at : at + 3]}"
