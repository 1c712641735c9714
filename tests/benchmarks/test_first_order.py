"""The first-order model: by hand, against the reference page's figures, and on the process that production meets."""

import random
from statistics import mean

import pytest

from benchmarks import first_order
from benchmarks.first_order import Times
from benchmarks.first_order_ahead import FIRST, SECOND, Truth, ahead, thrifty
from outrider.planning import synthetic
from outrider.planning.synthetic import NEITHER, Acceptance, DraftEngine, Paths
from speculation.engines.base import Chunk

REFERENCE = Times(9.0, 60.0, 60.0)
NUM_SEEDS, NUM_TOKENS = 8, 2000


class Scripted:
    """A path is its length; ``ranks`` say what the full model takes, and the same chances hold on every path of a length."""

    def __init__(self, ranks, chances):
        self.ranks, self.told = ranks, chances

    def start(self):
        return 0

    def chances(self, path):
        return self.told[min(path, len(self.told) - 1)]

    def taken(self, path):
        return self.ranks[min(path, len(self.ranks) - 1)]

    def follow(self, path, rank):
        return path + 1


class Drawn:
    """The reference page's process by the random module: on the full model's path (a path is its length there) drawn once, in
    the order of positions; off it (None) fresh draws."""

    def __init__(self, seed, alpha=0.8, concentration=1.2, cover2=0.55):
        self.random = random.Random(seed)
        self.beta, self.cover2 = (alpha * concentration, (1 - alpha) * concentration), cover2
        self.truth = [self.with_rank() for _ in range(NUM_TOKENS + 300)]

    def fresh(self):
        first = self.random.betavariate(*self.beta)
        return first, (1 - first) * self.cover2

    def with_rank(self):
        first, second = self.fresh()
        drawn = self.random.random()
        return first, second, FIRST if drawn < first else SECOND if drawn < first + second else NEITHER

    def start(self):
        return 0

    def chances(self, path):
        return self.fresh() if path is None else self.truth[path][:2]

    def taken(self, path):
        return self.truth[path][2]

    def follow(self, path, rank):
        return path + 1 if path is not None and self.truth[path][2] == rank else None


def always(rank):
    return Scripted([rank], [(0.6, 0.4)])


def test_one_branch_by_hand():
    """Draft 10, pass 30, round trip 40: drafts are there at 30, 40, 50 and so on, passes end at 50, 80, 110.

    All right: the pass from 20 has no draft and makes one token final; that from 50 runs drafts 1 and 2 and makes three; that
    from 80 runs 4 and 5 and makes three more.
    """
    times = Times(10.0, 30.0, 40.0)
    figures = ahead(always(FIRST), times, 7)
    assert figures.passes_per_token == pytest.approx(3 / 7)
    assert figures.tokens_per_s == pytest.approx(7000 / 110)
    none = ahead(always(NEITHER), times, 50)
    assert none.passes_per_token == 1
    assert none.tokens_per_s == pytest.approx(50_000 / (20 + 50 * 30))


def test_stop_and_wait_by_hand():
    figures = first_order.sync([True, False] * 200, Times(10.0, 30.0, 40.0), 100, 2)
    # 50 rounds of 90 ms, less the way back of the last verdict.
    assert figures.tokens_per_s == pytest.approx(100_000 / (50 * 90 - 20))
    assert figures.passes_per_token == pytest.approx(0.5)


def test_a_correction_that_another_branch_holds_costs_no_round_trip():
    """Only the first token is a second choice: two branches are as fast as one that is always right, and one is not."""
    times = Times(10.0, 30.0, 40.0)
    process = Scripted([SECOND, FIRST], [(0.5, 0.5), (0.9999, 0.0001)])
    assert ahead(process, times, 7, width=2) == ahead(always(FIRST), times, 7)
    assert ahead(process, times, 7).tokens_per_s < 0.8 * ahead(process, times, 7, width=2).tokens_per_s


def test_second_choices_lengthen_no_pass():
    assert ahead(always(SECOND), Times(10.0, 30.0, 40.0), 50, width=4).passes_per_token == 1


def test_a_step_whose_only_branch_died_is_given_up():
    """Draft 50, pass 95, round trip 20. The verdict at 115 cuts the step from 100 short; the next drafts are there at 175, 225,
    275. Passes end at 105, 200, 295 with a token each; that from 295 has the draft of position 3 and makes two."""
    figures = ahead(Scripted([NEITHER, FIRST], [(0.6, 0.4)]), Times(50.0, 95.0, 20.0), 5)
    assert figures.tokens_per_s == pytest.approx(5000 / 390)
    assert figures.passes_per_token == pytest.approx(4 / 5)


