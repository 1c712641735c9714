"""Log probabilities in the events of an answer, and how tokens look by themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_agent.logprobs import FinalLikelihood, Likelihood, Spelling
from device_agent.request import Mode, Reveal
from speculation.links.memory import MemoryConnector
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.text import TokenBytes
from tests.device_agent.doubles import (
    PROMPT,
    DraftEngine,
    FullEngine,
    SlowEngine,
    agent,
    agent_of,
    answer,
    encode,
    plain_decoding,
    verifier,
)
from tests.support.likelihoods import likelihoods

SAMPLED = {"temperature": 0.8, "top_p": 0.9, "seed": 3}


def truth_of(count, **parameters):
    """What a full model told of its own text, one token at a time."""
    text = plain_decoding(FullEngine(), parameters=SamplingParameters(**{"seed": 3} | parameters))
    return likelihoods(FullEngine(), [*encode(PROMPT), *text], len(PROMPT), count)


def assert_told(replay, wanted):
    """What the events told is what the full model says."""
    told = [
        TokenLogprobs(entry["logprob"], tuple((one["token_id"], one["logprob"]) for one in entry["top"]))
        for entry in replay.logprobs
    ]
    assert told == list(wanted)


@pytest.mark.parametrize("reveal", Reveal)
@pytest.mark.parametrize("accuracy", [0.0, 0.7, 1.0])
async def test_every_final_token_comes_with_its_log_probability_however_it_became_final(accuracy, reveal):
    async with agent(DraftEngine(accuracy), SlowEngine(0.002)) as running:
        for parameters in ({}, SAMPLED):
            replay = await answer(running, logprobs=3, reveal=reveal, **parameters)
            assert_told(replay, truth_of(3, **parameters))


async def test_the_cloud_alone_tells_the_same_and_zero_is_the_tokens_own_alone():
    async with agent() as running:
        for count in (0, 20):
            assert_told(await answer(running, mode=Mode.CLOUD, logprobs=count), truth_of(count))


async def test_nobody_is_told_who_did_not_ask():
    async with agent() as running:
        assert (await answer(running)).logprobs is None


@pytest.mark.parametrize("reveal", Reveal)
async def test_a_stop_string_cuts_what_is_told_where_it_cuts_the_tokens(reveal):
    async with agent() as running:
        whole = await answer(running)
        replay = await answer(running, logprobs=1, reveal=reveal, stop=(whole.text[20:23],))
    assert replay.text == whole.text[: whole.text.index(whole.text[20:23])]
    assert_told(replay, truth_of(1)[: len(replay.token_ids)])


class Older:
    """A verifier that does not know log probabilities: it skips the field and says nothing of it."""

    def __init__(self, made):
        self._made = made

    def attach(self, message):
        return self._made.attach(replace(message, logprobs=None))


@pytest.mark.parametrize("mode", [Mode.CLOUD, Mode.COLLABORATE])
async def test_an_older_verifier_is_told_by_name_and_nothing_is_made_up(mode):
    async with verifier() as made, agent_of(MemoryConnector(Older(made))) as running:
        assert (await answer(running, mode=mode)).last["event"] == "done"
        replay = await answer(running, mode=mode, logprobs=2)
    assert replay.last["event"] == "error"
    assert replay.last["error"]["code"] == "handshake"
    assert "leave logprobs out" in replay.last["error"]["message"]


def test_a_token_is_named_by_its_text_and_by_its_bytes_where_these_are_no_text():
    spelling = Spelling(TokenBytes({1: b" a", 2: b"\xe2\x82", 3: b"\xc3\xa9", 4: b""}), {9: "<|end|>"})
    told = spelling.final(2, TokenLogprobs(-1.0, ((1, -0.5), (3, -2.0), (9, -3.0), (4, -4.0))), 7)
    top = (
        Likelihood(1, " a", -0.5, b" a"),
        Likelihood(3, "é", -2.0, "é".encode()),
        Likelihood(9, "<|end|>", -3.0, None),
        Likelihood(4, "", -4.0, b""),
    )
    assert told == FinalLikelihood(2, "\\xe2\\x82", -1.0, b"\xe2\x82", top, 7)
    assert (told.data, [one.data for one in told.top], told.offset) == (b"\xe2\x82", [one.data for one in top], 7)


def test_a_decoder_that_shows_no_bytes_tells_none_of_an_incomplete_character():
    spelling = Spelling(lambda token_ids: bytes(token_ids).decode(errors="replace"), {})
    told = spelling.final(0x61, TokenLogprobs(-1.0, ((0xE2, -2.0),)), 0)
    assert (told.token, told.data) == ("a", b"a")
    assert (told.top[0].token, told.top[0].data) == ("\ufffd", None)
