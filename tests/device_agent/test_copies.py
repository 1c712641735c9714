"""What a resting device copies makes its texts come sooner, shows nothing that may be withdrawn, and changes no token."""

import hashlib

import pytest

from device_agent.drafting.resting import Resting
from device_agent.request import Reveal
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from tests.device_agent.doubles import (
    DraftEngine,
    SlowEngine,
    WatchedConnector,
    agent,
    agent_of,
    answer,
    plain_decoding,
    verifier,
)
from tests.device_agent.generation_scene import SAMPLED, done_of, run

NUM_TOKENS = 120


@pytest.fixture
def at_rest(monkeypatch):
    """Every stream rests while it has had so many verdicts; all the time where nothing else is said."""

    def rests(first=0, last=10**9):
        monkeypatch.setattr(Resting, "is_due", lambda _self, num_verdicts, *_: first <= num_verdicts < last)

    rests()
    return rests


class Forgetful:
    """What follows depends on the last token alone: so greedy texts go round in circles."""

    def _append(self, chunk):
        digests = self._prefixes[chunk.cache]
        digests += [hashlib.blake2b(bytes([token_id]), digest_size=16).digest() for token_id in chunk.token_ids]
        return [self._row(digest) for digest in digests[len(digests) - chunk.num_logits :]]


class Full(Forgetful, SlowEngine):
    pass


class Draft(Forgetful, DraftEngine):
    pass


def plain(sampling):
    return plain_decoding(Full(0.0), NUM_TOKENS, SamplingParameters(**{"seed": 3} | sampling))


@pytest.mark.parametrize("reveal", list(Reveal))
@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
def test_a_text_that_repeats_itself_takes_fewer_passes_and_is_shown_once_it_is_final(at_rest, reveal, sampling):
    async def work():
        async with agent(Draft(0.0), Full(0.002)) as running:
            return await answer(running, max_tokens=NUM_TOKENS, reveal=reveal, **sampling)

    replay = run(work())
    done = done_of(replay)
    assert list(done["token_ids"]) == plain(sampling)
    assert done["figures"]["draft_steps"]["value"] == 0
    assert not {"speculative", "revoke"} & set(replay.names)
    passes = done["figures"]["passes_per_token"]["value"]
    assert passes < 0.5 if not sampling else passes <= 1


def test_what_was_copied_is_shown_before_what_the_model_drafts_behind_it(at_rest):
    at_rest(last=24)

    async def work():
        async with agent(Draft(1.0, step_s=0.0001), Full(0.002)) as running:
            return await answer(running, max_tokens=NUM_TOKENS)

    replay = run(work())
    assert list(done_of(replay)["token_ids"]) == plain({})
    assert "speculative" in replay.names  # the replay itself refuses a gap


@pytest.mark.parametrize(("reveal", "offline_tokens"), [(Reveal.ALL, 3), (Reveal.ALL, NUM_TOKENS), (Reveal.STABLE, 3)])
def test_a_device_that_loses_its_verifier_at_rest_goes_on_behind_what_it_copied(at_rest, reveal, offline_tokens):
    async def work():
        async with verifier(Full(0.002)) as made:
            broken = WatchedConnector(MemoryConnector(made), limit=20)
            async with agent_of(broken, Draft(1.0, step_s=0.001)) as running:
                return await answer(running, max_tokens=NUM_TOKENS, reveal=reveal, offline_tokens=offline_tokens)

    replay = run(work())
    text = plain({})
    done = done_of(replay)
    assert list(done["token_ids"]) == text[: len(done["token_ids"])]
    tail = len(done["token_ids"]) - done["verified_count"]
    assert tail == min(offline_tokens, NUM_TOKENS - done["verified_count"])
