"""A display as its tests begin it, and a client that follows it."""

from __future__ import annotations

import itertools

from device_agent.display import Display
from device_agent.request import Reveal
from tests.device_agent.replay import Replay

WORDS = [
    b"a",
    b"b",
    b"ab",
    b"ba",
    b"\xc3",
    b"\xa9",
    b"\xe2\x82",
    b"\xac",
    b"\xff",
    b" ",
    b"",
    "é".encode(),
    "€x".encode(),
    b"aXb",
    b"aX\xc3",
]
PROMPT_LENGTH = 3


def decode(token_ids: list[int]) -> str:
    return b"".join(WORDS[token_id] for token_id in token_ids).decode(errors="replace")


class Screen:
    """A display and a client that follows it."""

    def __init__(self, reveal=Reveal.ALL, min_stability=0.5, stops=()):
        self.display = Display(PROMPT_LENGTH, decode, itertools.count(), reveal, min_stability, stops)
        self.replay = Replay()

    def drafted(self, token_ids, confidence=0.9):
        for token_id in token_ids:
            self.follow(self.display.drafted(token_id, confidence))

    def final(self, token_ids):
        self.follow(self.display.finalised(token_ids))

    def reassessed(self, confidences):
        whole = itertools.islice(itertools.cycle(confidences), self.display.num_drafts)
        return self.follow(self.display.reassessed(list(whole)))

    def finish(self, max_drafts=0):
        self.follow(self.display.finish(max_drafts))
        self.check()

    def follow(self, events):
        for event in events:
            self.replay.feed(event.to_json())
        return events

    def check(self):
        assert self.replay.token_ids == list(self.display.token_ids)
        assert self.replay.text == self.display.text
        assert self.replay.tokens_committed == self.display.num_final
