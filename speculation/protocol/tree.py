"""The tree of drafts that hangs off the end of a final log; both sessions keep one.

The law of a node: it is *pending* until the log reaches its position. Then it is *final*, if its token is the one the log
took there and its parent is final, else *dead*, and with it everything below it. Nothing else ever changes a node, so
both ends reach the same state from the same log, in whatever order drafts and verdicts crossed.

Every node enters once and leaves once: the cost of all calls together is linear in nodes added and tokens made final.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterator
from dataclasses import dataclass, field


class NodeState(enum.Enum):
    """What is known of a drafted token."""

    PENDING = "pending"
    FINAL = "final"
    DEAD = "dead"


# Looked up once: in CPython 3.11 a member of an enumeration is found by way of its class's class, every time.
_PENDING, _FINAL, _DEAD = NodeState.PENDING, NodeState.FINAL, NodeState.DEAD


@dataclass(slots=True, eq=False)
class TreeNode:
    """One drafted token at an absolute ``position``. ``parent`` is None where it hangs off the log's end.

    ``number`` is its number on the stream (0: not sent) and ``aliases`` further numbers of the same node; ``handle`` is the
    device's own name for it, which outlives streams.
    """

    token_id: int
    rank: int
    position: int
    parent: TreeNode | None
    number: int = 0
    handle: int = 0
    state: NodeState = _PENDING
    aliases: list[int] = field(default_factory=list)
    children: dict[int, TreeNode] = field(default_factory=dict)


class DraftTree:
    """All pending nodes behind a final log of ``length`` tokens."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._tips: dict[int, TreeNode] = {}

    def add(self, parent: TreeNode | None, token_id: int, rank: int) -> tuple[TreeNode, bool]:
        """Hang a token off a pending node, or off the log's end; returns its node, and whether the node is new."""
        siblings = self._tips if parent is None else parent.children
        node = siblings.get(token_id)
        if node is not None:
            return node, False
        position = self._length if parent is None else parent.position + 1
        node = siblings[token_id] = TreeNode(token_id, rank, position, parent)
        return node, True

    def advance(self, token_id: int) -> tuple[TreeNode | None, list[TreeNode]]:
        """The log took a token. Returns the node that is final by it, if one is, and all nodes that died of it."""
        tips = self._tips
        survivor = tips.pop(token_id, None)
        lost = _bury(list(tips.values())) if tips else []
        self._length += 1
        if survivor is None:
            self._tips = {}
            return None, lost
        survivor.state = _FINAL
        self._tips = below = survivor.children
        survivor.children = {}
        for tip in below.values():
            tip.parent = None
        return survivor, lost

    def pass_by(self, num_tokens: int) -> None:
        """The log took so many tokens, and nothing hangs off its end."""
        self._length += num_tokens

    @property
    def first(self) -> TreeNode | None:
        """The likeliest token behind the log's end, if any is drafted."""
        return _first(self._tips) if self._tips else None

    def likeliest(self) -> Iterator[TreeNode]:
        """The chain that starts at the log's end and follows the lowest rank; among equals the one that came first."""
        siblings = self._tips
        while siblings:
            node = _first(siblings)
            yield node
            siblings = node.children

    def chain(self, most: int, stops: Container[int]) -> list[TreeNode]:
        """The first of those, ``most`` at most, up to one whose token is among the ``stops``."""
        nodes: list[TreeNode] = []
        siblings = self._tips
        while siblings and len(nodes) < most:
            node = _first(siblings)
            if node.token_id in stops:
                break
            nodes.append(node)
            siblings = node.children
        return nodes

    def clear(self) -> list[TreeNode]:
        """Let every pending node die; returns them."""
        lost = _bury(list(self._tips.values()))
        self._tips = {}
        return lost


def _first(siblings: dict[int, TreeNode]) -> TreeNode:
    nodes = iter(siblings.values())
    best = next(nodes)
    for node in nodes:
        if node.rank < best.rank:
            best = node
    return best


def _bury(nodes: list[TreeNode]) -> list[TreeNode]:
    """Mark nodes and all below them dead, and take them apart so that nothing holds them in a circle."""
    for node in nodes:  # the list grows while it is walked
        nodes.extend(node.children.values())
        node.state = _DEAD
        node.parent = None
        node.children = {}
    return nodes
