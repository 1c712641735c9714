"""What each policy lets grow, through a whole drafter, and on its own over trees made by hand."""

from __future__ import annotations

import pytest

from device_agent.config import AgentConfig
from device_agent.drafting.adaptive import Adaptive
from device_agent.drafting.branches import Branches, Proposal
from device_agent.drafting.linear import Ahead, ConfidenceGate, FixedLength
from device_agent.drafting.policy import View
from device_agent.drafting.second_branch import SecondBranch
from speculation.errors import UnknownNameError
from speculation.shaping import virtual_time
from tests.device_agent.drafting.doubles import Emulated, Watched
from tests.device_agent.drafting.streams import Stream

NAMES = {"adaptive": Adaptive, "ahead": Ahead, "confidence-gate": ConfidenceGate, "fixed-length": FixedLength}
NAMES |= {"second-branch": SecondBranch}
ENGINES = pytest.mark.parametrize("engine", [Emulated, Watched], ids=["a step a job", "several steps a job"])


def make(name, length=4, width=3, floor=0.2):
    """As the agent makes it."""
    return AgentConfig(port=0, drafting=name, draft_length=length, draft_width=width, draft_floor=floor).policy()


def tree(*chances):
    """A main branch with a second choice at every position; pairs of chances."""
    branches = Branches(0, 0)
    for first, second in chances:
        branches.extend(branches.tip, Proposal((1, 2), (first, second)), (first, second))
    return branches


@pytest.mark.parametrize("name", NAMES)
def test_every_name_makes_its_policy_with_what_it_was_given(name):
    policy = make(name)
    assert type(policy) is NAMES[name]
    assert policy.width == (3 if name in ("adaptive", "second-branch") else 1)
    assert policy.gather == (4 if name == "fixed-length" else 1)
    assert policy.says_pass == (name == "fixed-length")


def test_the_default_is_one_of_them():
    assert type(AgentConfig(port=0).policy()) in NAMES.values()


def test_an_unknown_name_is_refused_with_the_list():
    with pytest.raises(UnknownNameError) as raised:
        make("clever")
    assert all(name in str(raised.value) for name in ("clever", *NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_no_policy_extends_what_may_not_grow_or_more_than_its_width(name):
    policy = make(name, floor=0.0)
    view = View(tree(*[(0.9, 0.1)] * 6), depth=20)
    chosen = policy.select(view)
    assert 1 <= len(chosen) <= policy.width
    assert not policy.select(View(view.branches, depth=0))
    assert not policy.select(View(view.branches, depth=20, last_position=0))
    assert not policy.select(View(view.branches, depth=20, end_token_ids=frozenset({1, 2})))


@ENGINES
@pytest.mark.parametrize("length", [1, 3, 5])
def test_fixed_length_drafts_so_many_then_pauses_and_says_so(engine, length):
    async def work():
        stream = Stream(engine(), make("fixed-length", length=length))
        for _ in range(3):
            await stream.draft()
            assert len(stream.main) == length
            assert stream.drafter.is_paused
            assert stream.drafter.says_pass
            stream.settle([(stream.main[0] + 1) % 3])
            assert not stream.main
        await stream.drafter.step()
        assert not stream.drafter.says_pass

    virtual_time.run(work())


@ENGINES
@pytest.mark.parametrize("floor", [0.1, 0.3, 0.9])
def test_a_confidence_gate_stops_where_its_path_is_less_likely_than_its_floor(engine, floor):
    stream = Stream(engine(), make("confidence-gate", floor=floor))
    virtual_time.run(stream.draft())
    branches = stream.drafter.branches
    *before, last = [branches.chance_of(branch) for branch in branches.main]
    assert last < floor
    assert all(chance >= floor for chance in before)
    assert stream.drafter.is_paused
    assert not stream.drafter.says_pass


@pytest.mark.parametrize("name", ["adaptive", "second-branch"])
def test_a_pass_is_said_where_the_main_branch_is_less_likely_than_the_floor_and_drafting_goes_on(name):
    async def work():
        config = AgentConfig(port=0, drafting=name, draft_width=2, draft_price=0.0, draft_pass_floor=0.2)
        stream = Stream(Watched(), config.policy())
        branches, said = stream.drafter.branches, []
        for _ in range(12):
            await stream.drafter.step()
            assert not stream.drafter.is_paused
            assert stream.drafter.says_pass == (branches.chance_of(branches.tip) < 0.2)
            said.append(stream.drafter.says_pass)
        assert said[0] is False
        assert said[-1] is True

    virtual_time.run(work())


def test_ahead_drafts_on_along_its_first_choices_however_unlikely():
    stream = Stream(Watched(), make("ahead"), depth=40)
    virtual_time.run(stream.draft())
    assert len(stream.main) == len(stream.tree()) - 1 == 40
    assert stream.drafter.branches.chance_of(stream.drafter.branches.tip) < 1e-3


def test_second_branch_takes_the_likeliest_leaves_wherever_they_hang():
    branches = tree((0.6, 0.4), (0.5, 0.3), (0.5, 0.45))
    leaves = SecondBranch(2).select(View(branches, depth=9))
    assert [branches.chance_of(leaf) for leaf in leaves] == pytest.approx([0.4, 0.18])
    leaves = SecondBranch(4).select(View(branches, depth=9))
    assert [branches.chance_of(leaf) for leaf in leaves] == pytest.approx([0.4, 0.18, 0.15, 0.135])


def test_what_somebody_extends_already_is_not_chosen_again():
    branches = tree((0.6, 0.4))
    for leaf in branches.leaves:
        branches.begin(leaf)
    for name in NAMES:
        assert not make(name, floor=0.0).select(View(branches, depth=9))


class SlowToRead(Emulated):
    """Reads a prompt at ``token_s`` seconds a token; a step of one token takes no longer than that."""

    def __init__(self, token_s):
        super().__init__(step_s=0.0)
        self._token_s = token_s

    def extend(self, chunks):
        rows = super().extend(chunks)
        self._charge_s += self._token_s * max(len(chunk.token_ids) for chunk in chunks)
        return rows


def passes(stream, times_s):
    """Verdicts that come at these times, each a decoded token that nothing contradicts."""
    stream.drafter.schedule.opened(0.06)
    for now_s in times_s:
        stream.settle(stream.main[:1] or [0])
        stream.drafter.schedule.verdict(now_s, True, False)


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_that_took_long_to_read_keeps_no_device_from_drafting(name):
    async def work():
        stream = Stream(SlowToRead(0.009), make(name, floor=0.0), prompt=[0, 1, 2, 0] * 30)
        await stream.drafter.step()
        passes(stream, [1.1, 1.14, 1.18])
        assert await stream.draft(limit=40) > 0

    virtual_time.run(work())


@pytest.mark.parametrize("name", NAMES)
def test_verdicts_that_arrive_together_keep_no_device_from_drafting(name):
    async def work():
        stream = Stream(SlowToRead(0.009), make(name, floor=0.0))
        await stream.drafter.step()
        passes(stream, [0.1, 0.14, 0.18, 0.26, 0.26])
        assert await stream.draft(limit=40) > 0

    virtual_time.run(work())
