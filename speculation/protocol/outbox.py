"""What a device has sent on the current stream, and what it still has to send. Pure.

The law: numbers count from 1 on every stream, without gaps, in the order of sending, parents before children; so a node gets
its number when it is sent and not when it is drafted. A sent node counts against the credit until a verdict settles it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from speculation.protocol.messages import MAX_DRAFT_NODES, Node
from speculation.protocol.tree import NodeState, TreeNode

UNOPENED_ROOM = 256
"""Nodes that may be drafted before the verifier has said how many it bears. Only the initial credit may be sent by then, and
only the main branch is: over a long round trip other branches would use it up, and nothing could be sent until ``Opened``."""


class Outbox:
    """The nodes of one stream; ``live`` are those to be sent first, parents before children."""

    def __init__(self, live: Iterable[TreeNode] = ()) -> None:
        self._unsent = deque(live)
        self._by_number: dict[int, TreeNode] = {}
        self._last_number = 0
        for node in self._unsent:
            node.number = 0

    @property
    def num_sent(self) -> int:
        """Sent nodes that no verdict has settled."""
        return len(self._by_number)

    def add(self, node: TreeNode) -> None:
        self._unsent.append(node)

    def settle(self, node: TreeNode) -> None:
        """A verdict made the node final or dead."""
        self._by_number.pop(node.number, None)

    def take(self, credit: int, path: Sequence[TreeNode] | None = None) -> tuple[Node, ...]:
        """Number the next nodes, as many as the credit allows; what died unsent is left out.

        With ``path``, which begins behind the log's end, nodes of it alone.
        """
        room = max(0, min(credit - self.num_sent, MAX_DRAFT_NODES))
        nodes = self._next(room) if path is None else [node for node in path if not node.number][:room]
        return tuple([self._number(node) for node in _by_branch(nodes)])

    def find(self, number: int) -> TreeNode | None:
        """The node sent under a number; None where it is settled. Raises ``LookupError`` where it was never sent."""
        if number > self._last_number:
            raise LookupError(f"node {number} was never sent")
        return self._by_number.get(number)

    def _next(self, room: int) -> list[TreeNode]:
        nodes: list[TreeNode] = []
        while self._unsent and len(nodes) < room:
            node = self._unsent.popleft()
            if node.state is NodeState.PENDING and not node.number:
                nodes.append(node)
        return nodes

    def _number(self, node: TreeNode) -> Node:
        self._last_number += 1
        node.number = self._last_number
        self._by_number[node.number] = node
        if node.parent is None:
            return Node(node.number, 0, node.token_id, node.position, node.rank)
        return Node(node.number, node.parent.number, node.token_id, 0, node.rank)


def _by_branch(nodes: list[TreeNode]) -> list[TreeNode]:
    """The same nodes, each branch in one piece: so it is packed as a chain. Parents stay before children."""
    if len(nodes) < 3:
        return nodes
    children: dict[TreeNode | None, list[TreeNode]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node)
    here = set(nodes)
    ordered: list[TreeNode] = []
    waiting = [node for node in reversed(nodes) if node.parent not in here]
    while waiting:
        node = waiting.pop()
        ordered.append(node)
        waiting.extend(reversed(children.get(node, ())))
    return ordered
