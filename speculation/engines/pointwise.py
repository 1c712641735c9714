"""Products with a model's float32 matrices as convolutions of one point, in the layout that ONNX Runtime multiplies those in.

A pass of few rows waits most for weights to come from memory. The runtime's product of matrices waits and multiplies in turns;
its kernel for pointwise convolutions, on x86 with 512-bit vectors, does more of both at once (``benchmarks/pointwise.py`` has
the figures). Each row still comes out the same, bit for bit, whatever rows are beside it.

The runtime's optimiser makes such nodes (``com.microsoft.nchwc``) of convolutions, with up to three copies of the weights in
memory while it does. So they are written here, and the weights with them. Nobody promises that they stay as they are: the
runtime is asked for a product first, and where that fails or is another's, a graph is left alone.
"""

from __future__ import annotations

import logging
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from speculation.engines.files import values_read
from speculation.engines.graph import IR_VERSION, OPSET
from speculation.engines.large_pages import reserved
from speculation.errors import PackageError

DOMAIN = "com.microsoft.nchwc"
BLOCK = 16
"""Output channels that lie side by side, and input channels that rows are blocked by: a 512-bit vector of float32."""
MODEL_LEAST_BYTES = 32 * 1024 * 1024
"""A model whose matrices take less lies in the processor's caches, where there is nothing to wait for."""
MATRIX_LEAST_BYTES = 512 * 1024
"""To and from blocks takes some microseconds, which a smaller matrix does not give back."""
ALIGNMENT_BYTES = 64
MACHINES = {"x86_64", "AMD64"}
ELEMENTWISE = {"Sigmoid", "Mul"}
"""What lies between the products of a feed-forward layer, and does not ask in what order its numbers lie."""
AXES, BLOCKS, IMAGE, WEIGHT = "outrider/leading_axes", "outrider/blocks/", "outrider/image/", "outrider/weight/"
"""What is added, named as no tool names a value of its own. In blocks a value is [1, numbers, rows ...] to the graph."""
PACKED, PADDED = (0, 1), (0,)
"""Axes that rows lack of an image's four: of rows [tokens, numbers], and of rows [sessions, tokens, numbers]."""
FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"
CHANNELS_AT_ONCE = {"mlas.nchwc_pointwise_conv_max_input_channel_batch": "1024"}
"""Input channels that are summed before a sum is written. By 128, the runtime's own number, nine rows take a tenth longer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Convolved:
    """A graph to load in place of its file, and the values of its matrices by name.

    ``values`` belong to the caller: the runtime computes with that very memory, so they must live as long as the session.
    """

    graph: bytes
    values: Mapping[str, Any]

    def tell(self, options: Any, folder: Path) -> None:
        """Let a session have the values, compute fast with them, and find what else the graph keeps in files of ``folder``."""
        for name, text in {FOLDER_OF_WEIGHTS: str(folder), **CHANNELS_AT_ONCE}.items():
            options.add_session_config_entry(name, text)
        for name, value in self.values.items():
            options.add_initializer(name, value)


@dataclass(frozen=True, slots=True)
class _Matrix:
    """A constant that rows are multiplied with. ``is_turned``: it lies [out, in], not [in, out]."""

    tensor: Any
    is_turned: bool

    @property
    def num_in(self) -> int:
        return int(self.tensor.dims[self.is_turned])

    @property
    def num_out(self) -> int:
        return int(self.tensor.dims[not self.is_turned])

    @property
    def num_bytes(self) -> int:
        return self.num_in * self.num_out * np.dtype(np.float32).itemsize

    def write(self, folder: Path, target: NDArray[np.float32]) -> None:
        """The weights as [blocks of out, in, block]. Raises ``ValueError`` and others where the file holds something else."""
        values = numpy_helper.to_array(self.tensor, str(folder))
        if self.is_turned:
            target[:] = values.reshape(-1, BLOCK, self.num_in).transpose(0, 2, 1)
        else:
            target[:] = values.reshape(self.num_in, -1, BLOCK).transpose(1, 0, 2)


def convolved(path: Path, model: Any, axes: Sequence[int] = PACKED) -> Convolved | None:
    """The graph ``model`` of a file, which is changed, with its matrices in blocks; None where it stays as it is.

    ``axes``: what the rows of its products are (``PACKED``, ``PADDED``); with others the graph does not load, or cannot be run.
    A product must have at least one row: a convolution of none fails.
    Raises ``PackageError`` for weights that cannot be read, ``CapacityError`` where there is no memory for them.
    """
    matrices = _matrices(model.graph)
    num_bytes = sum(matrix.num_bytes for matrix in matrices.values())
    if not matrices or num_bytes < MODEL_LEAST_BYTES or not can_convolve():
        return None
    _log.info("%s: %d products with %.0f MB are made as convolutions", path, len(matrices), num_bytes / 1e6)
    return _convolved(path, model, matrices, axes)


@cache
def can_convolve() -> bool:
    """Whether this runtime, on this processor, gives the right product by a convolution in blocks of ``BLOCK``.

    On x86 it has blocks of this size only where it has vectors of 512 bits. On other processors nothing was measured.
    """
    if platform.machine() not in MACHINES:
        return False
    numbers = np.random.default_rng(0)
    rows, weight = (numbers.integers(-8, 8, shape).astype(np.float32) for shape in ((7, 3 * BLOCK), (3 * BLOCK, 2 * BLOCK)))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None]) for name in "xy"]
    product = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product", ends[:1], ends[1:])
    product.initializer.append(numpy_helper.from_array(weight, "w"))
    model = helper.make_model(product, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    here = Path(__file__)
    made = _convolved(here, model, {"y": _Matrix(product.initializer[0], is_turned=False)}, PACKED)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    made.tell(options, here.parent)
    try:
        session = onnxruntime.InferenceSession(made.graph, options, providers=["CPUExecutionProvider"])
        found = [session.run(None, {"x": rows[:count]})[0] for count in (1, len(rows))]
    except Exception:  # a runtime without these nodes, or with others of their name
        return False
    # Small whole numbers: sums are exact in any order.
    return all(np.array_equal(product, (rows @ weight)[: len(product)]) for product in found)


def _convolved(path: Path, model: Any, matrices: Mapping[str, _Matrix], axes: Sequence[int]) -> Convolved:
    values, graph, rewriting = _values(path, matrices), model.graph, _Rewriting(matrices)
    for node in graph.node:
        rewriting.take(node)
    nodes = rewriting.finish([value.name for value in graph.output])
    del graph.node[:]
    graph.node.extend(nodes)
    constants = [_given(path, name, value) for name, value in values.items()]
    _exchange_constants(graph, [*constants, numpy_helper.from_array(np.array(axes, np.int64), AXES)])
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return Convolved(bytes(model.SerializeToString()), values)


def _matrices(graph: Any) -> dict[str, _Matrix]:
    """The matrices that are worth it, by the name of the product."""
    constants = {tensor.name: tensor for tensor in graph.initializer if _is_matrix(tensor)}
    matrices = {name: _Matrix(tensor, is_turned=False) for name, tensor in constants.items()}
    matrices |= {
        node.output[0]: _Matrix(constants[node.input[0]], is_turned=True)
        for node in graph.node
        if node.op_type == "Transpose" and node.input[0] in constants and list(node.attribute[0].ints) == [1, 0]
    }
    products = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in matrices]
    found = {node.output[0]: matrices[node.input[1]] for node in products}
    return {name: matrix for name, matrix in found.items() if matrix.num_bytes >= MATRIX_LEAST_BYTES}


def _is_matrix(tensor: Any) -> bool:
    """Of float32, in whole blocks."""
    is_whole = not any(size % BLOCK for size in tensor.dims)
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and is_whole


def _values(path: Path, matrices: Mapping[str, _Matrix]) -> dict[str, Any]:
    """All matrices in blocks, in one piece of memory, and one at a time as they lie in the file."""
    sizes = [-(-matrix.num_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for matrix in matrices.values()]
    memory = np.frombuffer(reserved(sum(sizes), f"the weights of {path}"), np.float32)
    found, start = {}, 0
    for (name, matrix), size in zip(matrices.items(), sizes, strict=True):
        shape = (matrix.num_out // BLOCK, matrix.num_in, BLOCK)
        target = memory[start : start + math.prod(shape)].reshape(shape)
        try:
            matrix.write(path.parent, target)
        except Exception as error:
            what = f"{path}: the weights {matrix.tensor.name} of shape {list(matrix.tensor.dims)}"
            raise PackageError(f"{what} cannot be read: {error}") from error
        kernels = target.reshape(matrix.num_out, matrix.num_in, 1, 1)
        found[WEIGHT + name] = onnxruntime.OrtValue.ortvalue_from_numpy(kernels)
        start += size // memory.itemsize
    return found


def _given(path: Path, name: str, value: Any) -> Any:
    """What a graph says of a constant that its session is given. The file is one that is there; nobody reads it."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=value.shape(), data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=path.name)
    return tensor


