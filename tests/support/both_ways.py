"""The same requests answered together and by the cloud alone."""

import asyncio

import httpx

from cloud_verifier.patience import AUTO
from device_agent.request import Mode
from outrider.client import Client, DoneEvent
from outrider.local import Emulation, local_agent

PROMPT, NUM_TOKENS = "## Tiny", 60
SEEDS = (3, 4)


async def both_ways(client, **parameters):
    """The last events together and of the cloud alone, of two requests at a time."""

    async def one(mode, seed):
        options = {"mode": mode.value, "max_tokens": NUM_TOKENS, "seed": seed, **parameters}
        return [event async for event in client.stream(PROMPT, **options)][-1]

    done = await asyncio.gather(*(one(mode, seed) for mode in (Mode.COLLABORATE, Mode.CLOUD) for seed in SEEDS))
    return done[: len(SEEDS)], done[len(SEEDS) :]


async def both_ways_of(models, limit_s, patience=AUTO, **parameters):
    """As ``both_ways``, of services that are started for it. With patience ``NEVER`` the verifier waits for drafts; without any
    it may overtake them all on a computer that is busy."""
    async with asyncio.timeout(limit_s), local_agent(Emulation(), models) as url, Client(url) as client:
        if patience != AUTO:
            async with httpx.AsyncClient(base_url=url) as http:
                (await http.patch("/v1/emulation", json={"patience": patience})).raise_for_status()
        return await both_ways(client, **parameters)


def check_same_text(together, alone):
    """Every collaborative answer is whole, verified to its end, and the cloud's own."""
    for collaborative, cloud in zip(together, alone, strict=True):
        assert isinstance(collaborative, DoneEvent)
        assert collaborative.token_ids == cloud.token_ids
        assert collaborative.verified_count == len(collaborative.token_ids)
