"""An agent that OpenAI's clients can call: tables for models, and a template that joins what was said."""

from __future__ import annotations

import asyncio
import contextlib

import httpx

from device_agent.api import build_app
from device_agent.server import serve
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import (
    VOCABULARY,
    FullEngine,
    agent_of,
    config,
    decode,
    encode,
    facts,
    plain_decoding,
    verifier,
)

PROMPT = "the prompt"
ANSWER = decode(plain_decoding(FullEngine(), 30))
"""The full model's own text behind the prompt, seed 3."""


def chat(messages) -> list[int]:
    """Roles leave no trace, so a conversation of one message is its text."""
    return encode(" ".join(message["content"] for message in messages))


def talking(**changes):
    """The facts of a pair with a chat template, whose tokens are known."""
    return facts(**{"chat": chat, "vocabulary_size": VOCABULARY} | changes)


@contextlib.asynccontextmanager
async def served(connector=None, draft=None, pair=None, **changes):
    """The agent's URL, and the agent."""
    agent = agent_of(connector, draft, pair or talking(), **changes)
    async with asyncio.timeout(60), serve(config(**changes), agent=agent) as running:
        yield running.url, agent


@contextlib.asynccontextmanager
async def calling(connector=None, draft=None, pair=None, **changes):
    """A plain client of such an agent's application, without a socket between; and the agent."""
    async with asyncio.timeout(60), agent_of(connector, draft, pair or talking(), **changes) as agent:
        transport = httpx.ASGITransport(app=build_app(agent))
        async with httpx.AsyncClient(base_url="http://localhost", transport=transport) as client:
            yield client, agent


@contextlib.asynccontextmanager
async def verified(engine=None, pair=None, **changes):
    """A plain client of an agent with a verifier behind it."""
    async with verifier(engine) as made, calling(MemoryConnector(made), pair=pair, **changes) as (client, _):
        yield client
