"""Sessions as tests drive them, over whichever link: opened, refused, held before their first pass, drafted for by a script."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from speculation.engines.random import RandomEngine
from speculation.errors import CreditExceededError, MalformedMessageError
from speculation.links.base import Connector, Link
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import Draft, FinishReason, Node, Opened
from tests.cloud_verifier.doubles import (
    CONTEXT,
    IDENTITY,
    SAMPLED,
    SEED,
    VOCABULARY,
    ScriptedDevice,
    WatchedEngine,
    collect,
    finished_of,
    open_message,
    plain_decoding,
    wait_until,
)

LIMIT_S = 20

CREDIT = 40
BREAKING = [
    (Draft((Node(3, 0, 5, 3),), 3), MalformedMessageError),
    (Draft((Node(1, 0, 5, 400),), 3), MalformedMessageError),
    (Draft(tuple(Node(n, n - 1, 1, 3) for n in range(1, CREDIT + 2)), 3), CreditExceededError),
    (open_message(), MalformedMessageError),
]
"""Messages that break the protocol at a verifier with ``CREDIT``, and what the stream ends with."""


def table() -> RandomEngine:
    """The model of ``WatchedEngine``, apart from it."""
    return RandomEngine(VOCABULARY, CONTEXT, SEED)


def truth_of(
    prompt: Sequence[int], parameters: SamplingParameters, max_tokens: int, end_token_ids: Sequence[int] = ()
) -> list[int]:
    return plain_decoding(table(), prompt, parameters, max_tokens, end_token_ids)


async def opened(connector: Connector, **changes) -> Link:
    link = await connector.connect()
    await link.send(open_message(**changes))
    assert isinstance(await link.receive(), Opened)
    return link


async def refusal(connector: Connector, **changes) -> None:
    """Raises what the verifier refuses with."""
    link = await connector.connect()
    await link.send(open_message(**changes))
    await link.receive()


async def held(engine: WatchedEngine, connector: Connector, **changes) -> Link:
    """A session whose first pass is held."""
    engine.gate.clear()
    link = await opened(connector, **changes)
    await wait_until(engine.entered.is_set)
    return link


def device(number, truth, prompt, parameters, accuracy, max_tokens=40, end_token_ids=(), identity=IDENTITY) -> ScriptedDevice:
    session = DeviceSession(f"session-{number}", identity, prompt, parameters, max_tokens, end_token_ids)
    return ScriptedDevice(session, [*truth, *[0] * max_tokens], accuracy, number)


async def check_texts(connector: Connector, accuracy: float, longest: int = 1) -> None:
    """Six sessions at once, greedy and sampled, with prompts of up to ``longest`` pieces: each text is plain decoding's."""
    cases = [([1 + n, 2, 3] * (1 + (longest - 1) * n // 5), SamplingParameters() if n % 2 else SAMPLED) for n in range(6)]
    truths = [truth_of(prompt, parameters, 40) for prompt, parameters in cases]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(device(n, truth, prompt, parameters, accuracy).run(connector))
            for n, (truth, (prompt, parameters)) in enumerate(zip(truths, cases, strict=True))
        ]
    assert [task.result() for task in tasks] == truths


async def check_breaking_ends_its_stream_only(engine: WatchedEngine, connector: Connector, message, error) -> None:
    """One session sends what breaks the protocol, another goes on. The verifier has ``CREDIT``."""
    broken = await held(engine, connector, session_id="broken")
    other = await opened(connector, session_id="other")
    await broken.send(message)
    with pytest.raises(error):
        await collect(broken)
    engine.gate.set()
    assert finished_of(await collect(other)).reason is FinishReason.LENGTH
