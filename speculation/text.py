"""From tokens to text, piece by piece: the incremental detokeniser and the search for stop strings. Pure.

Law: what was given out never changes. A token may end in the middle of a character, and a text in the middle of a stop
string; such an end is held back until more text, or the end of all text, decides it. How the tokens and the text were cut into
pieces never shows in what comes out.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from speculation.errors import InvalidRequestError

MAX_STOPS = 4
REPLACEMENT = "\ufffd"

# A window this long is cut, so that a push costs the same however long the text is.
_WINDOW_TOKENS = 16
# At its end a text may lack up to three bytes of a character; some decoders show each byte that is there as a U+FFFD.
_MAX_HELD = 3
_ONE_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")


Decode = Callable[[list[int]], str]


class TextStream(Protocol):
    """Tokens in, text out; the pieces joined, with ``finish()``, are the text of all the tokens."""

    def push(self, token_ids: Sequence[int]) -> str:
        """Append tokens; the text that they complete."""

    def finish(self) -> str:
        """What was held back: no more tokens will come."""

    def after(self, token_id: int) -> tuple[str, TextStream]:
        """What one more token completes, and a stream that stands behind it. This one stays where it is; where both stand alike
        they may be one, so nothing is to be pushed to either."""

    def fork(self) -> TextStream:
        """A copy that goes its own way (for text of tentative tokens)."""


def text_stream(decode: Decode) -> TextStream:
    """A stream at its beginning: over tokens' bytes where they are known, else by asking ``decode`` again and again."""
    return ByteStream(decode) if isinstance(decode, TokenBytes) else WindowStream(decode)


class TokenBytes:
    """Decodes by a table: the bytes of each token, joined and read as UTF-8. A token that is not in it has none.

    Of the spaces that a text begins with, ``num_dropped`` are left out. ``whole`` is the text of those tokens that were seen
    to hold complete characters.
    """

    __slots__ = ("num_dropped", "of", "whole")

    def __init__(self, of: Mapping[int, bytes], num_dropped: int = 0) -> None:
        self.of = of
        self.num_dropped = num_dropped
        self.whole: dict[int, str] = {}

    def __call__(self, token_ids: Sequence[int]) -> str:
        text = b"".join([self.of.get(token_id, b"") for token_id in token_ids]).decode("utf-8", "replace")
        return text[_num_spaces(text, self.num_dropped) :]


def _num_spaces(text: str, limit: int) -> int:
    """How many spaces a text begins with, ``limit`` at most."""
    return min(limit, len(text) - len(text.lstrip(" ")))


def token_bytes(tokenizer_json: str) -> TokenBytes | None:
    """The table of a ``tokenizer.json`` whose tokens stand for bytes, without special tokens; None where it decodes otherwise.

    They do in byte-level tokenizers, and in those that spell in bytes (``<0xE2>``) what they have no other token for. The
    latter's own decoder spoils whole characters beside bytes that are no UTF-8, which cannot be known while a text is shown as
    it comes; here such bytes become U+FFFD as everywhere else, and the characters stay.
    """
    tokenizer = json.loads(tokenizer_json)
    decoder = tokenizer.get("decoder") or {}
    steps = decoder.get("decoders", []) if decoder.get("type") == "Sequence" else [decoder]
    spelling = _byte_level(steps) or _byte_fallback(steps)
    if spelling is None:
        return None
    vocabulary = tokenizer["model"]["vocab"]
    tokens = vocabulary if isinstance(vocabulary, dict) else {entry[0]: number for number, entry in enumerate(vocabulary)}
    spelled = {number: token for token, number in tokens.items()}
    added = tokenizer.get("added_tokens", [])
    spelled |= {token["id"]: token["content"] for token in added}
    special = {token["id"] for token in added if token["special"]}
    bytes_of, num_dropped = spelling
    return TokenBytes({number: bytes_of(token) for number, token in spelled.items() if number not in special}, num_dropped)


_Spelling = tuple[Callable[[str], bytes], int]


def _byte_level(steps: Sequence[Mapping[str, Any]]) -> _Spelling | None:
    if [step.get("type") for step in steps] != ["ByteLevel"]:
        return None
    bytes_of = _bytes_of_letters()
    return lambda token: _spelled_bytes(token, bytes_of), 0


def _byte_fallback(steps: Sequence[Mapping[str, Any]]) -> _Spelling | None:
    """Letters exchanged, bytes read, all joined, and perhaps spaces dropped at the very beginning."""
    kinds = [step.get("type") for step in steps]
    if "ByteFallback" not in kinds:
        return None
    place = kinds.index("ByteFallback")
    pairs = [(step.get("pattern", {}).get("String"), step.get("content")) for step in steps[:place]]
    rest = steps[place + 2 :]
    are_known = kinds[:place] == ["Replace"] * place and all(old and isinstance(new, str) for old, new in pairs)
    drops = [step["start"] for step in rest if step.get("type") == "Strip" and step["content"] == " " and step["stop"] == 0]
    if not are_known or kinds[place + 1 : place + 2] != ["Fuse"] or not len(drops) == len(rest) <= 1:
        return None

    def bytes_of(token: str) -> bytes:
        for old, new in pairs:
            token = token.replace(str(old), str(new))
        return bytes.fromhex(token[3:5]) if _ONE_BYTE.fullmatch(token) else token.encode()

    return bytes_of, sum(drops)


def _spelled_bytes(token: str, bytes_of: Mapping[str, int]) -> bytes:
    """A token with any letter that stands for no byte stands for itself."""
    if all(letter in bytes_of for letter in token):
        return bytes([bytes_of[letter] for letter in token])
    return token.encode()


