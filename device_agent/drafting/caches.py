"""The draft model's caches of one stream: each holds some path of tokens, and every path finds the cache that knows most of it.

Books are kept on the event loop and say what the caches will hold once all steps given out so far are done. Pure; the engine's
thread gets what to do as values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from speculation.engines.base import CacheId


@dataclass(slots=True, eq=False)
class Slot:
    """``cache`` belongs to the engine's thread, None until it is opened there. It holds the first ``num_final`` tokens of the
    final log and ``tail`` behind them; a tail stands on the whole log."""

    cache: CacheId | None = None
    num_final: int = 0
    tail: list[int] = field(default_factory=list)
    was_cut: bool = False
    is_given_back: bool = False
    last_used: int = 0

    def __len__(self) -> int:
        return self.num_final + len(self.tail)


@dataclass(frozen=True, slots=True)
class Feed:
    """Bring ``slot`` to ``length`` tokens (cut back, or a copy of ``source``'s first ones), then feed ``token_ids``.

    ``turn``: the feeds of one step are brought there in this order, as copies build on each other; all are fed afterwards.
    """

    slot: Slot
    length: int
    token_ids: Sequence[int]
    source: Slot | None = None
    turn: int = 0


class Caches:
    """At most ``limit`` caches over one final log."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._turn = 0
        self.slots: list[Slot] = [Slot()]

    def feeds(self, final: Sequence[int], paths: Sequence[Sequence[int]]) -> list[Feed]:
        """What to do so that a different cache ends with each path (tokens behind the final log; none twice)."""
        self._turn += 1
        contents = [(slot, len(slot), list(slot.tail)) for slot in self.slots]
        # Who only goes on in its own cache first, so that nobody takes that cache from it.
        order = sorted(range(len(paths)), key=lambda i: not _goes_on(final, paths[i], contents))
        feeds = {i: self._feed(turn, final, paths[i], contents) for turn, i in enumerate(order)}
        return [feeds[i] for i in range(len(paths))]

    def settle(self, num_final: int, token_ids: Sequence[int]) -> None:
        """Tokens became final behind ``num_final`` others."""
        for slot in self.slots:
            if not slot.tail:
                continue
            agreed = 0
            if slot.num_final == num_final:
                while agreed < min(len(token_ids), len(slot.tail)) and slot.tail[agreed] == token_ids[agreed]:
                    agreed += 1
            slot.num_final += agreed
            slot.was_cut |= agreed < len(slot.tail) and agreed < len(token_ids)
            slot.tail = slot.tail[agreed:] if agreed == len(token_ids) else []

    def fed_more(self, slot: Slot, token_ids: Sequence[int], final: Sequence[int]) -> None:
        """A step went on by itself: so many tokens more are in its cache, unless verdicts overtook them."""
        for token_id in token_ids:
            if slot.was_cut:
                return
            if slot.num_final < len(final) and not slot.tail:
                slot.was_cut = final[slot.num_final] != token_id
                slot.num_final += not slot.was_cut
            else:
                slot.tail.append(token_id)

    def _feed(self, turn: int, final: Sequence[int], path: Sequence[int], contents: list[tuple[Slot, int, list[int]]]) -> Feed:
        best, length, common = max(
            ((slot, length, _common(length, tail, final, path)) for slot, length, tail in contents),
            key=lambda entry: (entry[2], -entry[1]),
        )
        target = self._target(best, common < length)
        source = best if target is not best and common else None
        contents[:] = [entry for entry in contents if entry[0] is not target]
        contents.append((target, common, list(path[: max(0, common - len(final))])))
        target.num_final = len(final)
        target.tail = list(path)
        target.was_cut = False
        target.last_used = self._turn
        token_ids = [*final[common:], *path] if common < len(final) else list(path[common - len(final) :])
        return Feed(target, common, token_ids, source, turn)

    def _target(self, best: Slot, would_lose: bool) -> Slot:
        """The slot that gets the path: the best one, or one to copy into where the best is taken or holds more."""
        is_taken = best.last_used == self._turn
        if not is_taken and not would_lose:
            return best
        if len(self.slots) < self._limit:
            self.slots.append(Slot())
            return self.slots[-1]
        free = [slot for slot in self.slots if slot.last_used != self._turn]
        others = [slot for slot in free if slot is not best]
        return min(others, key=lambda slot: slot.last_used) if others else best


def _goes_on(final: Sequence[int], path: Sequence[int], contents: Sequence[tuple[Slot, int, list[int]]]) -> bool:
    """Whether some cache holds a beginning of the path and nothing else."""
    return any(_common(length, tail, final, path) == length for _, length, tail in contents if length)


def _common(length: int, tail: Sequence[int], final: Sequence[int], path: Sequence[int]) -> int:
    """Tokens that a slot's content shares with the final log and the path; at least one token is left to feed."""
    shared = length - len(tail)
    if shared == len(final):
        if tail == path[: len(tail)]:
            shared += len(tail)
        else:
            shared += next(i for i, (a, b) in enumerate(zip([*tail, -1], [*path, -2], strict=False)) if a != b)
    return min(shared, len(final) + len(path) - 1)
