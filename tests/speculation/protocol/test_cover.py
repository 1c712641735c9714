"""What may be asked for, when a tick is, and messages that say nothing."""

from __future__ import annotations

import pytest

from speculation.parameters import SamplingParameters
from speculation.protocol.cover import Cover
from speculation.protocol.device import DeviceSession
from speculation.protocol.fillers import FILLER_UP, filler_down, is_filler
from speculation.protocol.messages import Draft, Opened, PairIdentity, Verdict, VerdictKind
from speculation.protocol.verifier import VerifierSession


@pytest.mark.parametrize(
    ("cover", "words"),
    [
        (Cover(-1), "32 to 4096"),
        (Cover(31), "32 to 4096"),
        (Cover(2**31), "32 to 4096"),
        (Cover(0, -20), "10 to 1000"),
        (Cover(0, 1), "10 to 1000"),
        (Cover(0, 60_000), "10 to 1000"),
        (Cover(4096, 10), "tick_ms must be at least 32"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_can(cover: Cover, words: str) -> None:
    assert cover.fault is not None
    assert words in cover.fault


@pytest.mark.parametrize(
    "cover", [Cover(), Cover(32), Cover(4096), Cover(0, 10), Cover(0, 1000), Cover(1024, 20), Cover(4096, 32)]
)
def test_what_can_be_had_has_no_fault(cover: Cover) -> None:
    assert cover.fault is None


def test_of_two_covers_the_larger_padding_and_the_longer_tick_hold() -> None:
    assert Cover(64, 20).with_least(Cover(32, 50)) == Cover(64, 50)
    assert Cover(0, 50).with_least(Cover(128, 20)) == Cover(128, 50)


def test_ticks_are_counted_from_the_first_and_none_comes_twice() -> None:
    cover, moments = Cover(0, 20), [5.0]
    for _ in range(1000):
        moments.append(cover.next_tick_s(5.0, moments[-1]))
    assert moments == [pytest.approx(5 + 0.02 * n) for n in range(1001)]
    assert cover.next_tick_s(5.0, 5.0501) == pytest.approx(5.06)


def test_a_filler_changes_neither_session() -> None:
    device = DeviceSession(
        "s", PairIdentity("a", "b", "c"), (11, 12, 13), parameters=SamplingParameters(), max_tokens=8, end_token_ids=()
    )
    verifier = VerifierSession(device.open(), 64)
    verifier.receive(FILLER_UP)
    device.receive(Opened("s", 64, "f" * 16))
    device.receive(filler_down(11))
    verdict, _ = verifier.commit(verifier.plan(8), (21,))
    assert device.receive(verdict).tokens == (21,)
    device.receive(filler_down(11))
    assert tuple(device.final) == tuple(verifier.final) == (11, 12, 13, 21)
    assert verifier.usage.proposed == 0


def test_only_fillers_are_fillers() -> None:
    assert is_filler(FILLER_UP)
    assert is_filler(filler_down(11))
    says = (Draft((), 3), Draft((), 0, passes=True), Verdict(1, 0, 0, 5, VerdictKind.DECODED), Opened("s", 64, ""))
    assert not any(map(is_filler, says))
