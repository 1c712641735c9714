"""The generated tokens of one answer and the text that each of them adds; can be cut back at any token. Pure.

A token's piece is what the text grows by when the token is appended: empty while a character is incomplete, all of it with
the token that completes it. So the text behind a token depends on the tokens before it alone, and cutting tokens cuts text.
"""

from __future__ import annotations

from dataclasses import dataclass

from speculation.text import Decode, TextStream, text_stream

__all__ = ["Answer", "Decode"]


@dataclass(slots=True)
class _Token:
    """``end``: code points of the text up to and with this token. ``stream``: the detokeniser behind it."""

    token_id: int
    piece: str
    end: int
    stream: TextStream


class Answer:
    """Tokens with their pieces of text. ``decode`` is called with a few tokens of context, never with all of them."""

    def __init__(self, decode: Decode) -> None:
        self._empty = text_stream(decode)
        self._tokens: list[_Token] = []

    def __len__(self) -> int:
        return len(self._tokens)

    def append(self, token_id: int) -> None:
        stream = self._stream().fork()
        piece = stream.push((token_id,))
        self._tokens.append(_Token(token_id, piece, self.code_points(len(self)) + len(piece), stream))

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
        return self._stream().fork().finish()

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

    def _stream(self) -> TextStream:
        return self._tokens[-1].stream if self._tokens else self._empty