def _exchange_constants(graph: Any, added: list[Any]) -> None:
    """Drop what nothing uses any more: of a matrix no second copy shall be loaded."""
    used = {name for node in graph.node for name in values_read(node)} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *added])


@dataclass(slots=True)
class _Rewriting:
    """The new nodes, in order, and of each value in which form it is there."""

    matrices: Mapping[str, _Matrix]
    nodes: list[Any] = field(default_factory=list)
    _channels: dict[str, int] = field(default_factory=dict)
    """Numbers of a row, of values that are made in blocks."""
    _moved: set[str] = field(default_factory=set)
    """Values that were brought from the form in which they are made to the other."""

    def take(self, node: Any) -> None:
        """A node of the old graph. Of the values that are read in blocks each has a name of its own there."""
        name, matrix = node.output[0], self.matrices.get(node.output[0])
        if matrix is not None:
            self._to_blocks(node.input[0])
            self._node("Conv", [BLOCKS + node.input[0], WEIGHT + name], BLOCKS + name, DOMAIN, kernel_shape=[1, 1])
            self._channels[name] = matrix.num_out
        elif self._is_alike(node):
            self._node(node.op_type, [BLOCKS + value for value in node.input], BLOCKS + name)
            self._channels[name] = self._channels[node.input[0]]
        else:
            for value in values_read(node):
                self._to_rows(value)
            self.nodes.append(node)

    def finish(self, outputs: Iterable[str]) -> list[Any]:
        """All nodes, but for those that turned matrices which nothing reads any more."""
        for name in outputs:
            self._to_rows(name)
        used = {*outputs, *(value for node in self.nodes for value in values_read(node))}
        return [node for node in self.nodes if node.op_type != "Transpose" or used.intersection(node.output)]

    def _is_alike(self, node: Any) -> bool:
        """Whether each number depends on those at its own place, of values that are all in blocks."""
        return node.op_type in ELEMENTWISE and all(value in self._channels for value in node.input)

    def _to_blocks(self, value: str) -> None:
        if value in self._channels or value in self._moved:
            return
        self._moved.add(value)
        image = self._node("Unsqueeze", [value, AXES], IMAGE + value)
        self._node("ReorderInput", [image], BLOCKS + value, DOMAIN, channels_last=1)

    def _to_rows(self, value: str) -> None:
        if value not in self._channels or value in self._moved:
            return
        self._moved.add(value)
        channels = self._channels[value]
        image = self._node("ReorderOutput", [BLOCKS + value], IMAGE + value, DOMAIN, channels=channels, channels_last=1)
        self._node("Squeeze", [image, AXES], value)

    def _node(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: object) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, domain=domain, **attributes))
        return output
