"""An answer over server-sent events, from its lines and a clock. Pure, so that it is tested without a load tester."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from loadtest.answers import Drafts, Times


@dataclass(slots=True)
class StreamTimes:
    """Feed every line with its arrival in seconds, then read the figures. All times count from ``began_s``.

    ``done`` is the last event of an answer that came to its own end. A stream that is read on after a cut goes on feeding.
    """

    began_s: float
    failure: str | None = None
    session_id: str = ""
    last_seq: int = -1
    done: dict[str, Any] | None = None
    times: Times = field(init=False)
    _event: str = ""
    _num_shown: int = 0
    _num_withdrawn: int = 0

    def __post_init__(self) -> None:
        self.times = Times(self.began_s)

    @property
    def first_visible_s(self) -> float | None:
        return self.times.first_visible_s

    @property
    def first_final_s(self) -> float | None:
        return self.times.first_final_s

    @property
    def gaps_s(self) -> list[float]:
        return self.times.gaps_s

    @property
    def num_tokens(self) -> int:
        return self.times.num_tokens

    @property
    def is_done(self) -> bool:
        return self.done is not None

    @property
    def drafts(self) -> Drafts:
        """What became of the drafts; whether they agreed is told at the end only."""
        usage = (self.done or {}).get("usage", {})
        agreed = usage.get("accepted", 0) + usage.get("late", 0)
        return Drafts(self._num_shown, self._num_withdrawn, agreed, usage.get("corrections", 0))

    def feed(self, line: str, now_s: float) -> None:
        if line.startswith("event:"):
            self._event = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            self._data(json.loads(line.removeprefix("data:")), now_s)

    def _data(self, fields: dict[str, Any], now_s: float) -> None:
        self.last_seq = fields.get("seq", self.last_seq)
        match self._event:
            case "session":
                self.session_id = fields.get("session_id", "")
            case "speculative":
                self.times.visible(now_s)
                self._num_shown += len(fields["token_ids"])
            case "revoke":
                self._num_withdrawn += fields["count"]
            case "commit":
                self.times.final(fields["count"], now_s)
            case "correct":
                self.times.visible(now_s)
                self.times.final(len(fields["token_ids"]), now_s)
            case "error":
                self.failure = str(fields.get("error", fields))
            case "done":
                self.done = fields
