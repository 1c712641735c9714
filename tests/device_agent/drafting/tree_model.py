"""What the tree of drafts ought to be, by brute force: a plain set of token paths, all from the beginning of the log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Path = tuple[int, ...]


@dataclass
class TreeModel:
    """``ranks`` and ``chances`` of every drafted path, dead or alive; ``final`` is the log."""

    final: Path
    ranks: dict[Path, int] = field(default_factory=dict)
    chances: dict[Path, float] = field(default_factory=dict)
    extended: set[Path] = field(default_factory=set)
    growing: set[Path] = field(default_factory=set)
    forgotten: set[Path] = field(default_factory=set)

    def is_alive(self, path: Path) -> bool:
        return path[: len(self.final)] == self.final

    def alive(self) -> list[Path]:
        return [self.final, *(path for path in self.ranks if self.is_alive(path) and path != self.final)]

    def child(self, path: Path, rank: int) -> Path | None:
        found = [other for other, its in self.ranks.items() if other[:-1] == path and its == rank]
        return found[0] if found else None

    def main(self) -> list[Path]:
        chain, node = [], self.child(self.final, 0)
        while node is not None:
            chain.append(node)
            node = self.child(node, 0)
        return chain

    def tip(self) -> Path:
        return (self.main() or [self.final])[-1]

    def leaves(self) -> set[Path]:
        hidden = self.extended | self.growing | (self.forgotten - {self.final})
        return set(self.alive()) - hidden

    def chance_of(self, path: Path) -> float:
        return math.prod(self.chances[path[:end]] for end in range(len(self.final) + 1, len(path) + 1))

    def extend(self, path: Path, tokens: Sequence[int], chances: Sequence[float]) -> None:
        self.growing.discard(path)
        self.extended.add(path)
        for rank, (token_id, chance) in enumerate(zip(tokens, chances, strict=False)):
            self.ranks[(*path, token_id)] = rank
            self.chances[(*path, token_id)] = chance

    def settle(self, token_ids: Sequence[int]) -> tuple[list[Path], Path | None]:
        """The log grows. Returns what agreed, and what was contradicted."""
        after = (*self.final, *token_ids)
        main = self.main()
        agreed = [path for path in main if path == after[: len(path)]]
        compared = [path for path in main if len(path) <= len(after) and path[:-1] == after[: len(path) - 1]]
        contradicted = [path for path in compared if path not in agreed]
        self.final = after
        return agreed, (contradicted or [None])[0]
