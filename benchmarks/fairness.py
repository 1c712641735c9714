"""What well-behaved tenants feel of an abusive one on the same verifier, and how much of it that one takes.

    python -m benchmarks.fairness [--quick] [--processes N] [--json FILE] [--fill docs/benchmarks.md]

Emulated (``fairness_scene.py``): the same tenants with nobody beside them, with one more of their kind, with a well-behaved one
of as many sessions as the abuser, and with the abuser; each with all drafts run that a pass has rows for, and with those that
pay by what a pass costs. The aims: their 99th percentiles rise by less than 20 %, and nobody goes without
a row that is theirs while the abuser has more rows than they.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.fairness_scene import ODD_ONE, Felt, Guest, Party, run
from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.report import Grid, add_arguments, publish
from cloud_verifier.config import VerifierConfig

BLOCK = "fairness"
NUM_TENANTS, NUM_SESSIONS, NUM_ANSWERS, NUM_TOKENS, CHAIN = 16, 16, 2, 32, 64
MOST_RISE = 0.2
COLUMNS = (
    "drafts that are run",
    "beside them",
    "first token p50, ms",
    "p99, ms",
    "rise",
    "between tokens p99, ms",
    "rise",
    "mean, ms",
    "its share of rows",
    "rows others went without",
    "a pass, ms",
    "misses",
)


@dataclass(frozen=True, slots=True)
class Row:
    """What was felt in one party, beside what was felt with nobody there."""

    party: Party
    felt: Felt
    alone: Felt

    @property
    def rises(self) -> tuple[float, float]:
        """Of the 99th percentiles of a first token and between tokens, as shares."""
        pairs = ((self.felt.first_ms, self.alone.first_ms), (self.felt.between_ms, self.alone.between_ms))
        first, between = (float(np.percentile(now, 99) / np.percentile(before, 99)) - 1 for now, before in pairs)
        return first, between

    @property
    def misses(self) -> list[str]:
        """The aims that are not reached."""
        first, between = self.rises
        is_met = {"first token": first < MOST_RISE, "between tokens": between < MOST_RISE, "share": not self.felt.displaced}
        return [aim for aim in is_met if not is_met[aim]]


def parties(num_tenants: int, num_sessions: int, num_answers: int, chain: int) -> list[Party]:
    """Every guest, with all drafts run and with those that pay."""
    rows = VerifierConfig().max_rows
    made = itertools.product((False, True), Guest)
    return [Party(guest, num_tenants, num_sessions, rows, num_answers, NUM_TOKENS, chain, priced) for priced, guest in made]


def rows_of(asked: Sequence[Party], felt: Sequence[Felt]) -> list[Row]:
    """Each party beside the one that runs the same drafts with nobody there."""
    alone = {party.is_priced: one for party, one in zip(asked, felt, strict=True) if party.guest is Guest.NOBODY}
    return [Row(party, one, alone[party.is_priced]) for party, one in zip(asked, felt, strict=True)]


def grid(rows: Sequence[Row]) -> Grid:
    party = rows[0].party
    title = (
        f"Emulated, {party.num_tenants} tenants of one device, {party.num_answers} answers of {party.num_tokens} tokens each; "
        f"an abuser of {party.num_sessions} sessions and {party.chain} drafts behind every verdict"
    )
    return Grid(title, COLUMNS, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
    felt, (first, between) = row.felt, row.rises
    middle, late = np.percentile(felt.first_ms, (50, 99))
    return [
        *("that pay" if row.party.is_priced else "all", row.party.guest.value, f"{middle:.0f}", f"{late:.0f}", f"{first:+.0%}"),
        *(f"{np.percentile(felt.between_ms, 99):.1f}", f"{between:+.0%}", f"{np.mean(felt.between_ms):.1f}"),
        *(f"{share_of(felt.rows):.0%}", str(felt.displaced), f"{felt.pass_ms:.1f}", ", ".join(row.misses)),
    ]


def share_of(rows: Mapping[str, int]) -> float:
    """The odd one's share of rows."""
    return rows.get(ODD_ONE, 0) / sum(rows.values())


def to_json(row: Row) -> dict[str, Any]:
    first, between = row.rises
    return asdict(row.party) | asdict(row.felt) | {"first_rise": first, "between_rise": between, "misses": row.misses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    arguments = parser.parse_args()
    asked = parties(1, 1, 1, 16) if arguments.quick else parties(NUM_TENANTS, NUM_SESSIONS, NUM_ANSWERS, CHAIN)
    felt = in_processes(run, asked, 1 if arguments.quick else arguments.processes, "parties")
    rows = rows_of(asked, felt)
    publish(arguments, BLOCK, [grid(rows)], [to_json(row) for row in rows])


if __name__ == "__main__":
    main()
