"""Traces are what the pair says, and replaying them gives the recorded text through the production code."""

import dataclasses
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import trace_statistics as statistics
from benchmarks import traces
from benchmarks.trace_file import (
    BRANCH_UNIT,
    BUNDLED,
    FIRST,
    NO_TOKEN,
    PLACES,
    RECORD,
    SECOND,
    UNIT,
    Branch,
    Proposals,
    Recording,
    Trace,
    load,
    save,
)
from benchmarks.trace_recorder import Plan, engines, record
from benchmarks.trace_replay import ROOT, Replay, ReplayDraft, ReplayFull, Said, StepCost, addresses, draft_row, stack
from benchmarks.virtual import last_event
from device_agent.agent import DeviceAgent
from device_agent.config import AgentConfig
from device_agent.request import Mode, StreamRequest
from speculation.choice import choose, choose_ranked
from speculation.engines.base import Charging, Chunk
from speculation.engines.package import bundled_pair_path, load_pair
from speculation.engines.runner import EngineRunner
from speculation.errors import InvalidRequestError
from speculation.parameters import SamplingParameters
from speculation.shaping import virtual_time
from tests.speculation.engines import test_conformance as laws
from tests.speculation.engines.tiny import tiny_pair
from tests.support import choice_reference
from tests.support.processor import gives_rows_alike_in_4_bits

GREEDY = SamplingParameters()
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
TINY_PLAN = Plan(num_prompts=1, num_tokens=10, first_length=4, second_length=3, least_second=0.0)


@pytest.fixture(scope="module")
def recording():
    return load()


@pytest.fixture(scope="module")
def replay(recording):
    return Replay(recording)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The folder of a pair of random models, and its recording."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pair(folder)
    return folder, record(TINY_PLAN, folder)


def made_trace(token_ids, vocabulary_size, branches=()):
    """A trace whose draft is right at every second place."""
    count = len(token_ids)
    firsts = [token if offset % 2 else (token + 1) % vocabulary_size for offset, token in enumerate(token_ids)]
    said = Proposals(
        np.array([[first, (first + 2) % vocabulary_size] for first in firsts]),
        np.linspace([0.2, 0.1], [0.9, 0.05], count),
    )
    return Trace("made", 3, 0.8, 1, np.array(token_ids), said, said.confidences, list(branches))


def made(traces, vocabulary_size):
    return Replay(Recording("made 1", "0" * 64, vocabulary_size, (), {}, traces))


def row_behind(engine, tokens):
    cache = engine.open()
    row = engine.extend([Chunk(cache, tokens, 1)])
    engine.close(cache)
    return row


def said_behind(engine, tokens, count=2):
    ranked = choose_ranked(row_behind(engine, tokens), [len(tokens)], [GREEDY], count)
    return ranked.token_ids[0].tolist(), ranked.confidences[0].tolist()


# The engines obey the laws of all engines: on what was recorded (the laws' own text is a trace here) and beside it.
globals().update({name: law for name, law in vars(laws).items() if name.startswith("test_")})


@pytest.fixture(params=[ReplayDraft, ReplayFull])
def engine(request):
    index, *path = laws.TOKENS
    return request.param(made([made_trace(path, laws.VOCABULARY)] * (index + 1), laws.VOCABULARY), num_slots=laws.SLOTS)


def assert_fresh(recording):
    digest = json.loads((bundled_pair_path() / "pair.json").read_text("utf-8"))["pair_digest"]
    assert recording.pair_digest == digest, f"the traces are of another pair than models/pydoc; run: {RECORD}"


def test_the_bundled_pair_is_the_one_that_was_recorded(recording):
    assert_fresh(recording)


def test_the_page_shows_the_figures_of_the_committed_traces(recording):
    page = PAGE.read_text("utf-8")
    assert [grid.title for grid in traces.grids(traces.measure(recording)) if grid.to_markdown() not in page] == [], (
        f"run: {RECORD}"
    )


