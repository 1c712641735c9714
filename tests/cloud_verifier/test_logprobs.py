"""Log probabilities in verdicts: the full model's own, whatever the pass, the drafts and the stream; and only where asked."""

from __future__ import annotations

import asyncio

import pytest

from cloud_verifier import passes
from cloud_verifier.admission import check_request
from cloud_verifier.live import MOST_TOLD, LiveSession
from speculation.engines.remote import RemoteServer, connect
from speculation.engines.remote_routes import ROUTES
from speculation.errors import InvalidRequestError
from speculation.links.grpc import MAX_MESSAGE_BYTES
from speculation.log_softmax import token_logprobs
from speculation.logprobs import MAX_LOGPROBS, TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import MAX_TOKEN_ID, Draft, Node, Opened, Verdict, VerdictKind
from speculation.tenants import NOBODY
from speculation.wire import codec
from tests.cloud_verifier.doubles import IDENTITY, SAMPLED, ScriptedDevice, collect, open_message
from tests.cloud_verifier.sessions import opened, refusal, table, truth_of
from tests.cloud_verifier.test_companion import SometimesWrong
from tests.cloud_verifier.virtual import running, virtually
from tests.speculation.engines.remote.scene import CONTEXT, VOCABULARY, a_model
from tests.support.likelihoods import likelihoods
from tests.support.served_model import ServedModel, serving

NUM_TOKENS, GREEDY = 30, SamplingParameters()
LONG = (1, 2, 3) * 12


def asking(count, prompt, parameters=GREEDY, accuracy=0.5, seed=0):
    """A device that drafts right so often, and the text it will get."""
    truth = truth_of(prompt, parameters, NUM_TOKENS)
    session = DeviceSession(f"session-{seed}", IDENTITY, prompt, parameters, NUM_TOKENS, logprobs=count)
    return ScriptedDevice(session, [*truth, *[0] * NUM_TOKENS], accuracy, seed), truth


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("max_rows", [3, 256])
@virtually
async def test_each_session_is_told_what_it_asked_for_and_it_is_the_models_own(accuracy, max_rows):
    """Prompts in pieces and whole, greedy and sampled, at once: as many beside each token as each session wants."""
    asked = [(None, LONG, SAMPLED), (0, (4, 5), GREEDY), (5, LONG, SAMPLED), (MAX_LOGPROBS, (6,), GREEDY)]
    devices = [asking(*one, accuracy, seed) for seed, one in enumerate(asked)]
    async with running(max_rows=max_rows) as (_, _, connector):
        texts = await asyncio.gather(*(device.run(connector) for device, _ in devices))
    assert texts == [truth for _, truth in devices]
    for (count, prompt, _), (device, truth) in zip(asked, devices, strict=True):
        assert device.told == ([] if count is None else likelihoods(table(), truth, len(prompt), count))


@virtually
async def test_what_the_verifier_drafted_itself_is_told_a_token_a_verdict():
    _, truth = asking(2, (1, 2, 3))
    async with running(draft=SometimesWrong(3), draft_length=3) as (engine, _, connector):
        messages = await collect(await opened(connector, prefix=(1, 2, 3), max_tokens=NUM_TOKENS, logprobs=2))
        assert len(engine.passes) < NUM_TOKENS
    told = [one for message in messages if isinstance(message, Verdict) for one in message.logprobs]
    assert told == likelihoods(table(), truth, 3, 2)


@virtually
async def test_a_session_that_goes_on_elsewhere_is_told_of_each_token_once():
    device, truth = asking(3, (1, 2, 3), SAMPLED)
    session = device.session
    async with running() as (_, _, first), running() as (_, _, second):
        link = await first.connect()
        await link.send(session.open())
        while len(session.final) < 3 + NUM_TOKENS // 2:
            device.told += session.receive(await link.receive()).logprobs
        await link.aclose()
        assert await device.run(second) == truth
    assert device.told == likelihoods(table(), truth, 3, 3)


@virtually
async def test_nothing_is_computed_for_rows_that_nobody_asked_about():
    asked, plain = asking(1, (1, 2, 3), accuracy=0.3), asking(None, (4, 5), seed=1)
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passes, "token_logprobs", lambda *row: calls.append(row) or token_logprobs(*row))
        async with running() as (_, _, connector):
            await asyncio.gather(*(device.run(connector) for device, _ in (asked, plain)))
    assert len(calls) == NUM_TOKENS


@virtually
async def test_the_longest_verdict_is_one_that_a_device_reads():
    """However many rows a pass may have, and however many right drafts came."""
    top = tuple((MAX_TOKEN_ID - n, -1.5) for n in range(MAX_LOGPROBS))
    whole = Verdict(
        2**31, MOST_TOLD, 2**31, 2**31 - 1, VerdictKind.ACCEPT, logprobs=(TokenLogprobs(-1.5, top),) * (MOST_TOLD + 1)
    )
    assert codec.encoded_size(whole) < MAX_MESSAGE_BYTES
    async with running(max_rows=5000, credit=5000) as (_, verifier, _):
        for logprobs, longest in ((None, 3000), (0, MOST_TOLD)):
            prefix = tuple([5] * 10)
            message = open_message(
                session_id=f"s{logprobs}", prefix=prefix, generation_start=10, max_tokens=4000, logprobs=logprobs
            )
            ends = (lambda _: None), (lambda: None)
            live = LiveSession(message, 5000, 64, 10, *ends, verifier.account_of(NOBODY), verifier.seats.lock)
            live.receive(Draft(tuple(Node(n, n - 1, 1, 10 if n == 1 else 0) for n in range(1, 3001)), 10))
            assert len(live.plan(5000).token_ids) == longest


@virtually
async def test_what_is_granted_is_said_and_what_cannot_be_is_refused_by_name():
    async with running() as (_, _, connector):
        for count in (None, 0, MAX_LOGPROBS):
            link = await connector.connect()
            await link.send(open_message(session_id=f"s{count}", logprobs=count))
            message = await link.receive()
            assert isinstance(message, Opened)
            assert message.logprobs == count
        for count in (MAX_LOGPROBS + 1, 2**32 - 1):
            with pytest.raises(InvalidRequestError, match="from 0 to 20") as refused:
                await refusal(connector, session_id="s", logprobs=count)
            assert refused.value.parameter == "logprobs"


def test_a_model_whose_server_tells_few_tokens_of_a_row_has_none_to_tell():
    """What is missing of a row weighs something, so a log-softmax of the rest would be wrong."""
    route = next(iter(ROUTES))
    message, served = open_message(logprobs=0), ServedModel(table(), CONTEXT + 1)
    with serving(served) as url:
        few = connect(a_model(), RemoteServer(url, route, num_logprobs=20), 1)
        with pytest.raises(InvalidRequestError, match="full_logprobs"):
            check_request(message, few.description)
        served.max_logprobs = VOCABULARY
        every = connect(a_model(), RemoteServer(url, route, num_logprobs=VOCABULARY), 1)
        check_request(message, every.description)
