from __future__ import annotations

import pytest

from device_agent.events import CommitOffset, CorrectEvent, RevokeEvent, SpeculativeEvent
from device_agent.figures import Meter
from speculation.links.base import LinkStatistics
from speculation.protocol.messages import Usage, Verdict, VerdictKind


def values(report):
    return {name: figure["value"] for name, figure in report.items()}


def test_figures_of_a_small_answer():
    meter = Meter(10.0, is_emulated=True)
    meter.links.append(LinkStatistics(3, 100, 2, 40))
    meter.draft_steps = 4
    meter.showed([SpeculativeEvent(1, 5, (1,), "a", 0.9), SpeculativeEvent(2, 6, (2,), "b", 0.8)], 10.02)
    meter.verdict(Verdict(5, 1, 1, 3, VerdictKind.REVOKE_AND_CORRECT), 2, 10.1)
    meter.compared(1, True)
    meter.showed([RevokeEvent(3, 6, 1, "contradicted"), CorrectEvent(4, 6, (3,), "c", CommitOffset(2, 2))], 10.1)
    meter.verdict(Verdict(7, 0, 0, 4, VerdictKind.DECODED), 1, 10.5)
    meter.showed([CorrectEvent(5, 7, (4,), "d", CommitOffset(3, 3))], 10.5)
    assert values(meter.report(3, None)) == pytest.approx(
        {
            "first_visible_ms": 20,
            "first_final_ms": 100,
            "tokens_per_s": 6,
            "passes_per_token": round(2 / 3, 4),
            "acceptance": 0.5,
            "revoked_share": 0.5,
            "revoke_depth": 1,
            "normalised_erasure": round(1 / 3, 4),
            "revoked_after_read": 1,
            "messages_up": 3,
            "bytes_up": 100,
            "bytes_down": 40,
            "draft_steps": 4,
        }
    )


def test_joules_are_told_only_where_there_are_any():
    meter = Meter(0.0, is_emulated=True)
    assert "draft_joules" not in meter.report(4, None)
    meter.joules, meter.draft_steps = 2.0, 8
    report = values(meter.report(4, None))
    assert [report[name] for name in ("draft_joules", "joules_per_drafted_token", "joules_per_token")] == [2.0, 0.25, 0.5]
    assert values(meter.report(0, None))["joules_per_token"] is None


@pytest.mark.parametrize(("is_emulated", "basis"), [(True, "emulated"), (False, "measured")])
def test_every_figure_says_whether_it_is_emulated(is_emulated, basis):
    assert {figure["basis"] for figure in Meter(0.0, is_emulated).report(0, None).values()} == {basis}


def test_what_has_no_meaning_is_null():
    report = values(Meter(0.0, False).report(0, None))
    assert {name for name, value in report.items() if value is not None} == {
        "messages_up",
        "bytes_up",
        "bytes_down",
        "draft_steps",
    }


def test_the_verifiers_own_count_goes_first():
    meter = Meter(0.0, False)
    meter.verdict(Verdict(5, 0, 0, 3, VerdictKind.DECODED), 1, 1.0)
    told = Usage(passes=3, accepted=1, late=2, corrections=1)
    assert values(meter.report(1, told))["passes_per_token"] == 3


def test_acceptance_counts_drafts_up_to_the_first_that_is_wrong():
    meter = Meter(0.0, False)
    meter.compared(2, True)
    meter.compared(1, False)
    meter.compared(0, False)
    assert values(meter.report(3, None))["acceptance"] == 0.75


def test_what_a_person_saw_and_lost():
    """Four of five tentative tokens are withdrawn, for an answer of two; after half a second 11.9 code points were read."""
    meter = Meter(0.0, False)
    meter.showed([SpeculativeEvent(n, n, (1,), "12345", 0.9) for n in range(5)], 1.0)
    meter.showed([RevokeEvent(6, 1, 4, "contradicted"), CorrectEvent(7, 1, (2,), "x", CommitOffset(2, 6))], 1.5)
    report = values(meter.report(2, None))
    assert (report["revoked_share"], report["normalised_erasure"], report["revoked_after_read"]) == (0.8, 2.0, 0.5)


@pytest.mark.parametrize("is_resumed", [True, False])
def test_of_pauses_only_those_before_the_last_token_are_no_time_in_which_tokens_came(is_resumed):
    """Two tokens in two seconds beside a pause of ten, then one of thirty behind which no token came."""
    meter = Meter(0.0, False)
    meter.showed([SpeculativeEvent(1, 5, (1,), "a", 0.9)], 1.0)
    meter.broke_off(1.0, 0.0)
    meter.broke_off(11.0, 10.0)
    meter.verdict(Verdict(5, 1, 1, 3, VerdictKind.ACCEPT), 2, 12.0)
    meter.broke_off(12.0, 0.0)
    if is_resumed:
        meter.broke_off(42.0, 30.0)
    meter.shared(0.0, 0.0, 40.0)
    report = values(meter.report(2, None))
    assert (report["tokens_per_s"], report["paused_ms"]) == (1.0, 40_000.0)
