"""The generated tokens of one answer and the text that each of them adds; can be cut back at any token. Pure.

A token's piece is what the text grows by when the token is appended: empty while a character is incomplete, all of it with
the token that completes it. So the text behind a token depends on the tokens before it alone, and cutting tokens cuts text.
"""

from __future__ import annotations

from collections.abc import Iterable

from speculation.text import Decode, TextStream, text_stream

__all__ = ["Answer", "Decode"]


class Answer:
    """Tokens with their pieces of text. ``decode`` is called with a few tokens of context, never with all of them."""

    def __init__(self, decode: Decode) -> None:
        self._token_ids: list[int] = []
        self._pieces: list[str] = []
        # Behind the first so many tokens: code points of their text, and the detokeniser.
        self._ends = [0]
        self._streams: list[TextStream] = [text_stream(decode)]

    def __len__(self) -> int:
        return len(self._token_ids)

    def extend(self, token_ids: Iterable[int]) -> None:
        for token_id in token_ids:
            piece, stream = self._streams[-1].after(token_id)
            self._token_ids.append(token_id)
            self._pieces.append(piece)
            self._ends.append(self._ends[-1] + len(piece))
            self._streams.append(stream)

    def cut(self, count: int) -> None:
        """Keep the first ``count`` tokens."""
        del self._token_ids[count:], self._pieces[count:], self._ends[count + 1 :], self._streams[count + 1 :]

    def shorten(self, code_points: int) -> None:
        """Drop what the last token's piece has beyond ``code_points``."""
        self._pieces[-1] = self._pieces[-1][: code_points - self._ends[-2]]
        self._ends[-1] = code_points

    def held_back(self) -> str:
        """What the tokens at the end would still add were they the last: incomplete characters, as replacement characters."""
        return self._streams[-1].fork().finish()

    def token_id(self, index: int) -> int:
        return self._token_ids[index]

    def token_ids(self, start: int = 0, stop: int | None = None) -> tuple[int, ...]:
        return tuple(self._token_ids[start:stop])

    def text(self, start: int = 0, stop: int | None = None) -> str:
        """The pieces of the tokens from ``start`` to ``stop``, joined."""
        return "".join(self._pieces[start:stop])

    def code_points(self, count: int) -> int:
        """Length of the text of the first ``count`` tokens."""
        return self._ends[count]

    def tokens_within(self, code_points: int, start: int) -> int:
        """How many tokens, at least ``start``, have all their text within the first ``code_points``."""
        count = start
        while count < len(self) and self._ends[count + 1] <= code_points:
            count += 1
        return count

    def tokens_reaching(self, code_points: int, start: int) -> int:
        """The smallest number of tokens, at least ``start``, whose text is no shorter than ``code_points``."""
        count = start
        while self._ends[count] < code_points:
            count += 1
        return count
