"""The tree of drafts against a plain set of paths, after any history."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from device_agent.drafting.branches import LEAD, LEAST_CHANCE, LEAST_OF_THIRD, Branch, Branches, Proposal
from tests.device_agent.drafting.tree_model import Path, TreeModel

VOCABULARY = 4
tokens = st.integers(0, VOCABULARY - 1)
chances = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


class TreeOfDrafts(RuleBasedStateMachine):
    """Every branch is known by its path; the model knows paths alone."""

    @initialize(prompt=st.lists(tokens, min_size=1, max_size=3))
    def begin(self, prompt):
        self.model = TreeModel(tuple(prompt))
        self.branches = Branches(prompt[-1], len(prompt) - 1)
        self.known: dict[Path, Branch] = {self.model.final: self.branches.root}
        self.said: dict[Path, Proposal] = {}

    @rule(data=st.data(), choices=st.lists(tokens, min_size=1, max_size=4, unique=True))
    @precondition(lambda self: self.model.leaves() | self.grown())
    def extend(self, data, choices):
        path = data.draw(st.sampled_from(sorted(self.model.leaves() | self.grown())))
        likely = data.draw(st.lists(chances, min_size=len(choices), max_size=len(choices)))
        proposal = Proposal(tuple(choices), tuple(0.5**place for place in range(1, len(choices) + 1)))
        made = self.branches.extend(self.known[path], proposal, likely)
        said = list(zip(choices, range(len(choices)), likely, strict=True))
        told = [*said[:2], *(its for its in said[2:] if its[2] >= LEAST_OF_THIRD)]
        told.sort(key=lambda its: -its[2])
        if told[0][2] <= likely[0] + LEAD:
            told.sort(key=lambda its: its[1] != 0)
        self.model.extend(path, [t for t, _, _ in told], [max(chance, LEAST_CHANCE) for _, _, chance in told])
        self.said[path] = proposal
        self.known |= {(*path, branch.token_id): branch for branch in made}
        assert [(branch.token_id, branch.choice, branch.chance) for branch in made] == told
        assert [branch.rank for branch in made] == list(range(len(told)))

    def grown(self) -> set[Path]:
        return {path for path in self.model.growing if self.model.is_alive(path)}

    @rule(data=st.data())
    @precondition(lambda self: self.model.leaves())
    def somebody_begins(self, data):
        path = data.draw(st.sampled_from(sorted(self.model.leaves())))
        self.branches.begin(self.known[path])
        self.model.growing.add(path)

    @rule(data=st.data(), more=st.lists(tokens, max_size=2))
    def settle(self, data, more):
        path = data.draw(st.sampled_from(sorted(self.model.alive())))
        length = data.draw(st.integers(len(self.model.final), len(path)))
        token_ids = [*path[len(self.model.final) : length], *more]
        on_the_way = [(*self.model.final, *token_ids[:count]) for count in range(len(token_ids))]
        told = list(itertools.takewhile(lambda way: way in self.said, on_the_way))
        agreed, contradicted = self.model.settle(token_ids)
        settled = self.branches.settle(token_ids)
        assert list(settled.agreed) == [self.known[path] for path in agreed]
        assert settled.contradicted is (None if contradicted is None else self.known[contradicted])
        assert list(settled.compared) == [(self.said[way], self.model.final[len(way)]) for way in told]
        self.known.setdefault(self.model.final, self.branches.root)

    @rule(limit=st.integers(0, 4))
    def prune(self, limit):
        before, tip = self.model.leaves(), self.model.tip()
        self.branches.prune(limit)
        kept = self.leaves()
        lost = before - kept
        assert kept <= before
        assert tip not in lost
        assert all(self.model.ranks[path] > 0 for path in lost)
        spare = {path for path in kept if path != tip and self.model.ranks.get(path, 0) > 0}
        assert len(spare) <= limit
        assert not lost or len(before) > limit
        least_kept = min((self.known[path].log_chance for path in spare), default=math.inf)
        assert all(self.known[path].log_chance <= least_kept for path in lost)
        self.model.forgotten |= lost

    def leaves(self) -> set[Path]:
        by_branch = {branch: path for path, branch in self.known.items()}
        return {by_branch[leaf] for leaf in self.branches.leaves}

    @invariant()
    def is_as_the_model_says(self):
        model, branches = self.model, self.branches
        assert branches.root is self.known[model.final]
        assert (branches.root.token_id, branches.root.position) == (model.final[-1], len(model.final) - 1)
        assert branches.main == [self.known[path] for path in model.main()]
        assert branches.tip is self.known[model.tip()]
        assert self.leaves() == model.leaves()
        assert {path for path, branch in self.known.items() if branch.is_alive} == set(model.alive())

    @invariant()
    def every_live_branch_knows_its_way(self):
        start = len(self.model.final)
        for path in self.model.alive():
            branch = self.known[path]
            assert branch.position == len(path) - 1
            assert self.branches.path(branch) == [self.known[path[:end]] for end in range(start + 1, len(path) + 1)]
            assert self.branches.chance_of(branch) == pytest.approx(self.model.chance_of(path), rel=1e-6)


TestTreeOfDrafts = TreeOfDrafts.TestCase
TestTreeOfDrafts.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_a_forgotten_second_choice_may_grow_once_it_is_the_logs_end():
    branches = Branches(0, 0)
    _, second = branches.extend(branches.root, Proposal((1, 2), (0.9, 0.1)), (0.9, 0.1))
    branches.prune(0)
    assert second not in branches.leaves
    branches.settle([2])
    assert branches.leaves == [second]
    assert branches.root is second


def test_a_runner_up_that_is_clearly_likelier_goes_first_and_is_what_a_reader_sees():
    branches = Branches(0, 0)
    first, second = branches.extend(branches.root, Proposal((1, 2), (0.4, 0.3)), (0.3, 0.3 + 2 * LEAD))
    assert [(branch.token_id, branch.rank, branch.choice) for branch in (first, second)] == [(2, 0, 1), (1, 1, 0)]
    assert branches.main == [first]
    assert list(branches.settle([2]).agreed) == [first]


def test_a_runner_up_that_is_hardly_likelier_stays_behind():
    branches = Branches(0, 0)
    first, _ = branches.extend(branches.root, Proposal((1, 2), (0.4, 0.3)), (0.3, 0.3 + LEAD / 2))
    assert first.token_id == 1


def test_a_third_choice_may_go_first_and_an_unlikely_fourth_is_no_branch():
    branches = Branches(0, 0)
    said = Proposal((1, 2, 3, 4), (0.4, 0.3, 0.2, 0.1))
    made = branches.extend(branches.root, said, (0.1, 0.3, 0.5, LEAST_OF_THIRD / 2))
    assert [(branch.token_id, branch.rank, branch.choice) for branch in made] == [(3, 0, 2), (2, 1, 1), (1, 2, 0)]
    assert branches.main == made[:1]


def test_a_token_that_was_too_unlikely_to_be_a_branch_is_drafted_from_once_the_log_took_it():
    branches = Branches(0, 0)
    said = Proposal((1, 2, 3), (0.9, 0.09, 0.01))
    made = branches.extend(branches.root, said, (0.9, 0.09, LEAST_OF_THIRD / 2))
    settled = branches.settle([3])
    assert (settled.contradicted, settled.compared) == (made[0], [(said, 3)])
    assert (branches.root.token_id, branches.leaves, branches.main) == (3, [branches.root], [])


def test_a_first_choice_off_the_main_branch_is_never_forgotten():
    branches = Branches(0, 0)
    _, second = branches.extend(branches.root, Proposal((1, 2), (0.9, 0.1)), (0.9, 0.1))
    (behind,) = branches.extend(second, Proposal((3,), (1e-3,)), (1e-3,))
    branches.prune(0)
    assert set(branches.leaves) == {branches.tip, behind}


def test_where_the_log_takes_a_second_choice_what_hangs_behind_it_becomes_the_main_branch():
    branches = Branches(0, 0)
    first, second = branches.extend(branches.root, Proposal((1, 2), (0.9, 0.1)), (0.9, 0.1))
    (behind,) = branches.extend(second, Proposal((3,), (0.5,)), (0.5,))
    settled = branches.settle([2])
    assert (list(settled.agreed), settled.contradicted) == ([], first)
    assert settled.compared == [(Proposal((1, 2), (0.9, 0.1)), 2)]
    assert (branches.root, branches.main, branches.leaves) == (second, [behind], [behind])
    assert not first.is_alive


def test_the_logs_end_is_never_forgotten_even_if_it_was_a_second_choice():
    branches = Branches(0, 0)
    _, second = branches.extend(branches.root, Proposal((1, 2), (0.9, 0.1)), (0.9, 0.1))
    branches.settle([2])
    branches.prune(0)
    assert branches.leaves == [second]
