"""Replaying traces gives the recorded text through the production code, and obeys the laws of engines."""

import dataclasses

import numpy as np
import pytest

from benchmarks import trace_statistics as statistics
from benchmarks.trace_file import (
    FIRST,
    NO_TOKEN,
    SECOND,
    Branch,
    Proposals,
    Recording,
    Trace,
)
from benchmarks.trace_replay import ROOT, Replay, ReplayDraft, ReplayFull, Said, StepCost, addresses, draft_row, stack
from benchmarks.virtual import last_event
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.request import Mode, StreamRequest
from speculation.choice import choose, choose_ranked
from speculation.engines.base import Charging, Chunk
from speculation.engines.runner import EngineRunner
from speculation.errors import InvalidRequestError
from speculation.shaping import virtual_time
from tests.benchmarks.trace_scene import GREEDY, made, made_trace, row_behind, said_behind
from tests.speculation.engines import test_conformance as laws

# The engines obey the laws of all engines: on what was recorded (the laws' own text is a trace here) and beside it.
globals().update({name: law for name, law in vars(laws).items() if name.startswith("test_")})


@pytest.fixture(params=[ReplayDraft, ReplayFull])
def engine(request):
    index, *path = laws.TOKENS
    return request.param(made([made_trace(path, laws.VOCABULARY)] * (index + 1), laws.VOCABULARY), num_slots=laws.SLOTS)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_draft_says_what_was_recorded_by_the_agents_own_rule(replay, temperature):
    index = replay.indices(temperature)[1]
    trace, engine = replay.recording.traces[index], ReplayDraft(replay)
    path, size = trace.token_ids.tolist(), replay.recording.vocabulary_size
    expected = [([index, *path[:offset]], trace.said, offset) for offset in range(len(path))]
    for branch in trace.branches[::5]:
        prefix = [index, *path[: branch.offset], int(trace.said.token_ids[branch.offset, branch.rank])]
        for row in range(min(len(branch.said), replay.context_length - len(prefix))):
            expected.append(([*prefix, *branch.said.token_ids[:row, FIRST].tolist()], branch.said, row))
    num_exact = 0
    for prefix, said, row in expected:
        token_ids, confidences = said_behind(engine, prefix)
        first, second = said.confidences[row, : SECOND + 1].tolist()
        assert token_ids == said.token_ids[row, : SECOND + 1].tolist()
        if second < first * 0.999 and first + second < 1 and second > 1 / size and first > 2 / size:
            assert confidences == pytest.approx([first, second], rel=1e-5)
            num_exact += 1
    assert num_exact > 0.7 * len(expected)
    assert engine.use.num_rows == len(expected) > 400
    assert engine.use.num_made_up == 0


