"""Equality under faults: whatever happens to links, verifiers and drafts, the text is that of plain decoding."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.faults.pairs import TablePair
from tests.faults.runs import REAL, TABLES, Plan, Run, run
from tests.faults.scene import Ending, play

LEAST_OF_TABLES = {
    "accepted drafts": 6000,
    "accepted drafts of the verifier's own": 1500,
    "second choice sent": 8000,
    "second branch followed": 100,
    "draft caches copied": 13000,
    "told not to wait": 3000,
    "corrections": 5000,
    "resumed": 900,
    "audited": 700,
    "read on": 400,
    "ended by a stop string": 190,
    "cut, both told": 250,
    "cut, device told late": 250,
    "cut, verifier told late": 230,
    "connect refused": 400,
    "verifier died": 250,
    "session lost by a death": 380,
    "draft repeated": 7000,
    "verdict repeated": 2700,
    "draft to an old stream": 140,
    "old stream ended by a later attempt": 50,
    "Open overtaken by a later one": 2,
    "verdict to nowhere": 1800,
}
LEAST_OF_THE_PAIR = {
    "accepted drafts": 200,
    "accepted drafts of the verifier's own": 10,
    "second choice sent": 250,
    "draft caches copied": 500,
    "corrections": 300,
    "resumed": 35,
    "audited": 35,
    "read on": 10,
    "verifier died": 8,
    "draft repeated": 500,
    "verdict repeated": 180,
    "verdict to nowhere": 90,
}

pytestmark = pytest.mark.timeout(600)


def told(plan: Plan, done: Run) -> str:
    return (
        f"{plan.name}: {done.num_whole} answers equal plain decoding, {len(done.answers) - done.num_whole} more are beginnings;"
        f" {done.answers_per_s:.0f} answers a second, {done.cpu_s:.0f} s of processor time"
    )


@pytest.mark.slow
@pytest.mark.parametrize(("plan", "least"), [(TABLES, LEAST_OF_TABLES), (REAL, LEAST_OF_THE_PAIR)], ids=["tables", "pair"])
def test_every_answer_equals_plain_decoding_whatever_happens(plan, least, record_property):
    done = run(plan)
    record_property("summary", told(plan, done))
    assert done.num_whole >= plan.num_whole
    assert {name: done.tally[name] for name in least if done.tally[name] < least[name]} == {}, "too few to prove anything"
    assert done.num_whole >= 0.6 * len(done.answers)
    assert {answer.finish_reason for answer in done.answers if answer.ending is Ending.WHOLE} == {"stop", "length"}


def test_a_seed_is_a_fate():
    """The same seed again gives the same scene, message by message."""
    tallies = Counter(), Counter()
    first, again = ([play(seed, TablePair(), "", tally) for seed in range(5)] for tally in tallies)
    assert first == again
    assert tallies[0] == tallies[1]
    assert tallies[0]["opened"] > 5
