"""One emulated phone that writes several answers: the production agent and verifier under the virtual clock.

Tokens are the synthetic pair's (``outrider/planning/synthetic.py``); times are those of the demo's phone, network and cloud
machine, and of whatever else the phone does (``speculation/shaping/os_load.py``).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from cloud_verifier.config import VerifierConfig
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.drafting.turns import Order
from device_agent.events import DoneEvent
from device_agent.request import MAX_RATE, Mode, StreamRequest, TokenRequest
from outrider.planning.scene import PROVED, last_event
from outrider.planning.sources import Synthetic
from outrider.planning.synthetic import VOCABULARY, Acceptance, DraftEngine, encode
from speculation.engines.runner import EngineRunner
from speculation.errors import CapacityError, InvalidRequestError
from speculation.links.memory import MemoryConnector
from speculation.shaping import profiles, virtual_time
from speculation.shaping.engine import CloudCost, PhoneCost, ShapedEngine
from speculation.shaping.link import ShapedConnector
from speculation.shaping.models import parse_model
from speculation.shaping.os_load import loaded, os_load
from speculation.shaping.profiles import (
    DEFAULT_CLOUD,
    DEFAULT_DRAFT_MODEL,
    DEFAULT_FULL_MODEL,
    DEFAULT_NETWORK,
    DEFAULT_PHONE,
)

ACCEPTANCE = 0.8
CONTEXT_TOKENS = 4096
NUM_STREAMS = 4
SHORT_TEXT = 32
DRAFT_COST = PhoneCost(profiles.phone(DEFAULT_PHONE), parse_model(DEFAULT_DRAFT_MODEL))
HIGHEST = float(MAX_RATE)
"""Of a task's rate: the highest that is promised, as refusals tell it."""

MEASURED_TOKENS = 160
"""An answer so long tells the pace beside the verifier."""

_TOLD = re.compile(r"(?:at most|ask for) (\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Setting:
    """Who writes, what else the phone does, and how its streams share it."""

    mode: Mode
    load: str
    order: Order = Order.FAIR

    def first_come(self) -> Setting:
        """The same without the policy."""
        return replace(self, order=Order.FIRST_COME)


@dataclass(frozen=True, slots=True)
class Task:
    """An answer that is asked for ``at_s``: behind so many tokens of prompt, of so many tokens."""

    num_tokens: int
    prompt_tokens: int = SHORT_TEXT
    at_s: float = 0.0
    priority: int = 0
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a task: seconds of the clock, and its own figures."""

    began_s: float
    ended_s: float
    num_tokens: int
    first_visible_s: float
    target_tokens_per_s: float | None
    achieved_tokens_per_s: float | None
    target_late_s: float | None


def run(setting: Setting, tasks: Sequence[Task], is_in_turn: bool = False, num_before: int = 1) -> list[Written]:
    """All tasks on one phone, each when it is asked for; or one after the other. Behind an answer of ``num_before`` tokens, so
    the connection is warm."""
    return virtual_time.run(_run(setting, tasks, is_in_turn, num_before))


async def _run(setting: Setting, tasks: Sequence[Task], is_in_turn: bool, num_before: int) -> list[Written]:
    async with phone(setting) as agent:
        await last_event(agent.stream(_request(setting.mode, Task(num_before), len(tasks))))
        began_s = asyncio.get_running_loop().time()
        works = [_written(agent, setting.mode, task, number, began_s) for number, task in enumerate(tasks)]
        return [await work for work in works] if is_in_turn else list(await asyncio.gather(*works))


@asynccontextmanager
async def phone(setting: Setting, num_streams: int = NUM_STREAMS) -> AsyncIterator[DeviceAgent]:
    """The phone with places for so many answers, and a verifier behind it."""
    source = Synthetic(Acceptance(ACCEPTANCE), CONTEXT_TOKENS, SHORT_TEXT)
    full = ShapedEngine(
        source.full_engine(num_streams), CloudCost(profiles.cloud(DEFAULT_CLOUD), parse_model(DEFAULT_FULL_MODEL))
    )
    verifier = Verifier(EngineRunner(full), source.identity, PROVED, VerifierConfig())
    connector = ShapedConnector(MemoryConnector(verifier), profiles.network(DEFAULT_NETWORK), 0)
    config = AgentConfig(
        phone=DEFAULT_PHONE, network=DEFAULT_NETWORK, os_load=setting.load, draft_turns=setting.order, max_streams=num_streams
    )
    slots = num_streams * config.policy().width
    draft = ShapedEngine(DraftEngine(source.acceptance, source.seed, CONTEXT_TOKENS, 0.0, slots), DRAFT_COST)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(verifier.run())
        runner = EngineRunner(loaded(draft, os_load(setting.load)))
        facts = replace(source.facts(), vocabulary_size=VOCABULARY)
        async with DeviceAgent(facts, runner, connector, config) as agent:
            yield agent
        verifier.stop()


async def _written(agent: DeviceAgent, mode: Mode, task: Task, number: int, began_s: float) -> Written:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(began_s + task.at_s - loop.time())
    asked_s = loop.time()
    done = await _promised(agent, mode, task, number)
    return Written(
        asked_s,
        loop.time(),
        len(done.token_ids),
        _figure(done, "first_visible_ms", 1e-3) or 0.0,
        _figure(done, "target_tokens_per_s"),
        _figure(done, "achieved_tokens_per_s"),
        _figure(done, "target_late_ms", 1e-3),
    )


async def _promised(agent: DeviceAgent, mode: Mode, task: Task, number: int) -> DoneEvent:
    """The end of its answer; where a rate is refused that was to be the highest, one for which it is told to ask."""
    while True:
        try:
            return await last_event(agent.stream(_request(mode, task, number)))
        except (InvalidRequestError, CapacityError) as error:
            told = _TOLD.search(str(error))
            if task.tokens_per_s is None or told is None or float(told[1]) >= task.tokens_per_s:
                raise
            task = replace(task, tokens_per_s=float(told[1]))


def _request(mode: Mode, task: Task, number: int) -> StreamRequest:
    """In tokens: a long text would be encoded on a thread, which the virtual clock does not wait for."""
    source = Synthetic(Acceptance(ACCEPTANCE), CONTEXT_TOKENS, task.prompt_tokens)
    asked = source.request(number, task.num_tokens, mode)
    return TokenRequest(
        asked.prompt,
        task.num_tokens,
        mode=mode,
        priority=task.priority,
        tokens_per_s=task.tokens_per_s,
        prompt_token_ids=tuple(encode(asked.prompt)),
    )


def _figure(done: DoneEvent, name: str, unit: float = 1.0) -> float | None:
    value = done.figures.get(name, {}).get("value")
    return None if value is None else value * unit
