"""What ONNX Runtime's kernels keep on the processor at hand, asked of the bare operator: no engine of ours is in it."""

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from speculation.engines.quantise import ACCURACY_LEVEL, BLOCK, to_int4_blocks

_WIDTH = 64


@cache
def gives_rows_alike_in_4_bits(block: int = BLOCK) -> bool:
    """Whether a 4-bit product of one row has the bits that it has among several. Not so without 512-bit vectors, and with some
    of those not in blocks of 128."""
    rng = np.random.default_rng(0)
    packed, scales = to_int4_blocks(rng.standard_normal((_WIDTH, _WIDTH)).astype(np.float32), block)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s"],
        ["y"],
        domain="com.microsoft",
        K=_WIDTH,
        N=_WIDTH,
        bits=4,
        block_size=block,
        accuracy_level=ACCURACY_LEVEL,
    )
    constants = {"w": packed, "s": scales.reshape(-1)}
    rows = rng.standard_normal((8, _WIDTH)).astype(np.float32)
    session = _session(node, constants)
    one_by_one = [session.run(None, {"x": row[None]})[0] for row in rows]
    return bool(np.array_equal(np.concatenate(one_by_one), session.run(None, {"x": rows})[0]))


def _session(node, constants):
    graph = helper.make_graph(
        [node],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, _WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, _WIDTH])],
        [onnx.numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
