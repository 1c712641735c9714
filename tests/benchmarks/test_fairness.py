"""The fairness runs count what is displaced, an abuser's drafts reach the passes, and the table says which aim is missed."""

from dataclasses import replace

import pytest

from benchmarks import fairness
from benchmarks.fairness_scene import ODD_ONE, Felt, Guest, Party, chain, displaced, run
from outrider.planning.synthetic import IDENTITY
from speculation.errors import MalformedMessageError
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Open
from speculation.protocol.verifier import VerifierSession

PARTY = Party(Guest.NOBODY, num_tenants=2, num_sessions=2, max_rows=24, num_answers=1, num_tokens=24, chain=32)


def test_rows_that_others_went_without_count_only_where_the_odd_one_had_more_than_they():
    wanted = {"a": 5, "b": 9, ODD_ONE: 40}
    assert displaced(wanted, {"a": 5, "b": 9, ODD_ONE: 20}) == 0
    assert displaced(wanted, {"a": 5, "b": 6, ODD_ONE: 20}) == 3
    assert displaced(wanted, {"a": 5, "b": 6, ODD_ONE: 7}) == 0, "one row is left over by a division"
    assert displaced(wanted, {"a": 5, "b": 6}) == 0


def test_an_abusers_chain_hangs_off_the_end_of_the_log():
    session = VerifierSession(Open("s", 1, IDENTITY, (3, 4), 2, SamplingParameters(), 100), 256)
    session.receive(chain(1, 2, 32))
    assert len(session.plan(100).nodes) == 32
    with pytest.raises(MalformedMessageError):
        session.receive(chain(40, 2, 32))


def test_an_abuser_fills_passes_and_displaces_nobody():
    """Three tenants share 24 rows: nobody is left without eight. An abuser's two sessions want 33 each in every pass."""
    alone, abused = run(PARTY), run(replace(PARTY, guest=Guest.ABUSER))
    assert ODD_ONE not in alone.rows
    assert fairness.share_of(abused.rows) > 0.5
    assert (alone.displaced, abused.displaced) == (0, 0)
    assert len(alone.first_ms) == 2
    assert len(alone.between_ms) == 2 * 23


def test_misses_name_the_aim():
    before = Felt([100.0], [20.0], {"a": 1}, 0, 23.0)
    felt = Felt([121.0], [23.0], {"a": 1, ODD_ONE: 3}, 2, 23.0)
    party = replace(PARTY, guest=Guest.ABUSER)
    found = fairness.rows_of([PARTY, party], [before, felt])
    assert [row.misses for row in found] == [[], ["first token", "share"]]
    table = fairness.grid(found)
    assert table.rows[1][:8] == ["all", "an abuser", "121", "121", "+21%", "23.0", "+15%", "23.0"]
    assert table.rows[1][8:] == ["75%", "2", "23.0", "first token, share"]
