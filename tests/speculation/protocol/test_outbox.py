from __future__ import annotations

import pytest

from speculation.protocol.messages import MAX_DRAFT_NODES, Node
from speculation.protocol.outbox import Outbox
from speculation.protocol.tree import DraftTree


def test_nodes_are_numbered_when_they_are_taken():
    tree, outbox = DraftTree(3), Outbox()
    for token_id in (5, 6):
        outbox.add(tree.add(None, token_id, 0)[0])
    tree.advance(9)
    outbox.add(tree.add(None, 7, 0)[0])
    assert outbox.take(10) == (Node(1, 0, 7, 4),)


def test_each_branch_of_a_draft_is_told_in_one_piece_its_first_child_first():
    tree, outbox = DraftTree(0), Outbox()
    one, other = (tree.add(None, token_id, token_id - 1)[0] for token_id in (1, 2))
    below = [tree.add(parent, token_id, 0)[0] for parent, token_id in ((one, 3), (other, 4))]
    for node in (one, other, *below):
        outbox.add(node)
    assert outbox.take(3) == (Node(1, 0, 1), Node(2, 1, 3), Node(3, 0, 2, rank=1))
    assert outbox.take(4) == (Node(4, 3, 4),)


def test_settled_nodes_give_room():
    tree, outbox = DraftTree(0), Outbox()
    nodes = [tree.add(None, token_id, 0)[0] for token_id in range(3)]
    for node in nodes:
        outbox.add(node)
    assert len(outbox.take(2)) == 2
    assert outbox.take(2) == ()
    outbox.settle(nodes[0])
    assert len(outbox.take(2)) == 1


def test_settling_an_unsent_node_is_harmless():
    tree, outbox = DraftTree(0), Outbox()
    outbox.settle(tree.add(None, 1, 0)[0])
    assert outbox.num_sent == 0


def test_a_number_is_found_until_it_is_settled():
    tree, outbox = DraftTree(0), Outbox()
    node, _ = tree.add(None, 1, 0)
    outbox.add(node)
    outbox.take(1)
    assert outbox.find(1) is node
    outbox.settle(node)
    assert outbox.find(1) is None
    with pytest.raises(LookupError, match="node 2"):
        outbox.find(2)


def test_one_draft_never_holds_more_than_the_wire_allows():
    tree = DraftTree(0)
    outbox = Outbox([tree.add(None, token_id, 0)[0] for token_id in range(MAX_DRAFT_NODES + 1)])
    assert len(outbox.take(10**6)) == MAX_DRAFT_NODES
    assert len(outbox.take(10**6)) == 1
