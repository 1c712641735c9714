"""A client that follows a stream to the letter and refuses any event that breaks the contract of ``docs/stream.md``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Replay:
    """What a client has on its screen. ``feed`` takes the JSON of each event in turn."""

    start: int | None = None
    shown: list[tuple[int, str]] = field(default_factory=list)
    tail: str = ""
    tokens_committed: int = 0
    code_points_committed: int = 0
    next_seq: int = 0
    tentative_after_commit: bool = False
    last: dict[str, Any] | None = None
    names: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] | None = None

    @property
    def token_ids(self) -> list[int]:
        return [token_id for token_id, _ in self.shown]

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.shown) + self.tail

    def feed(self, event: dict[str, Any]) -> None:
        assert event["seq"] == self.next_seq
        assert self.last is None, "something followed the last event"
        self.next_seq += 1
        self.names.append(event["event"])
        getattr(self, "_" + event["event"])(event)

    def _session(self, event):
        assert event["seq"] == 0

    def _state(self, event):
        pass

    def _speculative(self, event):
        self._append(event)

    def _correct(self, event):
        assert len(self.shown) == self.tokens_committed, "something tentative lies before final tokens"
        self._append(event)
        self._note_logprobs(event, event["token_ids"])
        self._commit_to(event["commit_offset"], len(event["token_ids"]))

    def _commit(self, event):
        assert event["position"] == self.start + self.tokens_committed
        assert event["count"] >= 1
        self._note_logprobs(event, self.token_ids[self.tokens_committed :][: event["count"]])
        self._commit_to(event["commit_offset"], event["count"])

    def _revoke(self, event):
        assert event["count"] >= 1
        assert event["position"] + event["count"] == self.start + len(self.shown)
        del self.shown[event["position"] - self.start :]
        assert len(self.shown) >= self.tokens_committed, "a final token was withdrawn"

    def _done(self, event):
        self.last = event
        assert self.token_ids == list(event["token_ids"])
        assert self.text == event["text"]
        assert event["verified_count"] == self.tokens_committed
        assert self.start in (None, len(event["prompt_token_ids"]))
        assert self.logprobs is None or len(self.logprobs) == event["verified_count"]

    def _error(self, event):
        self.last = event
        assert set(event["error"]) == {"message", "type", "param", "code"}

    def _note_logprobs(self, event, token_ids):
        """Every event that commits has them, one a token, or none has."""
        told = event.get("logprobs")
        assert (told is not None) == (self.logprobs is not None) or not self.tokens_committed
        if told is not None:
            assert [entry["token_id"] for entry in told] == list(token_ids)
            self.logprobs = [*(self.logprobs or ()), *told]

    def _append(self, event):
        assert not self.tail
        if self.start is None:
            self.start = event["position"]
        assert event["position"] == self.start + len(self.shown)
        token_ids, text = event["token_ids"], event["text"]
        if not token_ids:
            self.tail = text
        elif event["event"] == "speculative":
            (token_id,) = token_ids
            self.shown.append((token_id, text))
        else:
            self.shown += [(token_id, "") for token_id in token_ids[:-1]]
            self.shown.append((token_ids[-1], text))

    def _commit_to(self, offset, count):
        assert offset["tokens"] == self.tokens_committed + count
        assert offset["tokens"] <= len(self.shown)
        assert offset["code_points"] >= self.code_points_committed
        self.tokens_committed = offset["tokens"]
        self.code_points_committed = offset["code_points"]
        committed = "".join(text for _, text in self.shown[: self.tokens_committed])
        assert self.code_points_committed == len(committed) + len(self.tail)
