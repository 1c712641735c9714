"""Makes an exported graph with GroupQueryAttention take ragged batches and caches in place.

The node has had an input for that since ONNX Runtime 1.32 (``query_seqlens``, the 17th); exports leave it out, and work the
other lengths out of the attention mask. Here these become inputs of the graph, and what worked them out is dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from speculation.engines.exported_graph import ExportedGraph
from speculation.engines.files import values_read

NODE, DOMAIN = "GroupQueryAttention", "com.microsoft"
PAST_KEY, PAST_VALUE, SEQLENS_K, TOTAL, COS, SIN, POSITIONS, QUERY_SEQLENS = 3, 4, 5, 6, 7, 8, 9, 16
LENGTHS = LAST, ROOM, ROWS = ("outrider/seqlens_k", "outrider/total_sequence_length", "outrider/query_seqlens")
"""The new inputs: named as no tool names a value of its own, since exports use the plain names inside."""


class CannotBeRaggedError(Exception):
    """Why a graph stays as it is. No error of the tree: the slower way is taken instead."""


def make_ragged(graph: ExportedGraph, capacity: int) -> bytes:
    """The graph, serialised, for caches of ``capacity`` positions. Changes ``graph.model``.

    Instead of the attention mask it has the inputs ``LAST`` and ``ROWS`` (int32 [B]) and ``ROOM`` (int32 scalar).
    Raises ``CannotBeRaggedError``.
    """
    if graph.takes_one_token:
        raise CannotBeRaggedError("its graph takes one token a run")
    if graph.turning_length:
        # What one session's length decides would be decided for all that share its pass.
        raise CannotBeRaggedError(f"its graph turns texts of over {graph.turning_length} tokens in another way")
    model = graph.model.graph
    nodes = [node for node in model.node if node.op_type == NODE and node.domain == DOMAIN]
    _check_nodes(graph, nodes)
    for node in nodes:
        node.input.extend([""] * (QUERY_SEQLENS + 1 - len(node.input)))
        for place, name in zip((SEQLENS_K, TOTAL, QUERY_SEQLENS), LENGTHS, strict=True):
            node.input[place] = name
    _lengthen_tables(graph, {node.input[place] for node in nodes for place in (COS, SIN)} - {""}, capacity)
    _drop_unused(model)
    _exchange_inputs(graph)
    return bytes(graph.model.SerializeToString())


def _check_nodes(graph: ExportedGraph, nodes: list[Any]) -> None:
    """Every layer's attention must be the node, on the layer's own cache, with nothing that the lengths would upset."""
    pasts = {(node.input[PAST_KEY], node.input[PAST_VALUE]) for node in nodes if len(node.input) > TOTAL}
    if pasts != set(zip(graph.past[::2], graph.past[1::2], strict=True)) or len(nodes) != len(pasts):
        raise CannotBeRaggedError(f"{len(nodes)} of {len(graph.past) // 2} layers have their attention in one {NODE} node")
    for node in nodes:
        if any(name and place > POSITIONS for place, name in enumerate(node.input)):
            raise CannotBeRaggedError(f"the {NODE} node {node.name} has inputs beyond positions")
        window = next((a.i for a in node.attribute if a.name == "local_window_size"), -1)
        if window > 0:
            raise CannotBeRaggedError(f"the {NODE} node {node.name} looks {window} tokens back only")


def _lengthen_tables(graph: ExportedGraph, names: set[str], capacity: int) -> None:
    """The node asks for cosines and sines of all positions that a cache has room for; those added belong to no token."""
    tables = {tensor.name: tensor for tensor in graph.model.graph.initializer if tensor.name in names}
    if missing := sorted(names - tables.keys()):
        raise CannotBeRaggedError(f"the cosines and sines of positions are no constants ({', '.join(missing)})")
    for tensor in tables.values():
        values = numpy_helper.to_array(tensor, str(graph.path.parent))
        room = max(0, capacity - len(values))
        tensor.CopyFrom(numpy_helper.from_array(np.pad(values, ((0, room), (0, 0))), tensor.name))


def _drop_unused(model: Any) -> None:
    """Nodes that lead to no output; a node may be needed only by one that is dropped, so from the last to the first."""
    needed, kept = {value.name for value in model.output}, []
    for node in reversed(model.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(values_read(node))
    del model.node[:]
    model.node.extend(reversed(kept))


def _exchange_inputs(graph: ExportedGraph) -> None:
    """The three lengths instead of the mask. Raises ``CannotBeRaggedError`` where the mask has another use."""
    model, mask = graph.model.graph, graph.names.attention_mask
    used = {name for node in model.node for name in values_read(node)}
    if mask in used:
        raise CannotBeRaggedError(f"{mask} is used for more than lengths")
    kept = [value for value in model.input if value.name in used]
    shapes: dict[str, list[str]] = {name: [] if name == ROOM else ["sessions"] for name in LENGTHS}
    kept += [helper.make_tensor_value_info(name, TensorProto.INT32, shape) for name, shape in shapes.items()]
    del model.input[:], model.value_info[:]
    model.input.extend(kept)
