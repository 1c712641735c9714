"""The memory in which ONNX Runtime computes on the CPU: one arena for all engines of a process."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from speculation.engines.graph import IR_VERSION, OPSET
from speculation.errors import CapacityError

AS_REQUESTED = 1
"""A name in ONNX Runtime's C interface alone: ``kSameAsRequested``."""


def in_shared_arena() -> Any:
    """Options for a session whose passes take their memory from the arena of this process."""
    _share_exact_arena()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.log_severity_level = 4
    return options


def reserve(num_bytes: int) -> None:
    """Let the arena have so much memory in one piece, written to, unless it has it already.

    Left to itself the arena gets a piece for each tensor that found no room, and what is asked for later fits between those
    badly: passes of many shapes make it grow for hours, ever more slowly. One piece that holds the widest pass does not.

    Raises ``CapacityError`` where the system does not give that much.
    """
    options = in_shared_arena()
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(_one_tensor(), options, providers=["CPUExecutionProvider"])
        session.run(None, {"size": np.array([num_bytes // 4], np.int64)})
    except Exception as error:
        raise CapacityError(f"no {num_bytes / 2**20:.0f} MiB of memory for the widest pass: {error}") from error


@cache
def _one_tensor() -> bytes:
    """A graph that fills one tensor of as many numbers as it is told; it is no output, and so the arena's own."""
    size = helper.make_tensor_value_info("size", TensorProto.INT64, [1])
    most = helper.make_tensor_value_info("most", TensorProto.FLOAT, [])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["filled"], value=one),
        helper.make_node("ReduceMax", ["filled"], ["most"], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "one_tensor", [size], [most])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


@cache
def _share_exact_arena() -> None:
    """What the engines of this process compute with comes from one arena, which grows by what a pass asks for.

    By its own rule it doubles what it has: a region of which a pass then touches another part each time, until after hours
    all of it is taken.
    """
    arena = onnxruntime.OrtArenaCfg({"arena_extend_strategy": AS_REQUESTED})
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    onnxruntime.create_and_register_allocator(memory, arena)
