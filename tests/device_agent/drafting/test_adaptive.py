"""When a step pays and which leaves it takes, over trees made by hand; what the rule knows and what it does not."""

from __future__ import annotations

import pytest

from device_agent.config import AgentConfig
from device_agent.drafting import adaptive
from device_agent.drafting.adaptive import LEAF_SHARE, SAVED_PASSES, STRETCH, STRETCH_PERIOD, Adaptive
from device_agent.drafting.branches import Branches, Proposal
from device_agent.drafting.policy import SLOW_SMOOTHING, Pace, View

STEP_S, PASS_S = 0.01, 0.1


def chain(*chances):
    """One branch; the chances of its tokens."""
    branches = Branches(0, 0)
    for chance in chances:
        branches.extend(branches.tip, Proposal((1,), (chance,)), (chance,))
    return branches


def fork(first, second):
    """Two leaves behind the log's end."""
    branches = Branches(0, 0)
    branches.extend(branches.root, Proposal((1, 2), (first, second)), (first, second))
    return branches


def seen(branches, step_s=STEP_S, pass_s=PASS_S, acceptance=None):
    return View(branches, depth=32, acceptance=acceptance, step_s=step_s, pass_s=pass_s)


def breaking_even(chance, step_s=STEP_S, pass_s=PASS_S):
    """The price at which a step for a leaf of this chance costs just what it may save."""
    return chance * SAVED_PASSES * pass_s / step_s


@pytest.mark.parametrize("chance", [0.05, 0.3, 0.9])
@pytest.mark.parametrize(("step_s", "pass_s"), [(0.009, 0.06), (0.018, 0.03)])
def test_a_step_is_taken_while_what_it_may_save_is_worth_what_it_costs(chance, step_s, pass_s):
    price = breaking_even(chance, step_s, pass_s)
    view = seen(chain(chance), step_s, pass_s)
    assert Adaptive(4, 0.99 * price).select(view) == [view.branches.tip]
    assert Adaptive(4, 1.01 * price).select(view) == []


def test_the_chance_is_that_of_the_whole_path():
    price = breaking_even(0.5)
    assert Adaptive(1, price).select(seen(chain(0.8, 0.8)))
    assert not Adaptive(1, price).select(seen(chain(0.8, 0.8, 0.7)))


@pytest.mark.parametrize(
    ("burst", "pass_s", "num_leaves"), [(1, 0.002, 2), (5, 0.002, 1), (5, 0.009, 1), (5, 0.011, 2), (5, None, 2)]
)
def test_beside_short_passes_one_branch_goes_on_alone_where_its_steps_share_a_hand_over(burst, pass_s, num_leaves):
    branches = fork(0.4, 0.3)
    view = View(branches, depth=32, step_s=0.0004, pass_s=pass_s, burst=burst)
    chosen = Adaptive(2, 0.01).select(view)
    assert (chosen[0], len(chosen)) == (branches.tip, num_leaves)


def test_leaves_pay_together_and_each_further_one_costs_its_share():
    branches = fork(0.4, 0.3)
    price = breaking_even((0.4 + 0.3) / (1 + LEAF_SHARE))
    assert len(Adaptive(2, 0.99 * price).select(seen(branches))) == 2
    assert Adaptive(2, 1.01 * price).select(seen(branches)) == []
    assert Adaptive(1, 0.99 * price).select(seen(branches)) == []


def test_a_leaf_that_would_slow_the_step_more_than_it_is_worth_is_left_out():
    likely, unlikely = fork(0.8, 1.1 * LEAF_SHARE * 0.8), fork(0.8, 0.9 * LEAF_SHARE * 0.8)
    assert len(Adaptive(4, 0.0).select(seen(likely))) == 2
    assert Adaptive(4, 0.0).select(seen(unlikely)) == [unlikely.tip]


def test_a_price_of_nothing_always_drafts():
    assert Adaptive(2, 0.0).select(seen(chain(*[0.1] * 5)))


@pytest.mark.parametrize("price", [0.05, 1e6])
def test_at_the_logs_end_it_drafts_at_any_price_where_it_may_get_ahead(price):
    """Else nothing would be measured again: no time and no chance that could bring it back."""
    branches = Branches(0, 0)
    assert Adaptive(4, price).select(seen(branches, step_s=9.0, pass_s=1e-3)) == [branches.root]


def late(acceptance, lag, step_s=STEP_S, pass_s=PASS_S, position=STRETCH_PERIOD - 1):
    """At the log's end beside a verifier that is so many passes away."""
    branches = Branches(0, position)
    return View(branches, depth=32, usual_acceptance=acceptance, step_s=step_s, pass_s=pass_s, lag=lag)


