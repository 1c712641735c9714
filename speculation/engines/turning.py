"""From which length of a text on an exported graph turns positions in another way (``longrope``), as far as it shows."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, numpy_helper

WHOLE = (TensorProto.INT64, TensorProto.INT32)
LAST_BELOW = {"Greater": 0, "LessOrEqual": 0, "GreaterOrEqual": -1, "Less": -1}
"""For each comparison of a length with a number: where the last length lies that falls on the lower side, from the number."""
TURNED_ROUND = {"Greater": "Less", "Less": "Greater", "GreaterOrEqual": "LessOrEqual", "LessOrEqual": "GreaterOrEqual"}


def turning_length(graph: Any) -> int:
    """The longest text of which all is computed as of a short one, where a branch of the graph sees to longer ones; else 0.

    onnxruntime-genai's builder chooses the table of cosines and sines so: by whether the whole text, cache and new rows, is
    longer than a number. The rows of a run are turned alike then, whichever side of that length each stands on.
    """
    constants = _numbers(graph)
    comparisons = {name: node for node in graph.node if node.op_type in LAST_BELOW for name in node.output}
    branches = [node.input[0] for node in graph.node if node.op_type == "If" and node.input[0] in comparisons]
    lengths = {_last_below(comparisons[name], constants) for name in branches}
    return lengths.pop() if len(lengths) == 1 else 0


def _last_below(comparison: Any, constants: dict[str, int]) -> int:
    kind, (left, right) = comparison.op_type, comparison.input
    if left in constants:
        kind, left, right = TURNED_ROUND[kind], right, left
    return max(0, constants[right] + LAST_BELOW[kind]) if right in constants else 0


def _numbers(graph: Any) -> dict[str, int]:
    """Whole numbers among the constants, each by its name."""
    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    tensors += [(node.output[0], a.t) for node in graph.node if node.op_type == "Constant" for a in node.attribute]
    whole = [(n, t) for n, t in tensors if t.data_type in WHOLE and list(t.dims) in ([], [1])]
    here = [(n, t) for n, t in whole if t.data_location != TensorProto.EXTERNAL]
    return {name: int(numpy_helper.to_array(tensor).reshape(())) for name, tensor in here}
