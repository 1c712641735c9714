"""Round trips by idle gap as measured on cells of 2020, beside which the emulated radio is held.

Source: *A Variegated Look at 5G in the Wild*, SIGCOMM 2021, artifact, RRC-Probe: probes from a server to a phone that was quiet
for a while. Medians in milliseconds, of two phones where two were measured.
"""

from __future__ import annotations

from collections.abc import Mapping

GAPS_S: Mapping[str, tuple[float, float]] = {
    "up to 0.35 s": (0.02, 0.34),
    "0.35 to 1 s": (0.36, 0.99),
    "1 to 8 s": (1.01, 8.0),
    "10 to 11 s": (10.0, 11.0),
    "13 s and more": (13.0, 19.9),
}
"""Gaps before a probe."""

MEDIANS_MS: Mapping[str, tuple[float, ...]] = {
    "lte-verizon": (80, 280, 210, 921, 970),
    "lte-tmobile": (110, 130, 140, 1110, 942),
    "5g-nsa-low-verizon": (73, 256, 216, 673, 905),
    "5g-nsa-low-tmobile": (99, 268, 232, 414, 1023),
    "5g-sa-low": (80, 82, 90, 139, 830),
    "5g-mmwave": (70, 93, 97, 129, 922),
}
"""By profile, in the order of ``GAPS_S``. T-Mobile's LTE is given up after 5 s, so its third gap ends there."""

LATEST_S: Mapping[str, float] = {"lte-tmobile": 4.9}
"""Where the third gap ends earlier."""


def gaps_s(name: str, gap: str, count: int) -> list[float]:
    """So many gaps that a cell of the table stands for, as evenly spread as those that were measured (in steps of 0.1 s)."""
    first_s, last_s = GAPS_S[gap]
    if gap == "1 to 8 s":
        last_s = min(last_s, LATEST_S.get(name, last_s))
    return [first_s + (last_s - first_s) * (number + 0.5) / count for number in range(count)]
