"""A draft's nodes as one list of numbers, and back: the shorter form of ``docs/protocol.md``.

The list holds ``known``, the first number, and for each node twice its token id; or, where a branch begins, one more, and then
a number that says where it hangs.
"""

from __future__ import annotations

from collections.abc import Sequence

from speculation.errors import MalformedMessageError
from speculation.protocol.messages import MAX_DRAFT_NODES, MAX_PACKED_RANK, Draft, Node

_RANKS = MAX_PACKED_RANK + 1
_NOWHERE = 2**40
"""Where a branch hangs that does not say so: farther back than any number."""


def branches(nodes: Sequence[Node]) -> list[list[Node]]:
    """Cut nodes into chains: each node but a chain's first hangs off the one before with rank 0."""
    chains: list[list[Node]] = []
    for node in nodes:
        if chains and node.parent == node.number - 1 and node.parent and node.rank == 0:
            chains[-1].append(node)
        else:
            chains.append([node])
    return chains


def pack(draft: Draft) -> list[int]:
    """The numbers of a draft that may be packed."""
    numbers = [draft.known, draft.nodes[0].number]
    for branch in branches(draft.nodes):
        first = branch[0]
        back = first.number - first.parent if first.parent else 0
        numbers += (2 * first.token_id + 1, _RANKS * back + first.rank)
        numbers += [2 * node.token_id for node in branch[1:]]
    return numbers


def unpack(numbers: Sequence[int], passes: bool) -> Draft:
    """The draft that the numbers tell. Raises ``MalformedMessageError``."""
    if len(numbers) < 4 or not numbers[2] % 2:
        raise MalformedMessageError("a packed draft holds known, a first number, and a branch")
    known, number, *codes = numbers
    nodes: list[Node] = []
    rest = iter(codes)
    for code in rest:
        parent, root_position, rank = number - 1, 0, 0
        if code % 2:
            back, rank = divmod(next(rest, _NOWHERE), _RANKS)
            if back >= number:
                raise MalformedMessageError(f"node {number} of a packed draft hangs nowhere")
            parent, root_position = (number - back, 0) if back else (0, known)
        if len(nodes) == MAX_DRAFT_NODES:
            raise MalformedMessageError(f"a draft holds at most {MAX_DRAFT_NODES} nodes")
        nodes.append(Node(number, parent, code // 2, root_position, rank))
        number += 1
    return Draft(tuple(nodes), known, passes, is_packed=True)
