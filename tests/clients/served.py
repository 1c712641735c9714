"""Agents on a loop and a thread of their own, so that clients without a loop can call them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading

from speculation.engines.random import RandomEngine
from speculation.links.memory import MemoryConnector
from tests.device_agent.doubles import FullEngine, WatchedConnector, facts, verifier
from tests.device_agent.openai.scene import served, talking

MESSAGES_UNTIL_LOST = 4
TOLD, ENDED = 2, 3
"""Tokens of the scripted model: its script begins behind the first, and ends with the second."""
SCRIPT = '```json\n{"name": "Ada", "age": 36}\n```'


class ScriptedEngine(RandomEngine):
    """Says the script behind whatever it was told, letter for letter."""

    def __init__(self) -> None:
        super().__init__(128, 8192, seed=0)

    def _append(self, chunk):
        heard = self._prefixes[chunk.cache]
        heard.extend(bytes([token_id]) for token_id in chunk.token_ids)
        return [self._next(heard[:length]) for length in range(len(heard) - chunk.num_logits + 1, len(heard) + 1)]

    def _next(self, heard):
        num_said = heard[::-1].index(bytes([TOLD])) if bytes([TOLD]) in heard else 0
        row = [0.0] * self.description.vocabulary_size
        row[[*SCRIPT.encode(), ENDED][min(num_said, len(SCRIPT))]] = 1.0
        return row


def ascii_of(text):
    return [ord(letter) % 128 for letter in text]


SCRIPTED = facts(
    encode=ascii_of,
    decode=lambda token_ids: bytes(token_ids).decode(),
    chat=lambda messages: [*ascii_of("\n".join(message["content"] for message in messages)), TOLD],
    end_token_ids=(ENDED,),
    context_length=8192,
    draft_context_length=8192,
    vocabulary_size=128,
)


@contextlib.contextmanager
def running(full=None, draft=None, pair=None, messages_until_lost=None):
    """The URL of an agent that runs on another thread."""

    @contextlib.asynccontextmanager
    async def serve():
        async with verifier(full or FullEngine()) as made:
            connector = WatchedConnector(MemoryConnector(made), limit=messages_until_lost)
            async with served(connector, draft, pair or talking()) as (url, _):
                yield url

    with threaded(serve, str) as url:
        yield f"{url}/v1"


@contextlib.contextmanager
def threaded(serve, told):
    """What ``told`` makes of a service that runs on a loop and a thread of its own."""
    ready, found, ends = threading.Event(), [], []

    async def run():
        over = asyncio.Event()
        ends.append(functools.partial(asyncio.get_running_loop().call_soon_threadsafe, over.set))
        async with serve() as running:
            found.append(told(running))
            ready.set()
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert ready.wait(20), "the agent does not start"
        yield found[0]
    finally:
        ends[0]()
        thread.join()
