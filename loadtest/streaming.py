"""Times of one server-sent event stream, from its lines and a clock. Pure, so that it is tested without a load tester."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

SHOWS_TEXT = frozenset({"speculative", "correct"})
MAKES_FINAL = frozenset({"commit", "correct"})


@dataclass(slots=True)
class StreamTimes:
    """Feed every line with its arrival in seconds, then read the figures. All times count from ``began_s``."""

    began_s: float
    first_visible_s: float | None = None
    first_final_s: float | None = None
    gaps_s: list[float] = field(default_factory=list)
    num_tokens: int = 0
    failure: str | None = None
    is_done: bool = False
    _event: str = ""
    _last_final_s: float | None = None

    def feed(self, line: str, now_s: float) -> None:
        if line.startswith("event:"):
            self._event = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            self._data(line.removeprefix("data:"), now_s)

    def _data(self, data: str, now_s: float) -> None:
        if self._event in SHOWS_TEXT and self.first_visible_s is None:
            self.first_visible_s = now_s - self.began_s
        if self._event in MAKES_FINAL:
            fields = json.loads(data)
            self._final(fields["count"] if self._event == "commit" else len(fields["token_ids"]), now_s)
        if self._event == "error":
            self.failure = str(json.loads(data).get("error", data))
        self.is_done = self.is_done or self._event == "done"

    def _final(self, count: int, now_s: float) -> None:
        """Tokens that become final together share the time since those before them. Text may come without a token."""
        if not count:
            return
        if self._last_final_s is None:
            self.first_final_s = now_s - self.began_s
        else:
            self.gaps_s += [(now_s - self._last_final_s) / count] * count
        self._last_final_s = now_s
        self.num_tokens += count
