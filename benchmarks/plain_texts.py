"""Whether answers are what the full model writes alone: a rate of another text would be no rate of anything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from device_agent.events import DoneEvent
from speculation.engines.base import Chunk, Engine
from speculation.errors import SimulationError


def is_plain(engine: Engine, prompt: Sequence[int], written: Sequence[int]) -> bool:
    """Whether these tokens, one at least, are the greedy choices of a full model behind the prompt."""
    cache = engine.open()
    rows = engine.extend([Chunk(cache, [*prompt, *written[:-1]], len(written))])
    engine.close(cache)
    return bool(rows.argmax(axis=1).tolist() == list(written))


def check(engine: Engine, answers: Iterable[DoneEvent]) -> None:
    """Raises ``SimulationError`` where an answer is not the full model's; ``engine`` is that, and nobody runs it just now."""
    for number, done in enumerate(answers):
        if not is_plain(engine, done.prompt_token_ids, done.token_ids):
            raise SimulationError(f"answer {number} is not what the full model writes alone")
