"""An agent over real HTTP with a verifier behind it over real gRPC, both with keys; models are tables."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx

import cloud_verifier.server
from cloud_verifier.engine import FullModel
from device_agent.agent import DeviceAgent
from device_agent.server import serve
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.grpc import GrpcConnector
from speculation.telemetry.spans import UNTRACED, Tracer
from speculation.tenants import bearer
from tests.cloud_verifier.doubles import settings
from tests.device_agent.doubles import IDENTITY, DraftEngine, FullEngine, config, facts
from tests.support.keys import ALICE, key_file

MARKER = "Xyzzy plugh"
"""A prompt that occurs nowhere by itself."""


@contextlib.asynccontextmanager
async def services(
    folder: Path, agents: Tracer = UNTRACED, verifiers: Tracer = UNTRACED
) -> AsyncIterator[Callable[[str], Awaitable[httpx.AsyncClient]]]:
    """A function that makes a client of the agent, with a key. ``agents`` and ``verifiers`` record spans."""
    keys = key_file(folder)
    full = FullModel(FullEngine(), IDENTITY, SelfTest(True, "f" * 16, 0.0, ()))
    async with contextlib.AsyncExitStack() as stack:
        behind = cloud_verifier.server.serve(settings(keys=keys), full_model=full, tracer=verifiers)
        connector = GrpcConnector((await stack.enter_async_context(behind)).target, key=ALICE)
        agent = DeviceAgent(facts(), EngineRunner(DraftEngine()), connector, config(keys=keys), agents)
        running = await stack.enter_async_context(serve(config(keys=keys), agent=agent))

        async def client(key: str) -> httpx.AsyncClient:
            headers = {"authorization": bearer(key)}
            return await stack.enter_async_context(httpx.AsyncClient(base_url=running.url, headers=headers, timeout=30))

        yield client