@pytest.mark.parametrize("first", [0.0, 4e-4, 0.004, 0.3, 0.5, 0.9999, 1.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_any_recorded_confidence_gives_finite_logits_that_keep_the_order(first, share):
    row = draft_row(Said((7, 3), (first, share * min(first, 1 - first))), 4096)
    assert np.isfinite(row).all()
    choices = choose(row[None], [5], [GREEDY])
    assert choices.token_ids == [7]
    assert not any(choices.near_ties)
    assert choose_ranked(row[None], [5], [GREEDY], 2).token_ids.tolist() == [[7, 3]]


FOUR = [(0.4, 0.3, 0.2, 0.05), (0.4, 0.3, 0.3, 0.0), (1.0, 0.0, 0.0, 0.0), (0.25,) * 4, (1e-4,) * 4, (0.5, 0.5, 0.5, 0.5)]


@pytest.mark.parametrize("confidences", FOUR)
def test_four_choices_are_said_in_order_and_as_they_were_where_that_can_be(confidences):
    row = draft_row(Said((7, 3, 9, 1), confidences), 4096)
    ranked = choose_ranked(row[None], [5], [GREEDY], 5)
    assert np.isfinite(row).all()
    assert ranked.token_ids[0, :4].tolist() == [7, 3, 9, 1]
    assert ranked.confidences[0, 4] < ranked.confidences[0, 3]
    if confidences == FOUR[0]:
        assert ranked.confidences[0, :4].tolist() == pytest.approx(confidences, rel=1e-5)


def test_a_choice_without_a_name_gets_one_from_the_prefix_and_none_twice():
    said = Proposals(np.array([[11, 12, NO_TOKEN, NO_TOKEN]] * 2), np.array([[0.4, 0.3, 0.2, 0.05]] * 2))
    replay = made([made_trace([4, 5, 6], 5000, [Branch(0, FIRST, said)])], 5000)
    missed = int(replay.recording.traces[0].said.token_ids[0, FIRST])
    told = [replay.said(address) for address in addresses(addresses(ROOT, [0])[0], [missed, 11])]
    assert all(its.token_ids[:2] == (11, 12) and its.confidences == (0.4, 0.3, 0.2, 0.05) for its in told)
    assert all(len(set(its.token_ids)) == 4 and min(its.token_ids) >= 0 for its in told)
    assert told[0] != told[1]


@pytest.mark.parametrize(("num_choices", "is_accepted"), [(2, False), (4, True)])
def test_a_fourth_choice_that_the_full_model_takes_was_drafted_and_is_accepted(num_choices, is_accepted):
    path = list(range(10, 40))
    said = Proposals(np.array([[100 + t, 200 + t, 300 + t, t] for t in path]), np.tile([0.3, 0.25, 0.2, 0.15], (len(path), 1)))
    replay = made([Trace("made", 3, 0.8, 1, np.array(path), said, said.confidences, [])], 500)
    config = AgentConfig(drafting="second-branch", draft_width=8, draft_choices=num_choices)

    async def write():
        draft, full = ReplayDraft(replay, StepCost(0.009), 16), ReplayFull(replay, StepCost(0.06))
        async with stack(replay, draft, full, 20.0, config) as agent:
            return await last_event(agent, replay.request(0))

    done = virtual_time.run(write())
    assert list(done.token_ids) == path
    assert (done.usage["accepted"] > 0) == is_accepted


def test_the_full_model_takes_the_recorded_tokens(replay):
    for index in (*replay.indices(0.0)[:2], *replay.indices(0.8)[-2:]):
        path = replay.recording.traces[index].token_ids.tolist()
        engine = ReplayFull(replay)
        fed = [index, *path[:-1]]
        rows = engine.extend([Chunk(engine.open(), fed, len(fed))])
        choices = choose(rows, range(1, len(path) + 1), [GREEDY] * len(path))
        assert choices.token_ids == path
        assert not any(choices.near_ties)


def test_what_was_not_recorded_is_made_up_the_same_every_time_and_counted(replay):
    index, off = 3, [5, 4, 3, 2, 1, 0]
    first, second = (ReplayDraft(replay) for _ in range(2))
    said_behind(first, [index])
    token_ids, confidences = said_behind(first, [index, *off])
    assert (first.use.num_rows, first.use.num_made_up, first.use.made_up_share) == (2, 1, 0.5)
    assert said_behind(second, [index, *off]) == (token_ids, confidences)
    means = replay.recording.traces[index].said.confidences.mean(axis=0)
    assert said_behind(second, [index, *off], len(means))[1] == pytest.approx(means.tolist(), rel=1e-5)
    others = {tuple(said_behind(second, [index, *off, last])[0]) for last in range(50)}
    assert len(others) == 50
    assert all(a != b for a, b in others)


def test_a_step_is_charged_by_itself_and_by_row():
    engine = ReplayFull(made([made_trace([1, 2, 3], 50)], 50), StepCost(0.5, 0.25))
    assert isinstance(engine, Charging)
    engine.extend([Chunk(engine.open(), [0, 1], 1), Chunk(engine.open(), [0], 1)])
    assert engine.take_charge_s() == 1.25
    assert engine.take_charge_s() == 0


@pytest.mark.parametrize("prompt", ["hello", "A", chr(0x4E00 + 32)])
def test_a_prompt_that_names_no_trace_is_refused(replay, prompt):
    with pytest.raises(InvalidRequestError, match="0 to 31"):
        replay.facts.encode(prompt)


class RefusingTruth(dict):
    def get(self, *_):
        raise AssertionError("the truth was read")


def test_a_device_alone_never_reads_what_the_full_model_took(recording):
    replay = Replay(recording)
    replay.taken = RefusingTruth()

    async def write():
        async with DeviceAgent(replay.facts, EngineRunner(ReplayDraft(replay)), None, AgentConfig()) as agent:
            return await last_event(agent, replay.request(0, Mode.DEVICE))

    assert len(virtual_time.run(write()).token_ids) > 20
    with pytest.raises(AssertionError, match="truth"):
        row_behind(ReplayFull(replay), [0])


def written(replay, index, mode, round_trip_ms=60.0):
    """The last event of a trace's request, and what its draft did."""

    async def write():
        draft, full = ReplayDraft(replay, StepCost(0.009)), ReplayFull(replay, StepCost(0.06))
        async with stack(replay, draft, full, round_trip_ms) as agent:
            return await last_event(agent, replay.request(index, mode)), draft.use

    return virtual_time.run(write())


@pytest.mark.parametrize("mode", [Mode.COLLABORATE, Mode.CLOUD])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_production_code_writes_the_recorded_text(replay, temperature, mode):
    for index in replay.indices(temperature)[:2]:
        done, use = written(replay, index, mode)
        trace = replay.recording.traces[index]
        assert list(done.token_ids) == trace.token_ids.tolist()
        assert done.verified_count == len(trace.token_ids)
        if mode is Mode.COLLABORATE:
            assert 0 < use.num_made_up < use.num_rows
            assert done.usage["passes"] < 0.9 * len(trace.token_ids)


def test_a_replay_takes_the_same_time_every_time(replay):
    assert written(replay, 5, Mode.COLLABORATE)[0].figures == written(replay, 5, Mode.COLLABORATE)[0].figures


def test_an_answer_ends_with_the_recorded_end():
    """A path that is shorter than asked for ends with an end token: nothing is made up behind it."""
    recording = Recording("made 1", "0" * 64, 50, (9,), {}, [made_trace([4, 8, 9], 50), made_trace([1, 2, 3, 4, 5, 6], 50)])
    replay = Replay(recording)

    async def write():
        async with stack(replay, ReplayDraft(replay), ReplayFull(replay), 20.0) as agent:
            return await last_event(agent, StreamRequest(chr(0x4E00), max_tokens=5))

    done = virtual_time.run(write())
    assert (list(done.token_ids), done.finish_reason) == ([4, 8, 9], "stop")


def test_a_branch_stands_behind_the_proposal_that_it_follows():
    said = Proposals(np.array([[11, 12], [13, 14]]), np.array([[0.5, 0.25], [0.75, 0.125]]))
    trace = made_trace([4, 5, 6], 50, [Branch(2, FIRST, said)])
    replay = made([trace, trace], 50)
    missed = int(trace.said.token_ids[2, FIRST])
    assert replay.said(addresses(ROOT, [1, 4, 5, missed])[-1]) == Said((11, 12), (0.5, 0.25))
    assert replay.said(addresses(ROOT, [1, 4, 5, missed, 11])[-1]) == Said((13, 14), (0.75, 0.125))
    assert replay.said(addresses(ROOT, [1, 4, 5, missed, 11, 13])[-1]) is None
    assert replay.said(addresses(ROOT, [1, 4, 5, 6])[-1]) is None


def test_figures_by_hand():
    values = np.array([0.1, 0.4, 0.4, 0.8])
    right = np.array([False, False, True, True])
    # Of four pairs of right and wrong, three are in order and one is a tie.
    assert statistics.auc(values, right) == pytest.approx(3.5 / 4)
    bins = statistics.reliability(np.array([0.05, 0.95, 0.97, 1.0]), np.array([True, True, False, True]))
    assert [b.count for b in bins] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert bins[9].agreement == pytest.approx(2 / 3)
    error = statistics.calibration_error(bins)
    assert error == pytest.approx((0.95 + 3 * (2.92 / 3 - 2 / 3)) / 4)
    hits = np.array([True, True, False, False, True, False, True])
    assert statistics.completed_agreements(hits) == 3
    sample = [1.0, 2.0, 4.0, 9.0]
    assert statistics.jackknife(lambda kept: float(np.mean([sample[i] for i in kept])), 4) == pytest.approx(
        np.std(sample, ddof=1) / 2
    )


def test_a_path_is_told_as_it_is():
    trace = made_trace(list(range(10, 20)), 50)
    trace.said.token_ids[0, SECOND] = 10
    path = statistics.along([trace, dataclasses.replace(trace, prompt="other")])
    assert (path.num_prompts, path.num_tokens, path.acceptance, path.acceptance_error) == (2, 20, 0.5, 0.0)
    assert path.covered == pytest.approx([1 / 5])
    assert path.mean_run == pytest.approx(4 / 5)