def test_a_step_whose_branches_died_is_given_up_though_another_branch_lives():
    """As above, two branches, and the first token is the second choice. The step from 100 works on the first choice alone; cut
    short at 115, the draft of position 2 is there at 175, in time for the pass from 200, which makes two tokens final."""
    figures = ahead(Scripted([SECOND, FIRST], [(0.9, 0.1), (0.6, 0.4)]), Times(50.0, 95.0, 20.0), 4, width=2)
    assert figures.tokens_per_s == pytest.approx(4000 / 295)
    assert figures.passes_per_token == pytest.approx(3 / 4)


def test_a_device_without_room_begins_at_once_when_all_that_it_drafted_died():
    """Draft 60, pass 175, round trip 30, depth 2. Two drafts are made by 120; the verdict at 205 kills them, so the next two
    are there at 280 and 340: the pass that ends at 365 makes a token final, the next runs the second draft and makes two."""
    figures = ahead(Scripted([NEITHER, FIRST], [(0.6, 0.4)]), Times(60.0, 175.0, 30.0), 4, depth=2)
    assert figures.tokens_per_s == pytest.approx(4000 / 540)
    assert figures.passes_per_token == pytest.approx(3 / 4)


def test_drafts_run_no_deeper_ahead_than_the_depth():
    """Draft 1, pass 30, round trip 300, depth 2: only the pass from 180 still finds a draft ahead of it."""
    assert ahead(always(FIRST), Times(1.0, 30.0, 300.0), 20, depth=2).passes_per_token == pytest.approx(19 / 20)


def test_a_thrifty_verifier_waits_for_a_draft_of_the_next_position():
    """Draft 10, pass 30, round trip 40. All right: passes from 30, 60, 90 find 1, 2 and 2 drafts, and make one token more each.

    All wrong: a pass begins when the draft of its position is there, 80 after the one before.
    """
    times = Times(10.0, 30.0, 40.0)
    right, wrong = thrifty(always(FIRST), times, 8), thrifty(always(NEITHER), times, 2)
    assert right.tokens_per_s == pytest.approx(8000 / 120)
    assert right.passes_per_token == pytest.approx(3 / 8)
    assert wrong.tokens_per_s == pytest.approx(2000 / 140)
    assert wrong.passes_per_token == 1


@pytest.mark.parametrize(("width", "tokens_per_s"), [(1, 30.4), (2, 37.9), (4, 40.2)])
def test_drafting_ahead_gives_the_reference_pages_figures(width, tokens_per_s):
    rates = [ahead(Drawn(seed), REFERENCE, NUM_TOKENS, width).tokens_per_s for seed in range(NUM_SEEDS)]
    # One branch sees the page's own draws; more branches see others off the path.
    assert mean(rates) == pytest.approx(tokens_per_s, rel=0.002 if width == 1 else 0.02)


def test_the_baselines_give_the_reference_pages_figures():
    draws = [Truth(Drawn(seed)).hits(NUM_TOKENS + first_order.LONGEST_SYNC) for seed in range(NUM_SEEDS)]
    sync, length = first_order.best_sync(draws, REFERENCE, NUM_TOKENS)
    assert sync.tokens_per_s == pytest.approx(22.6, rel=0.003)
    assert length == 7
    assert first_order.cloud(REFERENCE).tokens_per_s == pytest.approx(16.7, rel=0.003)


def test_the_best_length_of_stop_and_wait_is_not_the_longest_that_is_tried():
    """Else it would be no best: with nearly all drafts right, over the longest round trip of the grid."""
    draws = [Truth(Drawn(seed, alpha=0.95)).hits(NUM_TOKENS + first_order.LONGEST_SYNC) for seed in range(NUM_SEEDS)]
    _, length = first_order.best_sync(draws, Times(9.0, 60.0, 300.0), NUM_TOKENS)
    assert 16 < length < first_order.LONGEST_SYNC


def test_the_model_meets_the_draws_that_the_engines_meet():
    knob, prompt = Acceptance(0.7), [1, 5]
    paths = Paths(knob, 3, prompt)
    truth = Truth(paths)
    assert [truth.rank(position) for position in range(300)] == synthetic.true_ranks(knob, 3, prompt, 300)
    assert {truth.rank(position) for position in range(300)} == {FIRST, SECOND, NEITHER}


def test_the_model_meets_the_draws_that_a_draft_meets_off_the_path():
    knob, paths = Acceptance(0.7), Paths(Acceptance(0.7), 3, [1])
    engine = DraftEngine(knob, 3, 50, 0.0)
    cache, token_ids, path = engine.open(), [1], paths.start()
    for rank in (SECOND, FIRST, SECOND, SECOND, FIRST):
        engine.extend([Chunk(cache, token_ids[-1:], 1)])
        said = synthetic.guess(engine.address(cache), knob)
        assert paths.chances(path) == (said.first, said.second)
        token_ids.append(said.choices[rank])
        path = paths.follow(path, rank)
