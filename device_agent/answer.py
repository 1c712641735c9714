"""The generated tokens of one answer and the text that each of them adds; can be cut back at any token. Pure.

A token's piece is what the text grows by when the token is appended: empty while a character is incomplete, all of it with
the token that completes it. So the text behind a token depends on the tokens before it alone, and cutting tokens cuts text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Decode = Callable[[list[int]], str]
INCOMPLETE = "\ufffd"


@dataclass(slots=True)
class _Token:
    """``end``: code points of the text up to and with this token. ``window``: first token of the decoding that gave the piece,
    and the first one behind it whose text is still held back."""

    token_id: int
    piece: str
    end: int
    window: tuple[int, int]


class Answer:
    """Tokens with their pieces of text. ``decode`` is called with a few tokens of context, never with all of them."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._tokens: list[_Token] = []

    def __len__(self) -> int:
        return len(self._tokens)

    def append(self, token_id: int) -> None:
        start, held = self._tokens[-1].window if self._tokens else (0, 0)
        context = [token.token_id for token in self._tokens[start:]]
        before = self._decode(context[: held - start]) if held > start else ""
        now = self._decode([*context, token_id])
        piece = ""
        if len(now) > len(before) and not now.endswith(INCOMPLETE):
            piece, start, held = now[len(before) :], held, len(self._tokens) + 1
        self._tokens.append(_Token(token_id, piece, self.code_points(len(self)) + len(piece), (start, held)))

    def cut(self, count: int) -> None:
        """Keep the first ``count`` tokens."""
        del self._tokens[count:]

    def shorten(self, code_points: int) -> None:
        """Drop what the last token's piece has beyond ``code_points``."""
        last = self._tokens[-1]
        last.piece = last.piece[: len(last.piece) - (last.end - code_points)]
        last.end = code_points

    def held_back(self) -> str:
        """What the tokens at the end would still add were they the last: incomplete characters, as replacement characters."""
        if not self._tokens:
            return ""
        start, held = self._tokens[-1].window
        context = [token.token_id for token in self._tokens[start:]]
        before = self._decode(context[: held - start]) if held > start else ""
        return self._decode(context)[len(before) :]

    def token_id(self, index: int) -> int:
        return self._tokens[index].token_id

    def token_ids(self, start: int = 0, stop: int | None = None) -> tuple[int, ...]:
        return tuple([token.token_id for token in self._tokens[start:stop]])

    def text(self, start: int = 0, stop: int | None = None) -> str:
        """The pieces of the tokens from ``start`` to ``stop``, joined."""
        return "".join([token.piece for token in self._tokens[start:stop]])

    def code_points(self, count: int) -> int:
        """Length of the text of the first ``count`` tokens."""
        return self._tokens[count - 1].end if count else 0

    def tokens_within(self, code_points: int, start: int) -> int:
        """How many tokens, at least ``start``, have all their text within the first ``code_points``."""
        count = start
        while count < len(self._tokens) and self._tokens[count].end <= code_points:
            count += 1
        return count

    def tokens_reaching(self, code_points: int, start: int) -> int:
        """The smallest number of tokens, at least ``start``, whose text is no shorter than ``code_points``."""
        count = start
        while self.code_points(count) < code_points:
            count += 1
        return count


def find_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the earliest stop string begins, None where there is none."""
    found = [index for stop in stops if (index := text.find(stop)) >= 0]
    return min(found, default=None)


def open_end(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of ``text`` that may grow into a stop string."""
    return max((_overlap(text, stop) for stop in stops), default=0)


def _overlap(text: str, stop: str) -> int:
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
