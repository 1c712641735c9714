"""The figures of a load test, from its answers: spreads of times, rates, and the share that met the objectives. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from loadtest.answers import Answer, End, Ledger
from loadtest.scenario import Scenario

PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
FIRST_TOKEN_MS, BETWEEN_TOKENS_MS = 200.0, 50.0
"""Service level objectives of a chat: the first token, and the mean time between those that follow."""
WELL_BEHAVED = "all well-behaved"


@dataclass(frozen=True, slots=True)
class Spread:
    """How a quantity is spread. ``std`` is that of the population; percentiles are interpolated between neighbours."""

    count: int
    mean: float
    median: float
    std: float
    percentiles: dict[str, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """None for no values."""
        if not values:
            return None
        found = np.percentile(values, PERCENTILES)
        named = {f"p{percent:g}": float(value) for percent, value in zip(PERCENTILES, found, strict=True)}
        return cls(len(values), float(np.mean(values)), float(np.median(values)), float(np.std(values)), named)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one class of users over ``seconds``. ``spreads`` and ``values`` are by name, with the unit in it; None: no meaning.

    ``ends`` counts answers by how they ended, ``reasons`` those by what was told that did not just come to their own end.
    """

    num_answers: int
    ends: dict[str, int]
    reasons: dict[str, int]
    spreads: dict[str, Spread | None]
    values: dict[str, float | None]


def by_class(scenario: Scenario, ledger: Ledger) -> dict[str, Figures]:
    """Figures of each group, and of all that are well-behaved together; the same seconds for all."""
    seconds = _seconds(ledger.answers)
    wanted = {group.name: {group.name} for group in scenario.groups}
    wanted[WELL_BEHAVED] = {group.name for group in scenario.groups if group.is_well_behaved}
    return {
        name: figures_of([answer for answer in ledger.answers if answer.group in groups], seconds)
        for name, groups in wanted.items()
    }


def figures_of(answers: Sequence[Answer], seconds: float) -> Figures:
    """Times and objectives are of answers that came to their own end; tokens count wherever they came."""
    done = [answer for answer in answers if answer.end is End.DONE]
    told = [answer for answer in answers if answer.how or answer.is_resumed]
    return Figures(
        num_answers=len(answers),
        ends={end.value: sum(answer.end is end for answer in answers) for end in End},
        reasons=_counted([f"{answer.end.value}: {answer.how or 'resumed'}" for answer in told]),
        spreads=_spreads(done),
        values=_values(answers, done, seconds),
    )


def tpot_s(answer: Answer) -> float | None:
    """Seconds per output token behind the first: (end of the last token - first final token) / (tokens - 1)."""
    count = answer.times.num_tokens
    return (answer.times.updates[-1][0] - answer.times.updates[0][0]) / (count - 1) if count > 1 else None


def meets(answer: Answer, first_s: float | None) -> bool:
    """Whether an answer met both objectives, by the time of its first token that is given."""
    between_s = tpot_s(answer)
    first_is_fine = first_s is not None and first_s * 1000 <= FIRST_TOKEN_MS
    return first_is_fine and (between_s is None or between_s * 1000 <= BETWEEN_TOKENS_MS)


def _spreads(done: Sequence[Answer]) -> dict[str, Spread | None]:
    return {
        "first_visible_ms": _spread_ms(done, lambda a: [a.times.first_visible_s]),
        "first_final_ms": _spread_ms(done, lambda a: [a.times.first_final_s]),
        "inter_token_ms": _spread_ms(done, lambda a: a.times.gaps_s),
        "time_per_output_token_ms": _spread_ms(done, lambda a: [tpot_s(a)]),
        "whole_answer_ms": _spread_ms(done, lambda a: [a.ended_s - a.times.began_s]),
        "tokens_per_update": Spread.of([float(count) for answer in done for _, count in answer.times.updates]),
        "tokens": Spread.of([float(answer.times.num_tokens) for answer in done]),
    }


def _spread_ms(answers: Sequence[Answer], of: Callable[[Answer], Sequence[float | None]]) -> Spread | None:
    return Spread.of([1000 * value for answer in answers for value in of(answer) if value is not None])


def _values(answers: Sequence[Answer], done: Sequence[Answer], seconds: float) -> dict[str, float | None]:
    drafts = [answer.drafts for answer in answers]
    agreed, contradicted = sum(d.agreed for d in drafts), sum(d.contradicted for d in drafts)
    final = sum(meets(answer, answer.times.first_final_s) for answer in done)
    visible = sum(meets(answer, answer.times.first_visible_s) for answer in done)
    shows = any(answer.times.first_visible_s is not None for answer in done)
    return {
        "requests_per_s": _share(len(done), seconds),
        "output_tokens_per_s": _share(sum(answer.times.num_tokens for answer in answers), seconds),
        "goodput_final_per_s": _share(final, seconds),
        "goodput_final_share": _share(final, len(done)),
        "goodput_visible_share": _share(visible, len(done)) if shows else None,
        "acceptance": _share(agreed, agreed + contradicted),
        "revoked_share": _share(sum(d.withdrawn for d in drafts), sum(d.shown for d in drafts)),
    }


def _seconds(answers: Sequence[Answer]) -> float:
    """From the first request to the last end."""
    return max(a.ended_s for a in answers) - min(a.times.began_s for a in answers) if answers else 0.0


def _counted(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in sorted(set(names))}


def _share(count: float, total: float) -> float | None:
    return count / total if total > 0 else None
