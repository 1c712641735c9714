"""What the device has drafted behind the final log: a tree of branches, and how likely each of them is. Pure.

The root is the log's last token. A branch is *extended* once the draft has proposed what follows it; a leaf is a live branch
that is not. Choices behind the first stay on the device until one of them is extended: alone they would tell the verifier
nothing.

Of a position's choices the likeliest comes first, by what verdicts taught: it is what a reader is shown and what a pass checks.
That is nearly always the draft's own first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from speculation.values import value

LEAST_CHANCE = 1e-6
"""Chances below are taken as this much, so that their logarithm is finite."""

LEAD = 0.1
"""A choice whose chance is so much higher than that of the draft's own first goes before it: less is within what a few
comparisons may be off."""

LEAST_OF_THIRD = 0.02
"""A third choice, and one behind it, is a branch only where its chance, given its parent, is this much: others would be
leaves that no policy selects. A token that is none is drafted from like any other once the log has taken it."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the draft says of one position: its first choices in its own order, one at least, with its confidence in each, 0 to
    1, as the model gives it. ``is_copied``: no model said so, the text did (``copying.py``)."""

    token_ids: tuple[int, ...]
    confidences: tuple[float, ...]
    is_copied: bool = False

    @property
    def token_id(self) -> int:
        """The draft's own choice."""
        return self.token_ids[0]


@dataclass(slots=True, eq=False)
class Branch:
    """One token at an absolute ``position``, behind ``parent``. ``handle`` is the session's name of the node, 0 while not told.

    ``rank`` is its place among its siblings by likelihood, ``choice`` its place in the draft's own order. ``chance``: that the
    full model takes the token, given that it took the parent. ``log_chance`` adds up from a fixed past, so only differences
    mean something. ``proposal`` is what the draft said of the next position, None until the branch is extended.
    """

    token_id: int
    rank: int
    position: int
    parent: Branch | None
    choice: int = 0
    chance: float = 1.0
    log_chance: float = 0.0
    handle: int = 0
    is_growing: bool = False
    proposal: Proposal | None = None
    is_alive: bool = True
    children: list[Branch] = field(default_factory=list)


@value
class Settled:
    """How final tokens compare with what was drafted in their places.

    ``agreed`` are the branches of the main one that the log took, ``contradicted`` the one behind them that it did not.
    ``compared`` are all that the draft said along the log, on whatever branch, each with the token that the log took.
    """

    agreed: Sequence[Branch]
    contradicted: Branch | None
    compared: Sequence[tuple[Proposal, int]]


NOTHING_COMPARED = Settled((), None, ())


class Branches:
    """The tree. ``main`` is the chain of likeliest choices behind the log's end: what a reader is shown."""

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

    def extend(self, leaf: Branch, proposal: Proposal, chances: Sequence[float]) -> list[Branch]:
        """Hang what the draft proposes behind a live leaf; returns the new branches, by rank.

        ``chances`` are those of the proposal's choices, given the leaf.
        """
        self._leaves.pop(leaf, None)
        leaf.proposal, leaf.is_growing = proposal, False
        is_main = leaf is self.tip
        ranked = enumerate(_ranking(chances))
        grown = [self._hang(leaf, proposal.token_ids[choice], rank, choice, chances[choice]) for rank, choice in ranked]
        if is_main:
            self.main.append(grown[0])
        return grown

    def prune(self, limit: int) -> None:
        """Forget the least likely leaves beyond ``limit``; those of rank 0 stay."""
        if len(self._leaves) <= limit:
            return
        by_chance = sorted(self._leaves, key=lambda leaf: -leaf.log_chance)
        tip = self.tip
        for leaf in by_chance[limit:]:
            if leaf is not tip and leaf.rank:
                del self._leaves[leaf]

    def settle(self, token_ids: Sequence[int]) -> Settled:
        """Tokens became final: the log's end moves on, what contradicts it dies."""
        root, main = self.root, self.main
        if not root.children and root.proposal is None and not root.is_growing:
            self._move_on(token_ids)
            return NOTHING_COMPARED
        count = 0
        while count < len(token_ids) and count < len(main) and main[count].token_id == token_ids[count]:
            count += 1
        contradicted = main[count] if count < len(token_ids) and count < len(main) else None
        settled = Settled(main[:count], contradicted, self._compared(token_ids))
        for token_id in token_ids:
            self._advance(token_id)
        self.main = main[count:] if count == len(token_ids) else self._likeliest_choices()
        return settled

    def _move_on(self, token_ids: Sequence[int]) -> None:
        """Nothing is drafted, nor about to be: of the log's end only its place is another."""
        if token_ids:
            old = self.root
            old.is_alive = False
            # By place: there is one for each token of an answer without drafts.
            self.root = root = Branch(token_ids[-1], 0, old.position + len(token_ids), None, 0, 1.0, old.log_chance)
            self._leaves = {root: None}

    def _hang(self, parent: Branch, token_id: int, rank: int, choice: int, chance: float) -> Branch:
        log_chance = parent.log_chance + math.log(max(chance, LEAST_CHANCE))
        branch = Branch(token_id, rank, parent.position + 1, parent, choice, chance, log_chance)
        parent.children.append(branch)
        self._leaves[branch] = None
        return branch

    def _compared(self, token_ids: Sequence[int]) -> list[tuple[Proposal, int]]:
        compared = []
        node: Branch | None = self.root
        for token_id in token_ids:
            if node is None or node.proposal is None:
                break
            compared.append((node.proposal, token_id))
            node = next((child for child in node.children if child.token_id == token_id), None)
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
        elif survivor.proposal is None and not survivor.is_growing:
            # A pruned or an unsent choice: it can grow again now that it is the log's end.
            self._leaves.setdefault(survivor)
        survivor.parent = None
        self.root = survivor

    def _kill(self, branch: Branch) -> None:
        dead = [branch]
        for node in dead:  # grows while it is walked
            node.is_alive = False
            self._leaves.pop(node, None)
            dead.extend(node.children)

    def _likeliest_choices(self) -> list[Branch]:
        chain = []
        node = self.root
        while node.children:
            node = node.children[0]
            chain.append(node)
        return chain


def _ranking(chances: Sequence[float]) -> list[int]:
    """The choices that become branches, the likeliest first; the draft's own first stays ahead of those that hardly lead it."""
    kept = [choice for choice, chance in enumerate(chances) if choice < 2 or chance >= LEAST_OF_THIRD]
    ranked = sorted(kept, key=lambda choice: -chances[choice])
    if chances[ranked[0]] <= chances[0] + LEAD:
        ranked.remove(0)
        ranked.insert(0, 0)
    return ranked


def num_agreed(final: Sequence[int], leaf: Branch, chain: Sequence[Proposal]) -> int:
    """How many of a chain behind a final leaf equal what the log took there, up to the first that does not."""
    pairs = zip(final[leaf.position + 1 :], chain, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1].token_id, pairs))
