"""Replay devices: many phones in one process, whose drafts were recorded and cost nothing.

    python -m benchmarks.processes.devices TARGET --count N --seconds S [--temperature T] [--depth D] [--warm-up S]
        [--traces FILE] [--identity FILE]

Each device asks for one recorded text after the other, over a channel of its own, and keeps ``--depth`` drafts ahead of the
final tokens (0: it decodes alone): what the draft said behind every prefix of the text, and behind what it got wrong.
Prints the line ``begin`` once all run, then one line of JSON with what became final within the seconds. Texts are compared with
the recorded ones, which are the full model's. Another pair with the bundled tokenizer has its ``PairIdentity`` in a file of
JSON: a large model's is not made of all its bytes for each run. Devices are other machines: they compute where the verifier
leaves a processor (``yielding.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.processes.yielding import yielding
from benchmarks.trace_file import BUNDLED, FIRST, Recording, Trace, load
from speculation.engines.package import Pair, load_pair
from speculation.links.grpc import GrpcConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import PairIdentity

Ends = tuple[int, ...]
"""Tokens that end a text."""


@dataclass(slots=True)
class Counted:
    """Of all devices together. ``cpu_s`` is what this whole process computed."""

    tokens: int = 0
    verdicts: int = 0
    proposed: int = 0
    accepted: int = 0
    texts: int = 0
    same_texts: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0


class Script:
    """One recorded text: its prompt, and the draft's chain behind every prefix of what the full model wrote."""

    def __init__(self, prompt: list[int], trace: Trace) -> None:
        self.prompt = prompt
        self.parameters = SamplingParameters(temperature=trace.temperature, seed=trace.seed)
        self.token_ids: list[int] = trace.token_ids.tolist()
        self._said: list[int] = trace.said.token_ids[:, FIRST].tolist()
        self._behind: dict[int, list[int]] = {
            b.offset: b.said.token_ids[:, FIRST].tolist() for b in trace.branches if b.rank == FIRST
        }

    def chain(self, start: int, length: int) -> list[int]:
        """What the draft says behind the first ``start`` tokens, each time its own choice taken."""
        chain: list[int] = []
        for offset in range(start, min(start + length, len(self._said))):
            chain.append(self._said[offset])
            if chain[-1] != self.token_ids[offset]:
                chain += self._behind.get(offset, [])
                break
        return chain[:length]

    def draft(self, session: DeviceSession, depth: int) -> None:
        """Up to ``depth`` drafts ahead. They are a beginning of the chain, as long as the final tokens are those recorded."""
        start = len(session.final) - len(self.prompt)
        for token_id in self.chain(start, min(depth, session.room + len(session.path)))[len(session.path) :]:
            session.drafted(token_id)


def scripts(recording: Recording, pair: Pair, temperature: float) -> list[Script]:
    """The recorded texts at a temperature."""
    prompts = {prompt["source"]: prompt["text"] for prompt in pair.prompts}
    return [
        Script(pair.full.tokenizer.encode(prompts[trace.prompt]).ids, trace)
        for trace in recording.traces
        if trace.temperature == temperature
    ]


class Device:
    """One phone: one session after the other on one channel."""

    def __init__(self, number: int, target: str, identity: PairIdentity, ends: Ends, depth: int, counted: Counted) -> None:
        self._number = number
        self._connector = GrpcConnector(target)
        self._identity, self._ends = identity, ends
        self._depth = depth
        self._counted = counted

    async def run(self, texts: list[Script]) -> None:
        """Until cancelled. The first session goes on somewhere in its text, so that devices do not end together."""
        chance = random.Random(self._number)
        try:
            for index in itertools.count(self._number):
                script = texts[index % len(texts)]
                done = chance.randrange(len(script.token_ids)) if index == self._number else 0
                await self._answer(script, done, f"{self._number}-{index}")
        finally:
            await self._connector.aclose()

    async def _answer(self, script: Script, done: int, name: str) -> None:
        prefix = [*script.prompt, *script.token_ids[:done]]
        left = len(script.token_ids) - done
        session = DeviceSession(name, self._identity, prefix, script.parameters, left, self._ends)
        link = await self._connector.connect()
        try:
            await link.send(session.open())
            while session.finish_reason is None:
                script.draft(session, self._depth)
                if self._depth and (draft := session.flush()) is not None:
                    await link.send(draft)
                message = await link.receive()
                if message is None:
                    raise RuntimeError("the stream ended without Finished")
                update = session.receive(message)
                self._counted.tokens += len(update.tokens)
                self._counted.verdicts += bool(update.tokens)
        finally:
            await link.aclose()
        usage = session.usage
        self._counted.texts += 1
        self._counted.same_texts += list(session.final) == [*script.prompt, *script.token_ids]
        self._counted.proposed += usage.proposed if usage else 0
        self._counted.accepted += usage.accepted if usage else 0


async def measure(arguments: argparse.Namespace) -> Counted:
    pair, counted = load_pair(), Counted()
    told = arguments.identity and json.loads(arguments.identity.read_text("utf-8"))
    identity = PairIdentity(**told) if told else pair.identity
    texts, ends = scripts(load(arguments.traces), pair, arguments.temperature), pair.full.end_token_ids
    async with asyncio.TaskGroup() as devices:
        tasks = [
            devices.create_task(Device(number, arguments.target, identity, ends, arguments.depth, counted).run(texts))
            for number in range(arguments.count)
        ]
        await asyncio.sleep(arguments.warm_up)
        before, began_s, cpu_s = asdict(counted), time.monotonic(), time.process_time()
        print("begin", flush=True)
        await asyncio.sleep(arguments.seconds)
        within = {name: value - before[name] for name, value in asdict(counted).items()}
        within |= {"seconds": time.monotonic() - began_s, "cpu_s": time.process_time() - cpu_s}
        for task in tasks:
            task.cancel()
    return Counted(**within)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warm-up", type=float, default=2.0)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--traces", type=Path, default=BUNDLED)
    parser.add_argument("--identity", type=Path)
    given = parser.parse_args()
    with yielding():
        counted = asyncio.run(measure(given))
    print(json.dumps(asdict(counted)), flush=True)


if __name__ == "__main__":
    main()
