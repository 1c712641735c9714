"""What a pass over many sessions costs by the roofline model, and what drafts can save there at best. Pure.

A pass reads the weights once and each session's keys and values, and computes every row; the slower of the two is its time
(``speculation/shaping/costs.py``). So rows are free up to the knee, where computing them takes as long as the reading. Decoding
alone already has one row a session in every pass, and one pass over all sessions is the cheapest that it can do, paced or not:
an idle machine costs it nothing and saves it nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speculation.shaping import costs
from speculation.shaping.costs import Work
from speculation.shaping.engine import CloudCost, PhoneCost

MOST_DRAFTS = 32
"""Drafts behind one session's last final token in a pass; the depth to which a device drafts ahead by default."""


@dataclass(frozen=True, slots=True)
class HeldContext(CloudCost):
    """A model on a cloud machine whose caches hold ``held_tokens`` more than the engine knows: a prompt that ran before.

    Its keys and values are read in every pass and take their room; its prefill is nobody's in the comparison.
    """

    held_tokens: int = 0

    def step_s(self, works: Sequence[Work]) -> float:
        """Emulated seconds of one step, with what is held read, too."""
        return costs.step_time_s(self.machine, self.model, _behind(self.held_tokens, works))


@dataclass(frozen=True, slots=True)
class HeldOnPhone(PhoneCost):
    """The same on a phone."""

    held_tokens: int = 0

    def step_s(self, works: Sequence[Work]) -> float:
        """Emulated seconds of one step, with what is held read, too."""
        return costs.step_time_s(self.machine, self.model, _behind(self.held_tokens, works))


def _behind(held_tokens: int, works: Sequence[Work]) -> list[Work]:
    return [Work(work.past_tokens + held_tokens, work.new_tokens) for work in works]


def pass_s(cost: CloudCost, num_sessions: int, num_rows: int, context_tokens: int) -> float:
    """Seconds of a pass over sessions that hold ``context_tokens`` each, with ``num_rows`` in all."""
    # Only sums count, so that one work stands for all.
    return costs.step_time_s(cost.machine, cost.model, [Work(num_sessions * context_tokens, num_rows)])


def tokens_a_pass(acceptance: float, num_sessions: int, num_rows: int) -> float:
    """Final tokens of a pass, on average, if each draft agrees with this chance whatever came before it.

    A session with d drafts gets (1 - a^(d+1)) / (1 - a) tokens (Leviathan, Kalman, Matias, arXiv 2211.17192, equation 1). Rows
    go where they are worth most: everybody's first draft before anybody's second.
    """
    drafts, more = divmod(num_rows - num_sessions, num_sessions)
    whole = sum(acceptance**place for place in range(drafts + 1))
    return num_sessions * whole + more * acceptance ** (drafts + 1)


def free_rows(cost: CloudCost, num_sessions: int, context_tokens: int) -> int:
    """The most rows of a pass over these sessions whose computing still hides behind the reading; one a session at least."""
    machine, model = cost.machine, cost.model
    rows = num_sessions
    most = num_sessions * (1 + MOST_DRAFTS)
    while rows < most:
        reading_s = costs.bytes_read(model, [Work(num_sessions * context_tokens, rows + 1)]) / machine.bandwidth_bytes_per_s
        if model.operations(rows + 1) / machine.operations_per_s > reading_s:
            break
        rows += 1
    return rows


def ceiling(cost: CloudCost, acceptance: float, num_sessions: int, context_tokens: int) -> tuple[float, int]:
    """How many times cheaper a token can get by drafts than by decoding alone, at most, and the rows of the pass that does it.

    Best over the rows of ``tokens_a_pass`` over ``pass_s``, beside one row a session: every session in every pass, as many
    drafts at hand as are wanted, each as likely to agree as the next, and drafted at no cost to the machine. Whoever knows
    which drafts are the likelier ones can do better than this.
    """
    alone = num_sessions / pass_s(cost, num_sessions, num_sessions, context_tokens)
    found = {
        rows: tokens_a_pass(acceptance, num_sessions, rows) / pass_s(cost, num_sessions, rows, context_tokens) / alone
        for rows in range(num_sessions, num_sessions * (1 + MOST_DRAFTS) + 1, max(1, num_sessions // 16))
    }
    best = max(found, key=lambda rows: found[rows])
    return found[best], best


def inside_theory(cost: CloudCost, draft: CloudCost, length: int, num_sessions: int, context_tokens: int) -> float:
    """How many times cheaper than speculation inside the cloud it is to get the same drafts from elsewhere: 1 + drafts x draft
    time / pass time, at that length and with every session in every pass."""
    draft_s = pass_s(draft, num_sessions, num_sessions, context_tokens)
    return 1 + length * draft_s / pass_s(cost, num_sessions, num_sessions * (1 + length), context_tokens)
