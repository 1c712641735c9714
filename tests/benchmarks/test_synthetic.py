"""The synthetic pair meets its acceptance, is addressed, and lets no device look ahead."""

import asyncio
import math
from statistics import mean

import numpy as np
import pytest

from benchmarks import grid_production
from benchmarks.first_order import Times
from benchmarks.virtual import last_event
from cloud_verifier.config import VerifierConfig
from cloud_verifier.verification import Verifier
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.request import Mode, StreamRequest
from outrider.planning import synthetic
from outrider.planning.synthetic import FIRST, SECOND, Acceptance, DraftEngine, FullEngine
from speculation.choice import choose
from speculation.engines.base import Chunk
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Draft
from speculation.shaping import virtual_time
from speculation.shaping.link import ShapedConnector
from tests.device_agent.doubles import WatchedConnector

KNOB = Acceptance(0.8)
PATH = [3, 1, 4, 1, 5, 9, 2, 6]
TIMES = Times(9.0, 60.0, 60.0)
CONTEXT = 200


def rows(engine, path=PATH):
    return engine.extend([Chunk(engine.open(), path, len(path))])


def row_and_address(engine, path):
    cache = engine.open()
    return engine.extend([Chunk(cache, path, 1)])[0], engine.address(cache)


def draft(seed=0, knob=KNOB):
    return DraftEngine(knob, seed, CONTEXT, 0.0)


def full(seed=0, knob=KNOB):
    return FullEngine(knob, seed, CONTEXT, 0.0)


def softmax(row):
    weights = np.exp(row.astype(np.float64))
    return weights / weights.sum()


def guesses(count, knob=KNOB):
    return [synthetic.guess(index.to_bytes(16, "little"), knob) for index in range(count)]


@pytest.mark.parametrize("alpha", [0.6, 0.8, 0.95])
@pytest.mark.parametrize("cover2", [0.3, 0.55])
def test_the_full_model_takes_the_first_and_the_second_choice_as_often_as_the_knob_says(alpha, cover2):
    knob = Acceptance(alpha, cover2)
    ranks = [r for seed in range(4) for r in synthetic.true_ranks(knob, seed, [1], 1500)]
    misses = [r for r in ranks if r != FIRST]
    # Three standard errors and a half.
    assert 1 - len(misses) / len(ranks) == pytest.approx(alpha, abs=3.5 * math.sqrt(alpha * (1 - alpha) / len(ranks)))
    assert misses.count(SECOND) / len(misses) == pytest.approx(cover2, abs=3.5 * math.sqrt(0.25 / len(misses)))


@pytest.mark.parametrize(("alpha", "concentration"), [(0.6, 1.2), (0.8, 1.2), (0.95, 1.2), (0.7, 6.0)])
def test_chances_follow_the_beta_law_of_the_knob(alpha, concentration):
    firsts = [said.first for said in guesses(6000, Acceptance(alpha, concentration=concentration))]
    variance = alpha * (1 - alpha) / (concentration + 1)
    assert mean(firsts) == pytest.approx(alpha, abs=4 * math.sqrt(variance / len(firsts)))
    assert float(np.var(firsts)) == pytest.approx(variance, rel=0.1)


def test_confidence_is_calibrated():
    knob = Acceptance(0.7)
    said = guesses(8000, knob)
    taken = [synthetic.rank(s, synthetic.truth_draw(i.to_bytes(16, "little"))) == FIRST for i, s in enumerate(said)]
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = [(s.first, hit) for s, hit in zip(said, taken, strict=True) if low <= s.first < low + 0.25]
        expected = mean(first for first, _ in inside)
        assert mean(hit for _, hit in inside) == pytest.approx(expected, abs=2 / math.sqrt(len(inside)))


def test_the_draft_tells_its_choices_and_how_likely_they_are():
    told = 0
    for path in ([token, *PATH] for token in range(100)):
        row, address = row_and_address(draft(), path)
        said, chances = synthetic.guess(address, KNOB), softmax(row)
        assert int(row.argmax()) == said.choices[FIRST]
        assert set(np.argsort(row)[-2:].tolist()) == set(said.choices[:2])
        if 0.01 < said.second < said.first:
            told += 1
            assert chances[said.choices[FIRST]] == pytest.approx(said.first, rel=1e-5)
            assert chances[said.choices[SECOND]] == pytest.approx(said.second, rel=1e-5)
    assert told > 30


@pytest.mark.parametrize("first", [0.0, 1e-9, 0.001, 0.008, 0.3, 0.5, 1 - 1e-16, 1.0])
@pytest.mark.parametrize("cover2", [0.1, 0.55, 1.0])
def test_any_chance_gives_finite_logits_led_by_the_first_choice(monkeypatch, first, cover2):
    monkeypatch.setattr(synthetic, "_beta", lambda *_: first)
    knob = Acceptance(0.8, cover2)
    row, address = row_and_address(draft(knob=knob), PATH)
    said = synthetic.guess(address, knob)
    choices = choose(row[None], [8], [SamplingParameters()])
    assert choices.token_ids == [said.choices[FIRST]]
    assert not any(choices.near_ties)
    assert int(np.argsort(row)[-2]) == said.choices[SECOND]


