from __future__ import annotations

from speculation.protocol.tree import DraftTree, NodeState


def chain(tree: DraftTree) -> list[int]:
    return [node.token_id for node in tree.likeliest()]


def test_a_node_knows_its_absolute_position():
    tree = DraftTree(5)
    first, _ = tree.add(None, 7, 0)
    second, _ = tree.add(first, 8, 0)
    assert (first.position, second.position) == (5, 6)


def test_the_same_token_behind_the_same_parent_is_the_same_node():
    tree = DraftTree(5)
    first, is_new = tree.add(None, 7, 0)
    again, is_new_again = tree.add(None, 7, 1)
    assert again is first
    assert (is_new, is_new_again) == (True, False)


def test_the_likeliest_chain_follows_the_lowest_rank_then_the_first_come():
    tree = DraftTree(0)
    tree.add(None, 1, 1)
    best, _ = tree.add(None, 2, 0)
    tree.add(None, 3, 0)
    tree.add(best, 4, 1)
    assert chain(tree) == [2, 4]


def test_a_chain_ends_at_its_most_nodes_and_before_a_token_that_stops_it():
    tree = DraftTree(0)
    assert tree.first is None
    node = None
    for token_id in (5, 6, 7):
        node, _ = tree.add(node, token_id, 0)
    assert tree.first is not None
    assert tree.first.token_id == 5
    chains = [tree.chain(3, ()), tree.chain(2, ()), tree.chain(3, {6}), tree.chain(0, ()), tree.chain(-1, ())]
    assert [[node.token_id for node in nodes] for nodes in chains] == [[5, 6, 7], [5, 6], [5], [], []]


def test_the_token_that_the_log_takes_is_final_and_all_else_dies():
    tree = DraftTree(0)
    kept, _ = tree.add(None, 1, 0)
    below, _ = tree.add(kept, 2, 0)
    lost, _ = tree.add(None, 3, 1)
    below_lost, _ = tree.add(lost, 4, 0)
    survivor, dead = tree.advance(1)
    assert survivor is kept
    assert dead == [lost, below_lost]
    assert [n.state for n in (kept, below, lost, below_lost)] == [
        NodeState.FINAL,
        NodeState.PENDING,
        NodeState.DEAD,
        NodeState.DEAD,
    ]
    assert chain(tree) == [2]


def test_a_token_that_nobody_drafted_kills_the_whole_tree():
    tree = DraftTree(0)
    node, _ = tree.add(None, 1, 0)
    survivor, dead = tree.advance(9)
    assert (survivor, dead) == (None, [node])
    assert tree.add(None, 2, 0)[0].position == 1


def test_a_settled_node_holds_no_other():
    """A long text would otherwise keep all its nodes alive."""
    tree = DraftTree(0)
    first, _ = tree.add(None, 1, 0)
    second, _ = tree.add(first, 2, 0)
    tree.advance(1)
    assert first.children == {}
    assert second.parent is None


def test_clearing_returns_every_pending_node():
    tree = DraftTree(0)
    first, _ = tree.add(None, 1, 0)
    second, _ = tree.add(first, 2, 0)
    assert tree.clear() == [first, second]
    assert chain(tree) == []
