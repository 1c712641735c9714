"""A step's caches on the engine: brought where they go on in order, given back, and left alone once their stream is gone."""

from __future__ import annotations

from device_agent.drafting.batch import Batch, Lane, Step
from device_agent.drafting.branches import Proposal
from device_agent.drafting.caches import Feed, Slot
from speculation.errors import CapacityError
from tests.device_agent.drafting.doubles import GREEDY


class Books:
    """An engine that writes down what is done to its caches, and computes nothing."""

    def __init__(self, room=8):
        self.room = room
        self.lengths = {}
        self.done = []

    def open(self):
        if not self.room:
            raise CapacityError("no room", None)
        self.room -= 1
        return self._new(0, "open")

    def fork(self, cache, length):
        return self._new(length, f"fork {cache}")

    def close(self, cache):
        del self.lengths[cache]
        self.done.append(f"close {cache}")

    def length(self, cache):
        return self.lengths[cache]

    def extend(self, chunks):
        raise RuntimeError("the runtime is gone")

    def _new(self, length, how):
        cache = len(self.done) + 1
        self.lengths[cache] = length
        self.done.append(how)
        return cache


def test_feeds_are_placed_in_their_turns_since_copies_build_on_each_other():
    engine, first, second = Books(), Slot(), Slot()
    step = Step([Feed(second, 0, [2], source=first, turn=1), Feed(first, 0, [1], turn=0)], GREEDY, 1)
    assert len(step.place(engine)) == 2
    assert step.error is None
    assert engine.done == ["open", "fork 1"]


def test_a_cache_that_a_copy_takes_the_place_of_is_closed():
    engine, slot, source = Books(), Slot(), Slot()
    slot.cache, source.cache = engine.open(), engine.open()
    Step([Feed(slot, 0, [1], source=source)], GREEDY, 1).place(engine)
    assert engine.done == ["open", "open", "close 1", "fork 2"]


def test_nothing_is_opened_for_a_stream_that_is_gone():
    engine, slot = Books(), Slot()
    slot.is_given_back = True
    assert Step([Feed(slot, 0, [1])], GREEDY, 1).place(engine) == []
    assert engine.done == []


def test_a_step_that_failed_alone_is_not_told_what_the_others_failed_of():
    steps = [Step([Feed(Slot(), 0, [1])], GREEDY, 1) for _ in range(2)]
    Batch([(step, None) for step in steps], clock=lambda: 0.0).run(Books(room=1))
    assert [type(step.error) for step in steps] == [RuntimeError, CapacityError]
    assert all(step.is_done for step in steps)


def test_in_a_row_each_token_is_chosen_for_its_own_position():
    lane = Lane(Step([], GREEDY, 1), 1, 4, [1, 2])
    assert lane.position == 6
    lane.proposals.append(Proposal((5,), (1.0,)))
    assert lane.position == 7
