"""The agent inside this program: no second process, no HTTP. Without --verifier one runs in this process, too.

python examples/embed.py [--verifier HOST:PORT] [--phone NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AbstractAsyncContextManager, aclosing

from outrider import DeviceAgent
from outrider.client import OutriderError, SpeculativeEvent, Transcript

PROMPT = "The module provides"


async def show(agent: DeviceAgent) -> None:
    """What a reader would see at each step: final text, then a bar, then what is tentative."""
    text = Transcript()
    async for event in agent.stream(PROMPT, max_tokens=16, temperature=0.8, seed=7):
        text.apply(event)
        print(f"{event.name:>11}  {text.final_text!r} | {text.tentative_text!r}")


async def several(agent: DeviceAgent) -> None:
    """Answers at once share the draft's steps and the verifier's passes."""
    answers = await asyncio.gather(*(agent.generate(PROMPT, max_tokens=12, temperature=0.8, seed=seed) for seed in range(3)))
    for seed, done in enumerate(answers):
        print(f"seed {seed}: {done.text!r}, {done.verified_count} of {len(done.token_ids)} tokens verified")


async def left_early(agent: DeviceAgent) -> None:
    """Who has read enough leaves the block: nothing goes on behind it, here or at the verifier."""
    async with aclosing(agent.stream(PROMPT, max_tokens=200)) as events:
        async for event in events:
            if isinstance(event, SpeculativeEvent):
                break
    print(f"left early, answers that still run: {agent.num_streams}")


async def main(agent_of: AbstractAsyncContextManager[DeviceAgent]) -> None:
    async with agent_of as agent:
        for part in (show, several, left_early):
            await part(agent)
        try:
            await agent.generate(PROMPT, max_tokens=0)
        except OutriderError as error:
            print(f"refused: {error}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verifier", metavar="HOST:PORT")
    parser.add_argument("--phone", default="none", help="a phone to emulate (`outrider profiles phones`)")
    given = parser.parse_args()
    try:
        if given.verifier is None:
            asyncio.run(main(DeviceAgent.local(phone=given.phone)))
        else:
            asyncio.run(main(DeviceAgent(verifier=given.verifier, phone=given.phone)))
    except OutriderError as error:
        sys.exit(f"{type(error).__name__}: {error}")