def _bytes_of_letters() -> dict[str, int]:
    """GPT-2's letters for bytes: printable ones stand for themselves, the others are letters from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


class ByteStream:
    """A ``TextStream`` over the bytes of tokens: it remembers what a character still lacks, and spaces yet to be dropped."""

    __slots__ = ("_num_dropped", "_pending", "_table")

    def __init__(self, table: TokenBytes, pending: bytes = b"", num_dropped: int | None = None) -> None:
        self._table = table
        self._pending = pending
        self._num_dropped = table.num_dropped if num_dropped is None else num_dropped

    def push(self, token_ids: Sequence[int]) -> str:
        of = self._table.of
        data = self._pending + b"".join([of.get(token_id, b"") for token_id in token_ids])
        text, num_read = codecs.utf_8_decode(data, "replace", False)
        self._pending = data[num_read:]
        return self._begun(text) if self._num_dropped else text

    def finish(self) -> str:
        text, self._pending = self._pending.decode("utf-8", "replace"), b""
        return text

    def after(self, token_id: int) -> tuple[str, ByteStream]:
        is_between = not (self._pending or self._num_dropped)
        if is_between and (text := self._table.whole.get(token_id)) is not None:
            return text, self  # a stream between two characters is like any other there
        behind = self.fork()
        text = behind.push((token_id,))
        if is_between and not behind._pending:
            self._table.whole[token_id] = text
        return text, behind

    def fork(self) -> ByteStream:
        return ByteStream(self._table, self._pending, self._num_dropped)

    def _begun(self, text: str) -> str:
        """The text without the spaces that are to be dropped before anything else."""
        num_spaces = _num_spaces(text, self._num_dropped)
        self._num_dropped = self._num_dropped - num_spaces if num_spaces == len(text) else 0
        return text[num_spaces:]


class WindowStream:
    """A ``TextStream`` for any decoder; the pieces joined, with ``finish()``, are ``decode`` of all the tokens.

    ``decode`` maps token ids to text as a byte-level tokenizer does: the tokens' bytes are joined, then read as UTF-8, and what
    cannot be read becomes U+FFFD (one for each maximal subpart, as Unicode recommends). A decoder that also drops a space at
    the very beginning works too, since tokens are decoded together with some that came before.
    """

    __slots__ = ("_decode", "_limit", "_num_shown", "_window")

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._window: list[int] = []  # the latest tokens, some already shown
        self._num_shown = 0  # code points of the window's text that were given out
        self._limit = _WINDOW_TOKENS

    def push(self, token_ids: Sequence[int]) -> str:
        if not token_ids:
            return ""
        self._window.extend(token_ids)
        text = self._decode(self._window)
        # An incomplete character shows as U+FFFD at the end, as one or as one for each of its bytes; all before it is settled.
        num_held = min(_MAX_HELD, len(text) - len(text.rstrip(REPLACEMENT)))
        piece = text[self._num_shown : len(text) - num_held]
        self._num_shown += len(piece)
        if len(self._window) > self._limit:
            self._shorten(text)
        return piece

    def finish(self) -> str:
        text = self._decode(self._window) if self._window else ""
        piece = text[self._num_shown :]
        self._num_shown += len(piece)
        return piece

    def after(self, token_id: int) -> tuple[str, WindowStream]:
        behind = self.fork()
        return behind.push((token_id,)), behind

    def fork(self) -> WindowStream:
        copy = WindowStream(self._decode)
        copy._window, copy._num_shown, copy._limit = self._window.copy(), self._num_shown, self._limit
        return copy

    def _shorten(self, text: str) -> None:
        """Drop old tokens at the last place where no character straddles the cut.

        That holds where the text before the cut is complete; and also where both parts decode to the whole, because a
        character across the cut would show as more than one U+FFFD in the parts.
        """
        for cut in range(len(self._window) - 2, 0, -1):
            before, after = self._decode(self._window[:cut]), self._decode(self._window[cut:])
            is_complete = before != "" and not before.endswith(REPLACEMENT)
            is_shown = len(text) - len(after) <= self._num_shown
            if after and is_shown and (is_complete or before + after == text):
                self._num_shown -= len(text) - len(after)
                del self._window[:cut]
                self._limit = len(self._window) + _WINDOW_TOKENS
                return
        self._limit = 2 * len(self._window)  # only tokens without text: look again when there are twice as many


class StopStrings:
    """Where the first of some strings begins in a text. Immutable.

    Raises ``InvalidRequestError`` unless there are 1 to ``MAX_STOPS`` strings, none empty.
    """

    __slots__ = ("stops",)

    def __init__(self, stops: Sequence[str]) -> None:
        if isinstance(stops, str) or not 1 <= len(stops) <= MAX_STOPS:
            raise InvalidRequestError(f"stop must be a list of 1 to {MAX_STOPS} strings", "stop")
        if not all(isinstance(stop, str) and stop for stop in stops):
            raise InvalidRequestError("stop strings must be strings that are not empty", "stop")
        self.stops = tuple(dict.fromkeys(stops))

    def find(self, text: str) -> int | None:
        """The code point at which the earliest match begins in a whole text, or None."""
        return min((start for stop in self.stops if (start := text.find(stop)) >= 0), default=None)

    def held_back(self, text: str) -> int:
        """How many code points at the end of a text without a match may be the beginning of one."""
        return max(_overlap(text, stop) for stop in self.stops)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``stop``."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)
