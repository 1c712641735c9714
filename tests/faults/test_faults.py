"""Equality under faults: whatever happens to links, verifiers and drafts, the text is that of plain decoding."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.pairs import TablePair
from tests.faults.runs import REAL, TABLES, Plan, Run, run
from tests.faults.scene import play

LEAST_OF_TABLES = {
    "accepted drafts": 2500,
    "corrections": 4000,
    "resumed": 1000,
    "audited": 700,
    "cut, both told": 200,
    "cut, device told late": 200,
    "cut, verifier told late": 200,
    "connect refused": 400,
    "verifier died": 200,
    "session lost by a death": 400,
    "draft repeated": 5000,
    "verdict repeated": 3000,
    "draft to an old stream": 100,
    "old stream ended by a later attempt": 70,
    "Open overtaken by a later one": 2,
    "verdict to nowhere": 1000,
}
LEAST_OF_THE_PAIR = {
    "accepted drafts": 25,
    "corrections": 100,
    "resumed": 20,
    "audited": 20,
    "verifier died": 5,
    "draft repeated": 100,
    "verdict repeated": 100,
    "verdict to nowhere": 30,
}

pytestmark = pytest.mark.timeout(600)


def told(plan: Plan, done: Run) -> str:
    return (
        f"{plan.name}: {done.num_whole} answers equal plain decoding, {len(done.answers) - done.num_whole} more ended alone;"
        f" {done.answers_per_s:.0f} answers a second, {done.cpu_s:.0f} s of processor time"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "least"), [(TABLES, LEAST_OF_TABLES), (REAL, LEAST_OF_THE_PAIR)], ids=["tables", "pair"])
def test_every_answer_equals_plain_decoding_whatever_happens(plan, least, summary):
    done = run(plan)
    summary(told(plan, done))
    assert done.num_whole >= plan.num_whole
    assert {name: done.tally[name] for name in least if done.tally[name] < least[name]} == {}, "too few to prove anything"
    assert done.num_whole >= 0.7 * len(done.answers)
    assert {answer.finish_reason for answer in done.answers if answer.is_whole} == {"stop", "length"}


def test_a_seed_is_a_fate():
    """The same seed again gives the same scene, message by message."""
    tallies = Counter(), Counter()
    first, again = ([play(seed, TablePair(), "", tally) for seed in range(5)] for tally in tallies)
    assert first == again
    assert tallies[0] == tallies[1]
    assert tallies[0]["opened"] > 5
