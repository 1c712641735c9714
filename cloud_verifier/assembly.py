"""From loaded models to verifiers that can run: their threads, what their passes cost, who drafts beside them."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import ExitStack

from cloud_verifier.companion import Companion
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import PassCosts
from cloud_verifier.engine import FullModel
from cloud_verifier.pairs import Pairs, Served
from cloud_verifier.profiling import costs_of
from cloud_verifier.verification import Verifier
from speculation.engines.base import Engine, EngineDescription
from speculation.engines.runner import EngineRunner
from speculation.engines.sharing import num_processors

MB = 1e6

_log = logging.getLogger(__name__)


async def assemble(
    model: FullModel, config: VerifierConfig, stack: ExitStack, runner: EngineRunner[Engine] | None = None
) -> Pairs:
    """The pairs of ``model``; threads end with ``stack``. ``runner`` replaces the newest full model's."""
    newest = await _verifier(model, config, stack, "full-model", runner)
    served = [Served(model.identity, model.self_test.fingerprint, newest)]
    if model.also is not None:
        served.append(Served(model.also, model.self_test.fingerprint, newest))
    if (before := model.previous) is not None:
        verifier = await _verifier(before, config, stack, "previous-model")
        served.append(Served(before.identity, before.self_test.fingerprint, verifier))
    if len(served) > 1:
        for one in served:
            told = budget(one.verifier.description, one.verifier.seats.room.limit_bytes)
            _log.info("pair %d: %s", one.identity.version, told)
    return Pairs(served, config.max_sessions)


def budget(description: EngineDescription, limit_bytes: float = math.inf) -> str:
    """What a full model takes of the memory once all its caches are full, or once they take all that they may."""
    num_tokens = description.num_slots * description.context_length
    most_bytes = num_tokens * description.kv_bytes_per_token if math.isinf(limit_bytes) else limit_bytes
    weights, caches = description.weight_bytes / MB, most_bytes / MB
    slots = f"{description.num_slots} of {description.context_length} tokens"
    return f"{description.name}, {weights:.1f} MB of weights and at most {caches:.1f} MB of caches ({slots})"


async def _verifier(
    model: FullModel, config: VerifierConfig, stack: ExitStack, name: str, runner: EngineRunner[Engine] | None = None
) -> Verifier:
    runner = runner or _own_thread(model.engine, name, stack, config.threads)
    companion = None
    if model.draft is not None and config.draft_length:
        companion = Companion(
            _own_thread(model.draft, f"{name}-draft", stack, config.threads), config.draft_length, config.max_rows
        )
    costs = await _costs(model.engine, config)
    verifier = Verifier(runner, model.identity, model.self_test, config, companion, costs)
    if model.room is not None:
        verifier.seats.limit(model.room)
    return verifier


async def _costs(engine: Engine, config: VerifierConfig) -> PassCosts | None:
    """What passes cost, before the engine has work of its own; None where every draft is to be run."""
    if config.run_drafts == "all" or config.full_url is not None:
        return None
    return await asyncio.to_thread(costs_of, engine, config.max_rows)


def _own_thread(engine: Engine, name: str, stack: ExitStack, num_threads: int) -> EngineRunner[Engine]:
    """A thread that runs one job behind the other where a processor is left for the loop. Where forwards have all of them, the
    loop would read drafts behind the forward that they came in, too late for the next: there it has its turn between two."""
    runner = EngineRunner.on_own_thread(engine, name, hands_over=True, may_follow=num_processors() > num_threads)
    stack.callback(runner.shutdown)
    return runner
