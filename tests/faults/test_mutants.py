"""The fault scenes are able to fail: each of the planted bugs turns one of the first of them red."""

from __future__ import annotations

import pytest

from tests.faults.mutants import MAX_SEEDS, MUTANTS, killed

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_found(mutant):
    assert killed(mutant) is not None, f"{mutant.what}: {MAX_SEEDS} scenes did not see it"


def test_without_a_bug_the_same_scenes_are_green():
    nothing = type(MUTANTS[0])("nothing", "nothing", ())
    assert killed(nothing) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_bug_is_taken_out_again(mutant):
    before = [getattr(owner, name) for owner, name, _ in mutant.replaced]
    with mutant.planted():
        assert all(getattr(owner, name) is not old for (owner, name, _), old in zip(mutant.replaced, before, strict=True))
    assert [getattr(owner, name) for owner, name, _ in mutant.replaced] == before
