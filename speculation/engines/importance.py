"""How much each input of a linear layer counts: the mean square of what it holds along a text, by the fp32 graph.

A rounding error of a weight changes the layer's output in proportion to its input, so squared errors weighted by the inputs'
mean squares are the expected squared error of the output, correlations between inputs left aside (the diagonal of the Hessian
of Frantar et al., arXiv 2210.17323; llama.cpp calls it an importance matrix).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from speculation.engines.architecture import slot_capacity
from speculation.engines.files import require
from speculation.engines.package import Package
from speculation.engines.packing import pack
from speculation.engines.stock import load_session
from speculation.engines.variants import PLAIN
from speculation.errors import InvalidRequestError, PackageError

MOST_TOKENS = 65_536
"""Of a text, so many are run at most: mean squares do not move any more then."""
LEAST_TOKENS = 256
TEXT_LIMIT_BYTES = 16 << 20
WINDOW = 256

Importance = Mapping[str, NDArray[np.float32]]
"""Mean squares [in] of the input of each linear layer, by the layer's node."""


def read_text(path: Path) -> str:
    """A text to calibrate on. Raises ``PackageError`` for a file that is missing, too large or not UTF-8."""
    require(path.is_file(), f"{path} is no file; a text to calibrate on is a file in UTF-8, such as the model will meet")
    size = path.stat().st_size
    require(size <= TEXT_LIMIT_BYTES, f"{path} has {size} bytes; a text of {TEXT_LIMIT_BYTES} at most is right, less will do")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise PackageError(f"{path} is not UTF-8 at byte {error.start}; a text to calibrate on must be") from error


def importance_of(package: Package, text: str, progress: Callable[[int, int], None] = lambda done, total: None) -> Importance:
    """Run a package's fp32 graph over a text, window after window, and watch what goes into its linear layers.

    Raises ``PackageError`` for a package without that graph, ``InvalidRequestError`` for a text of too few tokens.
    """
    hint = "make it again with it: outrider models convert CHECKPOINT --out DIR --variant fp32"
    require(PLAIN in package.variants, f"{package.path} has no variant {PLAIN}, which calibration runs; {hint}")
    token_ids = package.tokenizer.encode(text, add_special_tokens=False).ids[:MOST_TOKENS]
    if len(token_ids) < LEAST_TOKENS:
        found = f"a text of {len(token_ids)} tokens tells too little; {LEAST_TOKENS} are the least"
        raise InvalidRequestError(found, "calibrate")
    watched = _Watched(package)
    size = min(WINDOW, package.context_length)
    for start in range(0, len(token_ids), size):
        watched.add(token_ids[start : start + size])
        progress(min(start + size, len(token_ids)), len(token_ids))
    return watched.mean_squares()


class _Watched:
    """The fp32 graph with the inputs of its linear layers among its outputs."""

    def __init__(self, package: Package) -> None:
        path, self._shape = package.graph(PLAIN), package.architecture
        model = onnx.load_model(str(path), load_external_data=False)
        self._inputs = dict(_linear_inputs(model))
        names = sorted(set(self._inputs.values()))
        model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        self._session = load_session(model.SerializeToString(), path.parent, 1)
        self._names = names
        self._capacity = slot_capacity(package.context_length)
        self._sums = dict.fromkeys(names, np.zeros(0))
        self._rows = dict.fromkeys(names, 0)

    def add(self, token_ids: Sequence[int]) -> None:
        """Count the rows of a text that stands alone."""
        for name, values in zip(self._names, self._session.run(self._names, self._feeds(token_ids)), strict=True):
            squares = np.square(values, dtype=np.float64).sum(axis=0)
            self._sums[name] = squares + (self._sums[name] if self._rows[name] else 0.0)
            self._rows[name] += len(values)

    def mean_squares(self) -> Importance:
        return {node: (self._sums[x] / self._rows[x]).astype(np.float32) for node, x in self._inputs.items()}

    def _feeds(self, token_ids: Sequence[int]) -> dict[str, NDArray[Any]]:
        """A pass of one session with an empty cache, all of whose rows are wanted."""
        count, shape = len(token_ids), self._shape
        packing = pack(((0, count, count, False),), 1, 2)
        cache = np.zeros((1, shape.num_kv_heads, self._capacity, shape.head_size), np.float32)
        caches = {f"past_key_values.{n}.{kind}": cache for n in range(shape.num_layers) for kind in ("key", "value")}
        small = {name: getattr(packing, name) for name in ("pad_idx", "unpad_idx", "out_idx", "query_seqlens")}
        return {
            **caches,
            **small,
            "input_ids": np.array(token_ids, np.int64),
            "seqlens_k": packing.query_seqlens - np.int32(1),
            "total_sequence_length": np.array(self._capacity, np.int32),
        }


def _linear_inputs(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Node and input of every linear layer: the products of a graph that ``graph.build`` made without quantising."""
    for node in model.graph.node:
        if node.op_type == "MatMul":
            yield node.name, node.input[0]
