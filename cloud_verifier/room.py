"""How much memory the caches of sessions may take, counted in size classes. Pure; whoever counts gives and takes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable

from speculation.errors import ConfigurationError

SHARES = (4, 2, 1)
"""A cache is counted as this part of a whole context: the smallest that holds all that its session may become."""


class Room:
    """``limit_bytes`` for caches; ``bytes_of`` says what a cache takes that never was longer than so many tokens.
    ``whose`` tells in a refusal what the limit is a part of.

    Raises ``ConfigurationError`` where not even one whole context fits: then some requests could never be served.
    """

    def __init__(self, limit_bytes: float, context_length: int, bytes_of: Callable[[int], int], whose: str = "") -> None:
        self.limit_bytes = limit_bytes
        self._classes = [(math.ceil(context_length / share), f"1/{share}") for share in SHARES]
        self._sizes = [(most, bytes_of(most)) for most, _ in self._classes]
        self._taken: dict[Hashable, int] = {}
        whole = self._sizes[-1][1]
        if whole > limit_bytes:
            raise ConfigurationError(
                f"cache_bytes: {limit_bytes}{whose} do not hold one context of {context_length} tokens, which takes {whole}"
            )

    @property
    def free_bytes(self) -> float:
        return self.limit_bytes - sum(self._taken.values())

    @property
    def taken_bytes(self) -> dict[str, int]:
        """What is taken, by class, those without any included. Of classes of one size the smallest stands for all: in a short
        context pages make them equal."""
        taken = Counter(self._taken.values())
        return {name: size * taken.pop(size, 0) for (_, name), (_, size) in zip(self._classes, self._sizes, strict=True)}

    def size_of(self, num_tokens: int) -> int:
        """The class that holds so many tokens, at most a context, in bytes."""
        return next((size for most, size in self._sizes if num_tokens <= most), self._sizes[-1][1])

    def fits(self, size: int) -> bool:
        return size <= self.free_bytes

    def size_held(self, owner: Hashable) -> int:
        """What an owner has; 0 where that is nothing."""
        return self._taken.get(owner, 0)

    def take(self, owner: Hashable, size: int) -> None:
        """Count a class for an owner, which has none. Nothing is refused here: what is counted may be there already."""
        self._taken[owner] = size

    def leave(self, owner: Hashable) -> int:
        """Count an owner's class no more; its size comes back, 0 where it had none."""
        return self._taken.pop(owner, 0)


def unlimited() -> Room:
    """Room where nothing is counted."""
    return Room(math.inf, 1, lambda _: 0)