def test_the_three_choices_are_three_tokens():
    assert all(len(set(said.choices)) == 3 and max(said.choices) < synthetic.VOCABULARY for said in guesses(3000))


@pytest.mark.parametrize("make", [draft, full])
def test_the_same_address_gives_the_same_row_and_another_seed_or_path_gives_another(make):
    expected = rows(make())
    engine = make()
    rows(engine, [7, 7, 7])
    cache = engine.open()
    pieces = [engine.extend([Chunk(cache, [token], 1)])[0] for token in PATH]
    assert np.array_equal(np.array(pieces), expected)
    assert not np.array_equal(rows(make(seed=1)), expected)
    assert not np.array_equal(rows(make(), [0, *PATH[1:]])[-1], expected[-1])


def test_a_draft_does_not_depend_on_the_draw_of_the_truth(monkeypatch):
    path = list(range(CONTEXT))
    said, taken = rows(draft(), path), rows(full(), path).argmax(axis=1)
    drawn = synthetic.truth_draw
    monkeypatch.setattr(synthetic, "truth_draw", lambda address: 1 - drawn(address))
    assert np.array_equal(rows(draft(), path), said)
    assert np.count_nonzero(rows(full(), path).argmax(axis=1) != taken) > CONTEXT / 10


def test_a_device_alone_never_draws_the_truth(monkeypatch):
    def refuse(address):
        raise AssertionError("the truth was read")

    monkeypatch.setattr(synthetic, "truth_draw", refuse)

    async def write():
        async with DeviceAgent(synthetic.facts(CONTEXT), EngineRunner(draft()), None, AgentConfig()) as agent:
            return await last_event(agent, StreamRequest(grid_production.PROMPT, max_tokens=40, mode=Mode.DEVICE))

    assert len(virtual_time.run(write()).token_ids) == 40
    with pytest.raises(AssertionError, match="truth"):
        rows(full())


def told_until_the_end():
    """What a device sends, with its time; and when it learned each final token."""

    async def write():
        engine = FullEngine(KNOB, 0, CONTEXT, TIMES.pass_ms / 1000)
        verifier = Verifier(EngineRunner(engine), synthetic.IDENTITY, SelfTest(True, "f" * 16, 0.0, ()), VerifierConfig())
        radio = ShapedConnector(MemoryConnector(verifier), grid_production.delay_line(TIMES.round_trip_ms))
        watched = WatchedConnector(radio)
        runner = EngineRunner(DraftEngine(KNOB, 0, CONTEXT, TIMES.draft_ms / 1000))
        learned = {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(verifier.run())
            async with radio, DeviceAgent(synthetic.facts(CONTEXT), runner, watched, AgentConfig()) as agent:
                async for event in agent.stream(StreamRequest(grid_production.PROMPT, max_tokens=100)):
                    if offset := getattr(event, "commit_offset", None):
                        learned.setdefault(offset.tokens, asyncio.get_running_loop().time())
                last = event
            verifier.stop()
        return watched.links[0].sent, learned, last.token_ids

    return virtual_time.run(write())


def drafts_before(sent, time_s):
    return [(at_s, message) for at_s, message in sent if isinstance(message, Draft) and at_s < time_s]


@pytest.mark.parametrize("index", [10, 35, 60])
def test_what_a_device_sends_does_not_depend_on_truth_that_it_was_not_told(monkeypatch, index):
    """Two worlds that differ in what the full model takes at one place: the device acts alike until that verdict is there."""
    sent, learned, token_ids = told_until_the_end()
    told_s = min(at_s for count, at_s in learned.items() if count > index)
    _, address = row_and_address(full(), [*synthetic.encode(grid_production.PROMPT), *token_ids[:index]])
    drawn = synthetic.truth_draw
    said = synthetic.guess(address, KNOB)
    other = 0.0 if synthetic.rank(said, drawn(address)) == SECOND else said.first
    monkeypatch.setattr(synthetic, "truth_draw", lambda at: other if at == address else drawn(at))
    otherwise, _, other_ids = told_until_the_end()
    assert token_ids[:index] == other_ids[:index]
    assert token_ids[index] != other_ids[index]
    assert drafts_before(otherwise, told_s) == drafts_before(sent, told_s) != []
    assert drafts_before(otherwise, math.inf) != drafts_before(sent, math.inf)


def test_collaboration_writes_the_full_models_own_text():
    _, _, token_ids = told_until_the_end()
    engine = full()
    row = rows(engine, [*synthetic.encode(grid_production.PROMPT), *token_ids])
    assert row.argmax(axis=1).tolist()[:-1] == list(token_ids)
