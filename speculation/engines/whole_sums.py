"""Whether ONNX Runtime sums 8-bit products in blocks whole on this processor: asked, since it is its own affair.

x86 without VNNI adds two products of bytes in 16 bits, and what does not fit is cut off. Rows of integers avoid that by weights
of 7 bits (``quantise.py``); blocks of 8 bits leave it to the runtime.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from speculation.engines.graph import IR_VERSION, OPSET, GraphParts, Matrix
from speculation.engines.quantise import Int8Linear

WIDTH, NUM_ROWS = 256, 5
TOLERANCE = 1e-3
"""Rounding changes nothing of weights that are all alike; what is cut off is a half."""


@cache
def are_whole(block: int) -> bool:
    """The largest products that there are, of either sign, by one row and by several."""
    return all(_is_whole(Int8Linear(block), sign) for sign in (1, -1))


def _is_whole(linear: Int8Linear, sign: int) -> bool:
    weight, rows = np.full((16, WIDTH), sign, np.float32), np.ones((NUM_ROWS, WIDTH), np.float32)
    parts = GraphParts()
    linear.emit(parts, "y", "x", Matrix(("w",), (weight.shape,), {"w": weight}))
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in "xy")
    graph = helper.make_graph(parts.nodes, "largest", [x], [y], list(parts.constants.values()))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run(None, {"x": part})[0] for part in (rows, rows[:1])])
    return bool(np.allclose(found, sign * WIDTH, rtol=TOLERANCE))
