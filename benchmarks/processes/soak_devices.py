"""The devices of the soak, many in one process: replay devices that come, go, cut and cancel (``soak_behaviour.py``).

    python -m benchmarks.processes.soak_devices TARGET --count N --seconds S [--seed N]

Prints one line of JSON once the last session has ended: what the sessions did and how they ended.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.processes.devices import Script, scripts
from benchmarks.soak_behaviour import End, away_s, draw, is_allowed
from benchmarks.soak_session import RETRIES, Talk
from benchmarks.trace_file import load
from speculation.engines.package import Pair, load_pair
from speculation.links.grpc import GrpcConnector

SESSION_LIMIT_S = 120.0
"""A session that has not ended by then has no end."""
CONNECT_TIMEOUT_S = 30.0
NUM_PROBLEMS = 20
Texts = Sequence[Sequence[Script]]


@dataclass(slots=True)
class Tally:
    """Of all sessions. ``ends`` is keyed by behaviour and end; ``texts`` are the finished ones, ``parts`` the rest."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    texts: int = 0
    same_texts: int = 0
    parts: int = 0
    same_parts: int = 0
    refusals: int = 0
    first_ms: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def add(self, talk: Talk, end: End) -> None:
        self.ends[talk.course.behaviour.value, end.value] += 1
        self.refusals += talk.refusals
        if talk.first_ms is not None:
            self.first_ms.append(talk.first_ms)
        if end is End.FINISHED:
            self.texts += 1
            self.same_texts += talk.is_whole
        else:
            self.parts += 1
            self.same_parts += talk.is_beginning
        if not (is_allowed(talk.course.behaviour, end) and talk.is_beginning) and len(self.problems) < NUM_PROBLEMS:
            self.problems.append(_told(talk, end))

    def to_json(self) -> dict[str, object]:
        counts = {name: getattr(self, name) for name in ("texts", "same_texts", "parts", "same_parts", "refusals")}
        ends = [[*names, count] for names, count in sorted(self.ends.items())]
        return {**counts, "ends": ends, "first_ms": self.first_ms, "problems": self.problems}


def _told(talk: Talk, end: End) -> str:
    text = "plain decoding's" if talk.is_beginning else "another"
    why = "" if talk.error is None else f" ({talk.error!r})"
    return f"{talk.session.session_id}, which {talk.course.behaviour}: {end}{why}, its text {text}"


class Phone:
    """One device: one session after the other, over one channel but for those sessions that are cut."""

    def __init__(self, number: int, given: argparse.Namespace, pair: Pair, texts: Texts, tally: Tally) -> None:
        self._number = number
        self._given = given
        self._pair = pair
        self._texts = texts
        self._tally = tally
        self._connector = GrpcConnector(given.target, CONNECT_TIMEOUT_S)

    async def run(self) -> None:
        """Sessions until the time is over, and the last one to its end."""
        began_s = asyncio.get_running_loop().time()
        try:
            for index in itertools.count():
                at_s = asyncio.get_running_loop().time() - began_s
                await asyncio.sleep(min(away_s(self._number, self._given.count, at_s), self._given.seconds - at_s))
                if asyncio.get_running_loop().time() - began_s >= self._given.seconds:
                    return
                await self._session(index)
        finally:
            await self._connector.aclose()

    async def _session(self, index: int) -> None:
        course = draw(self._given.seed, self._number, index, [len(texts) for texts in self._texts])
        script = self._texts[course.is_sampled][course.text]
        talk = Talk(f"{self._number}-{index}", self._pair, course, script, self._connector)
        try:
            # A refused device keeps the delay, and its time runs from where it is let in.
            async with asyncio.timeout(SESSION_LIMIT_S + RETRIES):
                end = await talk.run()
        except TimeoutError:
            end = End.NONE
        self._tally.add(talk, end)
        await asyncio.sleep(course.pause_s)


async def run(given: argparse.Namespace) -> Tally:
    pair, recording, tally = load_pair(), load(), Tally()
    texts = [scripts(recording, pair, temperature) for temperature in (0.0, 0.8)]
    async with asyncio.TaskGroup() as phones:
        for number in range(given.count):
            phones.create_task(Phone(number, given, pair, texts, tally).run())
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(asyncio.run(run(parser.parse_args())).to_json()), flush=True)


if __name__ == "__main__":
    main()
