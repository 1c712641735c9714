"""What the device has drafted behind the final log: a tree of branches, and how likely each of them is. Pure.

The root is the log's last token. A branch is *extended* once the draft has proposed what follows it; a leaf is a live branch
that is not. Second choices stay on the device until one of them is extended: alone they would tell the verifier nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

LEAST_CHANCE = 1e-6
"""Chances below are taken as this much, so that their logarithm is finite."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the draft says of one position: its choice and its runner-up (None where there is none), with its confidence in
    each, 0 to 1, as the model gives it."""

    token_id: int
    confidence: float
    second: int | None = None
    second_confidence: float = 0.0


@dataclass(slots=True, eq=False)
class Branch:
    """One token at an absolute ``position``, behind ``parent``. ``handle`` is the session's name of the node, 0 while not told.

    ``chance``: that the full model takes the token, given that it took the parent. ``log_chance`` adds up from a fixed past, so
    only differences mean something.
    """

    token_id: int
    rank: int
    position: int
    parent: Branch | None
    confidence: float = 1.0
    chance: float = 1.0
    log_chance: float = 0.0
    handle: int = 0
    is_growing: bool = False
    is_extended: bool = False
    is_alive: bool = True
    children: list[Branch] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Settled:
    """How final tokens compare with what was drafted in their places.

    ``agreed`` are the branches of the main one that the log took, ``contradicted`` the one behind them that it did not.
    ``compared_seconds`` are the second choices at those positions, and whether the log took them.
    """

    agreed: Sequence[Branch]
    contradicted: Branch | None
    compared_seconds: Sequence[tuple[Branch, bool]]


class Branches:
    """The tree. ``main`` is the chain of first choices behind the log's end: what a reader is shown."""

    def __init__(self, last_token_id: int, position: int) -> None:
        self.root = Branch(last_token_id, 0, position, None)
        self.main: list[Branch] = []
        self._leaves: dict[Branch, None] = {self.root: None}

    @property
    def tip(self) -> Branch:
        """The end of the main branch; the root where nothing is drafted."""
        return self.main[-1] if self.main else self.root

    @property
    def leaves(self) -> Sequence[Branch]:
        """Live branches that nothing was proposed behind, and that nobody is extending."""
        return list(self._leaves)

    def chance_of(self, branch: Branch) -> float:
        """That the full model takes the whole path from the log's end to the branch."""
        return math.exp(min(0.0, branch.log_chance - self.root.log_chance))

    def path(self, branch: Branch) -> list[Branch]:
        """From behind the log's end to the branch; empty for the root."""
        path = []
        node: Branch | None = branch
        while node is not None and node is not self.root:
            path.append(node)
            node = node.parent
        return path[::-1]

    def begin(self, leaf: Branch) -> None:
        """Somebody is extending the leaf now."""
        leaf.is_growing = True
        self._leaves.pop(leaf, None)

    def extend(self, leaf: Branch, proposal: Proposal, chances: tuple[float, float], with_second: bool) -> list[Branch]:
        """Hang the draft's choice, and its runner-up where wanted, behind a live leaf; returns the new branches.

        ``chances`` are those of the two, given the leaf.
        """
        self._leaves.pop(leaf, None)
        leaf.is_extended, leaf.is_growing = True, False
        first = self._hang(leaf, proposal.token_id, 0, proposal.confidence, chances[0])
        if leaf is self.tip:
            self.main.append(first)
        if not with_second or proposal.second is None:
            return [first]
        return [first, self._hang(leaf, proposal.second, 1, proposal.second_confidence, chances[1])]

    def prune(self, limit: int) -> None:
        """Forget the least likely leaves beyond ``limit``; first choices of the main branch stay."""
        if len(self._leaves) <= limit:
            return
        by_chance = sorted(self._leaves, key=lambda leaf: -leaf.log_chance)
        tip = self.tip
        for leaf in by_chance[limit:]:
            if leaf is not tip and leaf.rank:
                del self._leaves[leaf]

    def settle(self, token_ids: Sequence[int]) -> Settled:
        """Tokens became final: the log's end moves on, what contradicts it dies."""
        main = self.main
        count = 0
        while count < len(token_ids) and count < len(main) and main[count].token_id == token_ids[count]:
            count += 1
        contradicted = main[count] if count < len(token_ids) and count < len(main) else None
        seconds = self._compared_seconds(token_ids, count)
        settled = Settled(main[:count], contradicted, seconds)
        for token_id in token_ids:
            self._advance(token_id)
        self.main = main[count:] if count == len(token_ids) else self._first_choices()
        return settled

    def _hang(self, parent: Branch, token_id: int, rank: int, confidence: float, chance: float) -> Branch:
        log_chance = parent.log_chance + math.log(max(chance, LEAST_CHANCE))
        branch = Branch(token_id, rank, parent.position + 1, parent, confidence, chance, log_chance)
        parent.children.append(branch)
        self._leaves[branch] = None
        return branch

    def _compared_seconds(self, token_ids: Sequence[int], count: int) -> list[tuple[Branch, bool]]:
        compared = []
        parent = self.root
        for index, token_id in enumerate(token_ids[: count + 1]):
            for child in parent.children:
                if child.rank == 1:
                    compared.append((child, child.token_id == token_id))
            if index < count:
                parent = self.main[index]
        return compared

    def _advance(self, token_id: int) -> None:
        survivor: Branch | None = None
        old = self.root
        for child in old.children:
            if child.token_id == token_id and survivor is None:
                survivor = child
            else:
                self._kill(child)
        self._leaves.pop(old, None)
        old.is_alive = False
        if survivor is None:
            survivor = Branch(token_id, 0, old.position + 1, None, log_chance=old.log_chance)
            self._leaves[survivor] = None
        elif not survivor.is_extended and not survivor.is_growing:
            # A pruned or an unsent second choice: it can grow again now that it is the log's end.
            self._leaves.setdefault(survivor)
        survivor.parent = None
        self.root = survivor

    def _kill(self, branch: Branch) -> None:
        dead = [branch]
        for node in dead:  # grows while it is walked
            node.is_alive = False
            self._leaves.pop(node, None)
            dead.extend(node.children)

    def _first_choices(self) -> list[Branch]:
        chain = []
        node = self.root
        while node.children:
            node = node.children[0]
            chain.append(node)
        return chain
