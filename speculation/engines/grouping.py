"""A packed graph with a second attention node a layer, for which the query heads of a group are rows of one head.

Both nodes see all slots and one pool of caches; a session has rows in one of them (``head_groups.py`` says which), and is idle
in the other. The weights stay as they are: packed queries, keys and values are cut into heads, and heads are gathered.

Further inputs, and what becomes of one that is there (B slots, S most rows of one in the second node, G groups):

========================= ==================== ==============================================================================
``grouped_idx``           int32 [B, S, 3 * G]  heads of the packed queries, keys and values for each row
``grouped_positions``     [B, S]               position of each row's token
``grouped_bias``          [B, 1, S, W]         as caches are; 0, or minus infinity where a row must not see a key
``grouped_seqlens_k``     int32 [B]            as ``seqlens_k``
``grouped_query_seqlens`` int32 [B]            as ``query_seqlens``
``grouped_total``         int32 scalar         W, as ``total_sequence_length``: at least what the longest cache holds
``unpad_idx``             int32 [T, heads]     where each packed token's heads are in what both nodes give, the first one first
========================= ==================== ==============================================================================

Further outputs: ``grouped.N.key``, ``grouped.N.value``, to be bound to the memory of ``present.N.*``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from speculation.engines.architecture import Architecture
from speculation.engines.head_groups import HeadGroups

INPUTS = frozenset(f"grouped_{name}" for name in ("idx", "positions", "bias", "seqlens_k", "query_seqlens", "total"))
CACHE, OUTPUT = "past_key_values.", "grouped"
ATTENTION = "GroupQueryAttention"
KEY_PLACE, NUM_INPUTS = 3, 17
"""Of the node's inputs: where the key cache is, and how many there are."""
SAVED_LEAST = 256
"""A second node takes some microseconds of each layer, idle or not. Models of which fewer numbers are laid out again, for each
token of a cache and each layer, hardly get those back (``docs/log.md``)."""
HEADS, ROWS, PACKED = "outrider/heads_shape", "outrider/rows_shape", "outrider/packed_shape"


def groups_of(shape: Architecture) -> HeadGroups | None:
    """Groups of several heads; None where each head has keys of its own, where little would be saved, and for layers that see a
    window of the text alone, which the node counts by rows."""
    has_windows = any(0 < window < shape.context_length for window in shape.windows)
    saved = (shape.num_heads - shape.num_kv_heads) * shape.head_size
    if shape.num_heads == shape.num_kv_heads or saved < SAVED_LEAST or has_windows:
        return None
    return HeadGroups(shape.num_kv_heads, shape.num_heads // shape.num_kv_heads)


def group_heads(model: Any, groups: HeadGroups, head_size: int) -> bool:
    """Give each layer of the graph ``model`` the second node. False, with the graph as it was, where it is not of the form that
    ``graph.py`` builds."""
    rewriting = _Rewriting(groups, head_size)
    try:
        for node in model.graph.node:
            rewriting.take(node)
    except (KeyError, IndexError):
        return False
    caches = [value for value in model.graph.input if value.name.startswith(CACHE)]
    if not rewriting.layers or rewriting.is_open or not caches:
        return False
    rewriting.finish(model.graph, caches[0].type.tensor_type.elem_type)
    return True


@dataclass(slots=True)
class _Rewriting:
    """The new nodes, in order. A layer's are found by what they read of each other."""

    groups: HeadGroups
    head_size: int
    nodes: list[Any] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    _packed: dict[str, str] = field(default_factory=dict)
    """Of rows of the padded batch: the packed ones."""
    _attended: dict[str, str] = field(default_factory=dict)
    """Of what comes out of the first node, in the shapes that it takes: the heads of both."""

    @property
    def is_open(self) -> bool:
        """Whether what a layer's nodes gave is read as it is, and not head by head."""
        return bool(self._attended)

    def take(self, node: Any) -> None:
        if node.op_type == "Gather" and node.input[1] == "pad_idx":
            self._packed[node.output[0]] = node.input[0]
            self.nodes.append(node)
        elif node.op_type == ATTENTION:
            self.nodes.append(node)
            self._attended[node.output[0]] = self._second(node, self._packed.pop(node.input[0]))
        elif node.op_type == "Reshape" and node.input[0] in self._attended:
            self._attended[node.output[0]] = self._attended.pop(node.input[0])
        elif node.op_type == "Gather" and node.input[0] in self._attended:
            heads = self._attended.pop(node.input[0])
            gathered = self._node("Gather", [heads, node.input[1]], f"{heads}.unpadded")
            self._node("Reshape", [gathered, PACKED], node.output[0])
        else:
            self.nodes.append(node)

    def _second(self, first: Any, packed: str) -> str:
        """The second node beside ``first``; the heads that come out of both, those of the first node first."""
        name, layer = f"{first.name}.grouped", first.output[1].split(".")[1]
        heads = self._node("Reshape", [packed, HEADS], f"{name}.heads")
        rows = self._node("Reshape", [self._node("Gather", [heads, "grouped_idx"], f"{name}.gathered"), ROWS], f"{name}.rows")
        caches, rotary = first.input[KEY_PLACE : KEY_PLACE + 2], first.input[KEY_PLACE + 4 : KEY_PLACE + 6]
        inputs = [rows, "", "", *caches, "grouped_seqlens_k", "grouped_total", *rotary, "grouped_positions", "grouped_bias"]
        inputs += [""] * (NUM_INPUTS - 1 - len(inputs)) + ["grouped_query_seqlens"]
        outputs = [f"{name}.out", *(f"{OUTPUT}.{layer}.{kind}" for kind in ("key", "value"))]
        count = self.groups.num_groups
        options = {"num_heads": count, "kv_num_heads": count, "do_rotary": 1}
        self.nodes.append(helper.make_node(ATTENTION, inputs, outputs, name=name, domain="com.microsoft", **options))
        self.layers.append(layer)
        both = [self._node("Reshape", [out, HEADS], f"{out}.heads") for out in (first.output[0], outputs[0])]
        return self._node("Concat", both, f"{name}.both", axis=0)

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def finish(self, graph: Any, cache_type: int) -> None:
        del graph.node[:]
        graph.node.extend(self.nodes)
        count, size = self.groups.num_groups, self.head_size
        heads, value = self.groups.num_heads, helper.make_tensor_value_info
        int32, int64 = TensorProto.INT32, TensorProto.INT64
        shapes = {HEADS: [-1, size], ROWS: [0, 0, 3 * count * size], PACKED: [0, heads * size]}
        graph.initializer.extend(numpy_helper.from_array(np.array(shape, np.int64), name) for name, shape in shapes.items())
        others = [given for given in graph.input if given.name != "unpad_idx"]
        del graph.input[:]
        graph.input.extend(
            [
                *others,
                value("unpad_idx", int32, ["T", heads]),
                value("grouped_idx", int32, ["B", "S2", 3 * count]),
                value("grouped_positions", int64, ["B", "S2"]),
                value("grouped_bias", cache_type, ["B", 1, "S2", "W"]),
                value("grouped_seqlens_k", int32, ["B"]),
                value("grouped_query_seqlens", int32, ["B"]),
                value("grouped_total", int32, []),
            ]
        )
        cache = ["B", count, "capacity", size]
        names = [f"{OUTPUT}.{layer}.{kind}" for layer in self.layers for kind in ("key", "value")]
        graph.output.extend(value(name, cache_type, cache) for name in names)
