"""Traces are what the pair says, and their file gives back what was saved."""

import dataclasses
import json
import math
import zipfile

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
    Proposals,
    load,
    save,
)
from benchmarks.trace_recorder import Plan, engines, record
from benchmarks.trace_replay import ROOT, Replay, addresses
from speculation.engines.package import bundled_pair_path, load_pair
from speculation.parameters import SamplingParameters
from tests.benchmarks.trace_scene import PAGE, TINY_PLAN, row_behind
from tests.support import choice_reference
from tests.support.processor import gives_rows_alike


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
        if gives_rows_alike():
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
