"""Four answers on one phone: what they write together, whether rates that were promised are kept, who gets the first word.

    python -m benchmarks.tasks [--quick] [--processes N] [--json FILE] [--fill docs/benchmarks.md]

Emulated (``tasks_scene.py``), in modes device and collaborate, with nothing else on the phone, while its screen scrolls, and
beside a game.
Beside each figure stands a baseline: the four in turn; alone on the phone; all at once as they come, without the policy. The
aims: together at least 2.5 times the tokens a second of the four in turn; each promised rate kept; a first word of high
priority within 1.2 times its time alone, whenever it is asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from benchmarks.pool import add_processes_argument, in_processes
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.tasks_scene import HIGHEST, MEASURED_TOKENS, NUM_STREAMS, Setting, Task, Written, run
from device_agent.request import Mode
from device_agent.tasks import target
from device_agent.tasks.target import LATE_S

BLOCK = "tasks"
LEAST_SPEED_UP, MOST_WAIT = 2.5, 1.2
NUM_TOKENS = 160
LOADS = ("none", "busy", "game")
WORKERS = [Task(130), Task(130), Task(130)]
ASKED_S, PHASE_S, NUM_PHASES = 0.8, 1.1e-3, 24
"""A first word is asked for at this moment and at so many later ones, which together fall on every part of a step."""

TEXTS = {"32 tokens": 32, "256 tokens": 256}
READ_S, READ_TOKENS = 0.2, 3000
RATES = {"a reader": 5.0, "a voice": 4.0, "an agent": HIGHEST}
"""An agent takes what it can get."""

READER_OF_A_LONG_TEXT = Task(40, READ_TOKENS, READ_S)


@dataclass(frozen=True, slots=True)
class Together:
    """Tokens a second over all answers: in turn, without the policy, and with it."""

    setting: Setting
    in_turn: float
    first_come: float
    fair: float

    @property
    def speed_up(self) -> float:
        return self.fair / self.in_turn


@dataclass(frozen=True, slots=True)
class Kept:
    """A stream with a rate: without the policy, and with it."""

    setting: Setting
    name: str
    first_come: Written
    fair: Written

    @property
    def is_kept(self) -> bool:
        return is_kept(self.fair)


@dataclass(frozen=True, slots=True)
class FirstWord:
    """Waits for it in seconds, over all moments at which it was asked for."""

    setting: Setting
    text: str
    alone: list[float]
    first_come: list[float]
    fair: list[float]

    def worst(self, waits: Sequence[float]) -> float:
        """Of its times alone, asked for at the same moment."""
        return max(wait / alone for wait, alone in zip(waits, self.alone, strict=True))


@dataclass(frozen=True, slots=True)
class Found:
    """Everything in one setting."""

    together: Together
    kept: list[Kept]
    first_words: list[FirstWord]


@dataclass(frozen=True, slots=True)
class Asked:
    """A setting, and how much of it is measured."""

    setting: Setting
    num_tokens: int
    num_phases: int


def is_kept(written: Written) -> bool:
    """By the agent's own rule: as fast as promised over the whole text, and never far behind."""
    if written.target_tokens_per_s is None or written.target_late_s is None:
        return False
    return target.is_kept(written.target_tokens_per_s, written.achieved_tokens_per_s, written.target_late_s)


def measure(asked: Asked) -> Found:
    setting = asked.setting
    return Found(
        together(setting, asked.num_tokens),
        kept(setting),
        [first_word(setting, text, length, asked.num_phases) for text, length in TEXTS.items()],
    )


def together(setting: Setting, num_tokens: int) -> Together:
    tasks = [Task(num_tokens)] * NUM_STREAMS
    runs = run(setting, tasks, is_in_turn=True), run(setting.first_come(), tasks), run(setting, tasks)
    return Together(setting, *(_tokens_per_s(written) for written in runs))


def _tokens_per_s(written: Sequence[Written]) -> float:
    took_s = max(each.ended_s for each in written) - min(each.began_s for each in written)
    return sum(each.num_tokens for each in written) / took_s


def kept(setting: Setting) -> list[Kept]:
    """Three rates, the highest that is promised among them, and beside them somebody without one who reads a long text."""
    tasks = [*(Task(100, tokens_per_s=rate) for rate in RATES.values()), READER_OF_A_LONG_TEXT]
    without, with_it = (run(each, tasks, num_before=MEASURED_TOKENS) for each in (setting.first_come(), setting))
    return [Kept(setting, *each) for each in zip(RATES, without, with_it, strict=False)]