@pytest.mark.parametrize(
    ("acceptance", "lag", "step_s", "drafts"),
    [
        (0.95, 1, STEP_S, True),
        (0.5, 1, STEP_S, True),
        (0.95, 12, STEP_S, True),
        (0.5, 12, STEP_S, False),  # twelve right drafts in a row
        (0.95, 12, 0.9 * PASS_S, False),  # a step gains a tenth of a pass
        (1.0, 1, PASS_S, False),  # never draws level
        (0.5, 0, STEP_S, True),  # a verifier that waits
        (0.0, 0, 2 * PASS_S, True),
        (None, 12, STEP_S, True),
        (0.5, None, STEP_S, True),
        (0.5, 12, None, True),
    ],
)
def test_a_device_that_cannot_get_ahead_waits_for_verdicts(acceptance, lag, step_s, drafts):
    assert bool(Adaptive(2, 0.3).select(late(acceptance, lag, step_s))) == drafts


def test_what_running_ahead_may_cost_is_the_users_to_say():
    view = late(0.7, 9)
    assert Adaptive(2, 0.0).select(view)
    assert Adaptive(2, 0.02).select(view)
    assert not Adaptive(2, 1.0).select(view)
    assert Adaptive(2, 0.0).select(late(0.1, 30, 2 * PASS_S))


def test_where_it_waits_a_stretch_of_the_text_is_drafted_all_the_same():
    drafted = [bool(Adaptive(2, 0.3).select(late(0.5, 12, position=position))) for position in range(3 * STRETCH_PERIOD)]
    assert drafted == 3 * ([True] * STRETCH + [False] * (STRETCH_PERIOD - STRETCH))


def test_what_is_usual_is_slow_to_change_and_trusts_a_draft_that_few_verdicts_met():
    pace = Pace()
    assert pace.acceptance is pace.usual_acceptance is None
    pace.compared(0, is_contradicted=True)
    assert pace.acceptance == 0
    assert pace.usual_acceptance > 0.7
    for _ in range(2000):
        pace.compared(1, is_contradicted=True)
    assert pace.usual_acceptance == pytest.approx(0.5, abs=0.05)
    before = pace.usual_acceptance
    pace.compared(0, is_contradicted=True)
    assert before - pace.usual_acceptance == pytest.approx(0.5 * SLOW_SMOOTHING, abs=0.005)


@pytest.mark.parametrize(("step_s", "pass_s"), [(None, PASS_S), (STEP_S, None), (None, None)])
def test_before_anything_is_measured_it_drafts(step_s, pass_s):
    assert Adaptive(4, 1e6).select(seen(chain(0.01), step_s, pass_s))


def test_verdicts_that_come_at_once_are_no_pass_of_no_time():
    assert Adaptive(4, 0.05).select(seen(Branches(0, 0), pass_s=0.0))


def test_a_user_who_sets_nothing_gets_every_draft_that_is_not_nearly_hopeless():
    """On a phone that takes 9 ms a step, beside passes of 60 ms: rate first."""
    policy = AgentConfig(port=0).policy()
    assert isinstance(policy, Adaptive)
    assert policy.select(seen(chain(0.02), 0.009, 0.06))
    assert not policy.select(seen(chain(0.001), 0.009, 0.06))


def test_the_same_view_gives_the_same_answer_and_is_left_as_it_was():
    view = seen(fork(0.6, 0.3))
    leaves = view.branches.leaves
    policy = Adaptive(2, 0.3)
    assert policy.select(view) == policy.select(view) != []
    assert view.branches.leaves == leaves


def test_it_asks_for_the_chance_of_no_more_leaves_than_it_may_take(monkeypatch):
    branches = Branches(0, 0)
    for _ in range(20):
        branches.extend(branches.tip, Proposal((1, 2), (0.6, 0.4)), (0.6, 0.4))
    asked = []
    chance_of = Branches.chance_of
    monkeypatch.setattr(Branches, "chance_of", lambda self, leaf: asked.append(leaf) or chance_of(self, leaf))
    Adaptive(3, 0.1).select(seen(branches))
    assert len(branches.leaves) == 21
    assert len(asked) <= 3


@pytest.mark.parametrize(
    ("acceptance", "chance", "steps"),
    [(None, 1.0, 1), (0.8, 1.0, 11), (0.8, 0.6, 9), (0.3, 1.0, 2), (0.8, 0.4, 7), (0.8, 0.1, 1), (0.0, 1.0, 2)],
)
def test_short_steps_are_taken_in_a_row_until_the_path_is_unlikely(acceptance, chance, steps):
    view = seen(chain(chance), acceptance=acceptance)
    assert Adaptive(2, 0.1).in_a_row(view, [view.branches.tip]) == steps


def test_a_draft_that_never_fails_is_asked_again_only_where_its_depth_ends():
    view = seen(chain(0.9), acceptance=1.0)
    assert Adaptive(2, 0.1).in_a_row(view, [view.branches.tip]) == view.depth


def test_what_a_right_draft_saves_is_less_than_a_pass():
    """More would be more than the whole of what a token costs without drafts."""
    assert 0 < adaptive.SAVED_PASSES < 1