def test_the_committed_traces_are_what_the_plan_says(recording):
    assert_fresh(recording)
    plan = Plan()
    assert [(t.temperature, t.seed) for t in recording.traces] == [
        (temperature, plan.first_seed + number) for temperature in plan.temperatures for number in range(plan.num_prompts)
    ]
    assert [t.prompt for t in recording.traces] == 2 * [p["source"] for p in load_pair().prompts[: plan.num_prompts]]
    for trace in recording.traces:
        is_ended = trace.token_ids[-1] in recording.end_token_ids
        assert len(trace.token_ids) == plan.num_tokens or (is_ended and len(trace.token_ids) < plan.num_tokens)
        missed = {b.offset for b in trace.branches if b.rank == FIRST}
        firsts = trace.said.token_ids[:, FIRST]
        assert missed == set(np.flatnonzero(~trace.hits & ~np.isin(firsts, recording.end_token_ids)).tolist())
    assert BUNDLED.stat().st_size < 1_200_000


def test_a_file_gives_back_what_was_saved_and_the_same_bytes(tiny, tmp_path):
    _, recorded = tiny
    save(recorded, tmp_path / "a.npz")
    loaded = load(tmp_path / "a.npz")
    save(loaded, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert (loaded.pair, loaded.pair_digest, loaded.end_token_ids) == (recorded.pair, recorded.pair_digest, (0,))
    for found, wanted in zip(loaded.traces, recorded.traces, strict=True):
        assert (found.prompt, found.prompt_length, found.temperature, found.seed) == (
            wanted.prompt,
            wanted.prompt_length,
            wanted.temperature,
            wanted.seed,
        )
        assert found.token_ids.tolist() == wanted.token_ids.tolist()
        assert np.abs(found.probabilities - wanted.probabilities).max() <= 0.51 * UNIT
        assert_alike(found.said, wanted.said, UNIT)
        assert len(found.branches) == len(wanted.branches) > 0
        for branch, recorded_branch in zip(found.branches, wanted.branches, strict=True):
            assert (branch.offset, branch.rank) == (recorded_branch.offset, recorded_branch.rank)
            assert_alike(branch.said, recorded_branch.said, BRANCH_UNIT)


def assert_alike(found, wanted, unit):
    assert found.token_ids.tolist() == wanted.token_ids.tolist()
    assert np.abs(found.confidences - wanted.confidences).max() <= 0.51 * unit


def test_no_date_is_in_a_file(tiny, tmp_path):
    save(tiny[1], tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_file_of_another_schema_is_refused_with_the_command_that_helps(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.trace_file.SCHEMA_VERSION", 0)
    save(tiny[1], tmp_path / "old.npz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"version 0.*{RECORD}"):
        load(tmp_path / "old.npz")


def cut_to_two(said):
    return Proposals(said.token_ids[:, :2], said.confidences[:, :2])


def test_an_old_file_with_two_choices_is_read_as_one_without_further_choices(tiny, tmp_path, monkeypatch):
    old = [
        dataclasses.replace(
            trace,
            said=cut_to_two(trace.said),
            branches=[dataclasses.replace(b, said=cut_to_two(b.said)) for b in trace.branches if b.rank <= SECOND],
        )
        for trace in tiny[1].traces
    ]
    monkeypatch.setattr("benchmarks.trace_file.SCHEMA_VERSION", 1)
    save(dataclasses.replace(tiny[1], traces=old), tmp_path / "old.npz")
    monkeypatch.undo()
    loaded = load(tmp_path / "old.npz")
    for found, wanted in zip(loaded.traces, old, strict=True):
        assert_alike(found.said, wanted.said, UNIT)
        assert found.said.token_ids.shape[1] == 2
        assert len(statistics.along([found, found]).covered) == 1
    address = addresses(ROOT, [0])[0]
    assert Replay(loaded).said(address).token_ids == tuple(old[0].said.token_ids[0].tolist())


def test_recording_twice_gives_the_same_bytes(tiny, tmp_path):
    folder, recorded = tiny
    save(recorded, tmp_path / "a.npz")
    save(record(TINY_PLAN, folder), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_recording_the_bundled_pair_again_gives_the_beginning_of_what_is_committed(recording):
    """Two traces, eight tokens: the recorder is deterministic, and the committed file is its work (the choices that it has)."""
    assert_fresh(recording)
    again = record(Plan(num_prompts=1, num_tokens=8, first_length=3, second_length=2))
    for found in again.traces:
        wanted = next(t for t in recording.traces if (t.prompt, t.temperature) == (found.prompt, found.temperature))
        assert found.token_ids.tolist() == wanted.token_ids[:8].tolist()
        count = wanted.said.token_ids.shape[1]
        if gives_rows_alike_in_4_bits():
            assert_near(found.said, wanted.said)
            continue
        assert found.said.token_ids[:, :count].tolist() == wanted.said.token_ids[:8].tolist()
        assert np.abs(found.said.confidences[:, :count] - wanted.said.confidences[:8]).max() < 2 * UNIT
        committed = {(b.offset, b.rank): b.said for b in wanted.branches}
        for branch in found.branches:
            if branch.rank < count:
                wanted_ids = committed[branch.offset, branch.rank].token_ids[: len(branch.said)]
                assert branch.said.token_ids[:, :count].tolist() == wanted_ids.tolist()


def assert_near(found, wanted):
    """The traces were recorded without 512-bit vectors. With them the draft's 4-bit product rounds otherwise: its chances are
    off by up to a few thousandths, and a first choice that leads by more than that is the same."""
    theirs = wanted.confidences[: len(found.confidences)]
    assert np.abs(found.confidences[:, 0] - theirs[:, 0]).max() < OTHER_PRODUCT
    leads = theirs[:, 0] - theirs[:, 1] > 2 * OTHER_PRODUCT
    assert leads.sum() >= len(leads) / 2
    assert found.token_ids[leads, 0].tolist() == wanted.token_ids[: len(leads)][leads, 0].tolist()


OTHER_PRODUCT = 0.02
LAST_BITS = 1e-6


@pytest.mark.parametrize("which", [0, 1])
def test_every_proposal_is_what_a_fresh_run_says_by_the_rule_in_words(tiny, which):
    folder, recorded = tiny
    trace, pair = recorded.traces[which], load_pair(folder)
    full, draft = engines(pair, folder)
    parameters = SamplingParameters(temperature=trace.temperature, seed=trace.seed)
    prompt, path = pair.full.tokenizer.encode(pair.prompts[0]["text"]).ids, trace.token_ids.tolist()
    for offset, token in enumerate(path):
        prefix = [*prompt, *path[:offset]]
        assert choice_reference.choose(row_behind(full, prefix)[0], len(prefix), parameters)[0] == token
        assert_said(draft, prefix, parameters, trace.said, offset)
        scaled = row_behind(draft, prefix)[0].astype(float) / (trace.temperature or 1)
        shares = np.exp(scaled - scaled.max())
        plain = (shares / shares.sum())[trace.said.token_ids[offset, : SECOND + 1]]
        # Without 512-bit vectors a 4-bit graph's last bits depend on how many rows share its step.
        assert trace.probabilities[offset] == pytest.approx(plain, abs=LAST_BITS)
    assert {b.rank for b in trace.branches} == set(range(len(PLACES)))
    for branch in trace.branches:
        prefix = [*prompt, *path[: branch.offset], int(trace.said.token_ids[branch.offset, branch.rank])]
        assert prefix[-1] != path[branch.offset]
        for row in range(len(branch.said)):
            assert_said(draft, prefix, parameters, branch.said, row)
            prefix.append(int(branch.said.token_ids[row, FIRST]))
        whole = TINY_PLAN.first_length if branch.rank == FIRST else TINY_PLAN.second_length
        assert len(branch.said) == whole or prefix[-1] == 0


def assert_said(engine, prefix, parameters, said, row):
    rated, _ = choice_reference.rated_tokens(row_behind(engine, prefix)[0], len(prefix), parameters)
    ranking = sorted(rated, key=lambda token_id: (-rated[token_id], token_id))
    total = math.fsum(math.exp(value - rated[ranking[0]]) for value in rated.values())
    told = ranking[: len(PLACES)]
    assert all(found in (wanted, NO_TOKEN) for found, wanted in zip(said.token_ids[row].tolist(), told, strict=True))
    assert said.token_ids[row, : SECOND + 1].tolist() == told[: SECOND + 1]
    wanted = [math.exp(rated[token_id] - rated[ranking[0]]) / total for token_id in told]
    assert said.confidences[row].tolist() == pytest.approx(wanted, abs=1e-4)


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
    assert choices.token_ids.tolist() == [7]
    assert not choices.near_ties.any()
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
        assert choices.token_ids.tolist() == path
        assert not choices.near_ties.any()


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