def first_word(setting: Setting, text: str, length: int, num_phases: int) -> FirstWord:
    """Three answers of low priority are being written when it is asked for."""
    waits: tuple[list[float], ...] = [], [], []
    for phase in range(num_phases):
        asked = Task(1, length, ASKED_S + phase * PHASE_S, priority=1)
        runs = run(setting, [asked]), run(setting.first_come(), [*WORKERS, asked]), run(setting, [*WORKERS, asked])
        for found, written in zip(waits, runs, strict=True):
            found.append(written[-1].first_visible_s)
    return FirstWord(setting, text, *waits)


def grids(found: Sequence[Found]) -> list[Grid]:
    return [
        _together_grid([each.together for each in found]),
        _kept_grid([row for each in found for row in each.kept]),
        _first_grid([row for each in found for row in each.first_words]),
    ]


def _together_grid(rows: Sequence[Together]) -> Grid:
    title = f"Emulated, {NUM_STREAMS} answers on one phone: tokens a second of all; the aim: {LEAST_SPEED_UP:g} times in turn"
    columns = ("mode", "also on the phone", "in turn", "at once, as they come", "at once, by the policy", "times in turn", "")
    return Grid(title, columns, [_together_cells(row) for row in rows])


def _together_cells(row: Together) -> list[str]:
    rates = [f"{rate:.1f}" for rate in (row.in_turn, row.first_come, row.fair)]
    return [*_where(row.setting), *rates, f"{row.speed_up:.2f}", _verdict(row.speed_up >= LEAST_SPEED_UP)]


def _kept_grid(rows: Sequence[Kept]) -> Grid:
    title = (
        "Emulated, three rates that were promised, the last as high as any would be, while a fourth answer reads a text of"
        f" {READ_TOKENS} tokens: what came a second behind the first token, and how far behind its rate each text was at worst;"
        f" kept is at least the rate and at most {1000 * LATE_S:g} ms"
    )
    columns = (
        "mode",
        "also on the phone",
        "who",
        "tokens a second promised",
        "achieved",
        "late at worst, ms",
        "as they come: achieved",
        "late at worst, ms",
        "",
    )
    return Grid(title, columns, [_kept_cells(row) for row in rows])


def _kept_cells(row: Kept) -> list[str]:
    cells = [f"{row.fair.target_tokens_per_s:g}"]
    for written in (row.fair, row.first_come):
        cells += [f"{written.achieved_tokens_per_s or 0:.2f}", f"{1000 * (written.target_late_s or 0):.0f}"]
    return [*_where(row.setting), row.name, *cells, _verdict(row.is_kept)]


def _first_grid(rows: Sequence[FirstWord]) -> Grid:
    title = (
        "Emulated, the first word of an answer of high priority beside three of low priority, asked for at"
        f" {len(rows[0].alone)} moments: the aim is {MOST_WAIT:g} times its time alone, at worst"
    )
    columns = (
        "mode",
        "also on the phone",
        "its text",
        "alone, ms",
        "by the policy",
        "at worst, times alone",
        "as they come",
        "at worst",
        "",
    )
    return Grid(title, columns, [_first_cells(row) for row in rows])


def _first_cells(row: FirstWord) -> list[str]:
    cells = [f"{1000 * mean(row.alone):.1f}"]
    for waits in (row.fair, row.first_come):
        cells += [f"{1000 * mean(waits):.1f}", f"{row.worst(waits):.2f}"]
    return [*_where(row.setting), row.text, *cells, _verdict(row.worst(row.fair) <= MOST_WAIT)]


def _where(setting: Setting) -> list[str]:
    return [setting.mode.value, "nothing" if setting.load == "none" else setting.load]


def _verdict(is_met: bool) -> str:
    return "" if is_met else "MISS"


def to_json(found: Found) -> dict[str, Any]:
    return asdict(found)


def settings(is_quick: bool) -> list[Asked]:
    modes, loads = ((Mode.DEVICE,), LOADS[:1]) if is_quick else ((Mode.DEVICE, Mode.COLLABORATE), LOADS)
    size = (40, 2) if is_quick else (NUM_TOKENS, NUM_PHASES)
    return [Asked(Setting(mode, load), *size) for mode in modes for load in loads]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    add_processes_argument(parser)
    arguments = parser.parse_args()
    asked = settings(arguments.quick)
    found = in_processes(measure, asked, 1 if arguments.quick else arguments.processes, "settings")
    publish(arguments, BLOCK, grids(found), [to_json(each) for each in found])


if __name__ == "__main__":
    main()
