"""A packed graph whose caches are in 16 bits: half the memory, and half of what attention has to read.

Queries, keys and values are rounded to float16 before the attention node, and what comes out of it is made float32 again. The
node itself computes in float32; of a cache it widens what it reads. All else stays as it is.
"""

from __future__ import annotations

from typing import Any

from onnx import NodeProto, TensorProto, helper

from speculation.engines.grouping import ATTENTION, CACHE

TABLES = (7, 8)
"""Of the node's inputs: cosines and sines, which have its type, too."""
HALF = ".half"


def halve_caches(model: Any) -> bool:
    """Rewrite the graph ``model``. False, with the graph as it was, where it is not of the form that ``graph.py`` builds."""
    rewriting = _Rewriting()
    try:
        for node in model.graph.node:
            rewriting.take(node)
    except IndexError:  # a node without inputs
        return False
    if rewriting.num_layers == 0 or rewriting.attended:
        return False
    del model.graph.node[:]
    model.graph.node.extend(rewriting.nodes)
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith((CACHE, "present.")):
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return True


class _Rewriting:
    """The new nodes, in order."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.num_layers = 0
        self.attended: set[str] = set()
        """What came out of attention, in the shapes that it takes, and is not float32 again."""
        self._halved: set[str] = set()

    def take(self, given: Any) -> None:
        node = NodeProto()
        node.CopyFrom(given)
        if node.op_type == "Gather" and node.input[1] == "pad_idx":
            node.input[0] = self._halve(node.input[0])
        elif node.op_type == ATTENTION and len(node.input) > TABLES[-1]:
            for place in TABLES:
                node.input[place] = self._halve(node.input[place])
            self.num_layers += 1
            self.attended.add(node.output[0])
        elif node.op_type == "Reshape" and node.input[0] in self.attended:
            self.attended.remove(node.input[0])
            self.attended.add(node.output[0])
        elif node.op_type == "Gather" and node.input[0] in self.attended:
            self.attended.remove(node.input[0])
            wide, node.output[0], node.name = node.output[0], node.output[0] + HALF, node.name + HALF
            self.nodes += [node, _cast(node.output[0], wide, TensorProto.FLOAT)]
            return
        self.nodes.append(node)

    def _halve(self, name: str) -> str:
        if name not in self._halved:
            self._halved.add(name)
            self.nodes.append(_cast(name, name + HALF, TensorProto.FLOAT16))
        return name + HALF


def _cast(value: str, made: str, kind: int) -> Any:
    return helper.make_node("Cast", [value], [made], name=made, to=kind)
