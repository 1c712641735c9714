"""What ONNX Runtime's kernels keep on the processor at hand, asked of the bare operator: no engine of ours is in it."""

from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from speculation.engines.quantise import ACCURACY_LEVEL, BLOCK, to_int4_blocks, to_int8_blocks

_WIDTH = 64


def gives_rows_alike(bits: int = 4, block: int = BLOCK) -> bool:
    """Whether a product with weights of 4 or 8 bits in blocks gives one row the bits that it has among several. In 4 bits not
    so without 512-bit vectors, and with some of those not in larger blocks."""
    return _gives_alike(bits, block, 1)


def gives_pairs_alike(bits: int, block: int) -> bool:
    """The same of two rows among an even number of them."""
    return _gives_alike(bits, block, 2)


@cache
def _gives_alike(bits: int, block: int, at_once: int) -> bool:
    rng = np.random.default_rng(0)
    rounded = to_int4_blocks if bits == 4 else to_int8_blocks
    packed, scales = rounded(rng.standard_normal((_WIDTH, _WIDTH)).astype(np.float32), block)
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s"],
        ["y"],
        domain="com.microsoft",
        K=_WIDTH,
        N=_WIDTH,
        bits=bits,
        block_size=block,
        accuracy_level=ACCURACY_LEVEL,
    )
    constants = {"w": packed, "s": scales.reshape(-1)}
    rows = rng.standard_normal((8, _WIDTH)).astype(np.float32)
    session = _session(node, constants)
    pieces = [session.run(None, {"x": rows[start : start + at_once]})[0] for start in range(0, len(rows), at_once)]
    return bool(np.array_equal(np.concatenate(pieces), session.run(None, {"x": rows})[0]))


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
