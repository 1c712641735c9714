"""An answer from a running agent, with an event loop and without one.

python examples/python_client.py [URL] [--key-file FILE] [--prompt TEXT]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from outrider.client import Client, DoneEvent, OutriderError, RevokeEvent, SpeculativeEvent, SyncClient, Transcript

GREY, PLAIN = "\x1b[90m", "\x1b[0m"


async def follow(client: Client, prompt: str) -> DoneEvent:
    """Print the answer step by step: what is final, and behind it, in grey, what may yet be withdrawn."""
    text = Transcript()
    async for event in client.stream(prompt, max_tokens=24, temperature=0.8, seed=7):
        text.apply(event)
        if isinstance(event, SpeculativeEvent | RevokeEvent):
            print(f"{event.name:>11}: {text.final_text!r} {GREY}{text.tentative_text!r}{PLAIN}")
        if isinstance(event, DoneEvent):
            done = event
    return done


async def with_a_loop(url: str, key: str | None, prompt: str) -> None:
    async with Client(url, key=key) as client:
        done = await follow(client, prompt)
        first = done.figures["first_visible_ms"]
        print(f"{done.text!r}: first word after {first['value']:.0f} ms ({first['basis']})")
        # Two answers at once, each waited for as a whole.
        greedy, sampled = await asyncio.gather(
            client.generate(prompt, max_tokens=12, temperature=0.0),
            client.generate(prompt, max_tokens=12, temperature=0.8, seed=8),
        )
        print(f"greedy {greedy.text!r}, sampled {sampled.text!r}")


def without_a_loop(url: str, key: str | None, prompt: str) -> None:
    with SyncClient(url, key=key) as client:
        print(f"again, the same seed: {client.generate(prompt, max_tokens=24, temperature=0.8, seed=7).text!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
    parser.add_argument("--key-file", type=Path, help="for an agent that has keys")
    parser.add_argument("--prompt", default="The module provides")
    given = parser.parse_args()
    try:
        key = given.key_file.read_text().strip() if given.key_file else None
    except (OSError, UnicodeError) as error:
        sys.exit(f"{given.key_file} cannot be read: {error}")
    try:
        asyncio.run(with_a_loop(given.url, key, given.prompt))
        without_a_loop(given.url, key, given.prompt)
    except OutriderError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
