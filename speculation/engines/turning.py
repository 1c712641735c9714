"""From which length of a text on an exported graph turns positions in another way (``longrope``), as far as it shows."""

from __future__ import annotations

from typing import Any

from onnx import TensorProto, numpy_helper

WHOLE = (TensorProto.INT64, TensorProto.INT32)
LAST_BELOW = {"Greater": 0, "LessOrEqual": 0, "GreaterOrEqual": -1, "Less": -1}
"""For each comparison of a length with a number: where the last length lies that falls on the lower side, from the number."""
PAIR, MOST_CASTS = 2, 8
TURNED_ROUND = {"Greater": "Less", "Less": "Greater", "GreaterOrEqual": "LessOrEqual", "LessOrEqual": "GreaterOrEqual"}


def turning_length(graph: Any, positions: str) -> int:
    """The longest text of which all is computed as of a short one, where the graph sees to longer ones in another way; else 0.

    onnxruntime-genai's builder chooses cosines and sines so: by whether the whole text, cache and new rows, is longer than a
    number, or, where a branch is not to be, by whether the highest of the ``positions`` reaches it. The rows of a run are
    turned alike then, and all sessions of a pass, whichever side of that length each stands on.
    """
    constants, makers = _numbers(graph), {name: node for node in graph.node for name in node.output}
    branches = {name for node in graph.node if node.op_type == "If" for name in node.input}
    lengths = set()
    for node in graph.node:
        if node.op_type in LAST_BELOW and (found := _compared(node, constants)) is not None:
            tested, last = found
            is_of_positions = _is_highest(tested, positions, makers)
            if is_of_positions or branches.intersection(node.output):
                # The highest position is one less than the length.
                lengths.add(max(0, last + is_of_positions))
    return lengths.pop() if len(lengths) == 1 else 0


def _compared(comparison: Any, constants: dict[str, int]) -> tuple[str, int] | None:
    """What is compared with a number, and the last value of it on the lower side; None where neither is a constant."""
    if len(comparison.input) != PAIR:
        return None
    kind, (left, right) = comparison.op_type, comparison.input
    if left in constants:
        kind, left, right = TURNED_ROUND[kind], right, left
    return (left, constants[right] + LAST_BELOW[kind]) if right in constants else None


def _is_highest(name: str, positions: str, makers: dict[str, Any]) -> bool:
    """Whether a value is the highest of an input, in whichever type."""
    maker = _behind_casts(name, makers)
    return getattr(maker, "op_type", "") == "ReduceMax" and positions in [_behind_casts(n, makers) for n in maker.input]


def _behind_casts(name: str, makers: dict[str, Any]) -> Any:
    """The node that makes a value before it takes other types, or the name of the input that it is."""
    for _ in range(MOST_CASTS):
        maker = makers.get(name, name)
        if getattr(maker, "op_type", "") != "Cast" or not maker.input:
            return maker
        name = maker.input[0]
    return name


def _numbers(graph: Any) -> dict[str, int]:
    """Whole numbers among the constants, each by its name."""
    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    tensors += [(n, a.t) for node in graph.node if node.op_type == "Constant" for n in node.output for a in node.attribute]
    whole = [(n, t) for n, t in tensors if t.data_type in WHOLE and list(t.dims) in ([], [1])]
    return {n: number for n, t in whole if t.data_location != TensorProto.EXTERNAL and (number := _number(t)) is not None}


def _number(tensor: Any) -> int | None:
    """None for one that is damaged, which ONNX Runtime will say."""
    try:
        return int(numpy_helper.to_array(tensor).reshape(()))
    except (TypeError, ValueError):
        return None
