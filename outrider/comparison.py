"""The demo's table: the same prompt and seed, three ways to write; every figure says whether it was measured or emulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from device_agent.events import DoneEvent
from device_agent.request import Mode

TITLES = {Mode.COLLABORATE: "collaborative", Mode.CLOUD: "cloud alone", Mode.DEVICE: "device alone"}
FIGURES = {
    "first_visible_ms": "first visible token",
    "first_final_ms": "first final token",
    "tokens_per_s": "tokens a second",
    "passes_per_token": "full-model passes a token",
    "acceptance": "acceptance",
    "revoked_share": "revoked share",
    "normalised_erasure": "erased tokens a final token",
    "revoked_after_read": "revoked after it was read",
    "bytes_up": "bytes up",
    "bytes_down": "bytes down",
}
PHONE_FIGURES = {"joules_per_token": "drafting's joules a token"}
"""What only an emulated phone tells, and not every one."""

_DECIMALS = {"ms": 0, "bytes": 0, "tokens/s": 1, "share": 2, "passes/token": 2, "tokens/token": 2, "J/token": 3}
_SUFFIXES = {"ms": " ms", "J/token": " J"}
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What each way to write ended with."""

    done: Mapping[Mode, DoneEvent]

    @property
    def is_same_text(self) -> bool:
        """Whether the collaborative answer equals the cloud's, token for token, and is verified to its end."""
        ours, theirs = self.done[Mode.COLLABORATE], self.done[Mode.CLOUD]
        return ours.token_ids == theirs.token_ids and ours.verified_count == theirs.verified_count == len(ours.token_ids)

    @property
    def speed_up(self) -> float | None:
        """Tokens a second of collaboration over those of the cloud alone."""
        ours, theirs = (self.done[mode].figures["tokens_per_s"]["value"] for mode in (Mode.COLLABORATE, Mode.CLOUD))
        return ours / theirs if ours and theirs else None

    @property
    def speed_sentence(self) -> str:
        speed_up = self.speed_up
        if speed_up is None:
            return "Too short an answer to compare speeds."
        return f"Collaboration writes {speed_up:.2f} times as many tokens a second as the cloud alone."

    @property
    def sentence(self) -> str:
        count = len(self.done[Mode.COLLABORATE].token_ids)
        if self.is_same_text:
            return f"Same text: all {count} collaborative tokens equal those of the cloud alone."
        return "DIFFERENT text: the collaborative tokens do not equal those of the cloud alone."

    def to_json(self) -> dict[str, Any]:
        figures = {mode.value: dict(done.figures) for mode, done in self.done.items()}
        return {"event": "comparison", "is_same_text": self.is_same_text, "speed_up": self.speed_up, "figures": figures}

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        for mode in self.done:
            table.add_column(TITLES[mode], justify="right")
        told = {name: label for name, label in PHONE_FIGURES.items() if any(name in d.figures for d in self.done.values())}
        for name, label in (FIGURES | told).items():
            table.add_row(label, *(cell(done.figures.get(name)) for done in self.done.values()))
        return table


def cell(figure: Mapping[str, Any] | None) -> Text:
    """A figure with its basis, as in ``62 ms emulated``."""
    if figure is None or figure["value"] is None:
        return Text(NOTHING)
    unit = figure["unit"]
    number = f"{figure['value']:.{_DECIMALS[unit]}f}{_SUFFIXES.get(unit, '')}"
    return Text(number).append(f" {figure['basis']}", "dim")
