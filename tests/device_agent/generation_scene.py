"""How generations are run in tests, and what their last event tells."""

from __future__ import annotations

from speculation.shaping import virtual_time

SAMPLED = {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "seed": 5}


def run(work):
    """On a virtual clock, where a wait that nothing would end is an error."""
    return virtual_time.run(work)


def done_of(replay):
    assert replay.last["event"] == "done", replay.last
    return replay.last


def error_of(replay):
    assert replay.last["event"] == "error", replay.last
    return replay.last["error"]


def states_of(events):
    return [(event.mode, event.reason) for event in events if event.name == "state"]
