"""The weights of a package's own fp32 graph, by the names that a checkpoint has; each is looked at when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from speculation.engines.architecture import Architecture
from speculation.engines.files import require
from speculation.engines.variants import EMBEDDING, HEAD
from speculation.errors import PackageError

OWN_NAMES = {"logits.weight": HEAD}
"""Constants of ``graph.py`` that are named after their node."""
NO_WEIGHTS = ("cos", "sin")
"""Constants in float32 that follow from the configuration."""
STACKED = "qkv_proj"
BLOCK_VALUES = 1 << 18


@dataclass(frozen=True, slots=True)
class _Place:
    """The rows of a constant that are one weight, once matrices are turned back to [out, in]."""

    constant: Any
    rows: slice
    shape: tuple[int, ...]


class GraphWeights(Mapping[str, NDArray[np.float32]]):
    """A mapping from names to float32 arrays [out, in] or [size].

    Weights beside the graph are mapped, not read: what comes back is a view of the file, turned where the graph holds the
    matrix transposed. ``path`` is a graph that ``graph.build`` made without quantising, and whose digest was checked. Raises
    ``PackageError`` for a range beyond the file, and, when it is asked for, a weight that holds what is no number.
    """

    def __init__(self, path: Path, architecture: Architecture) -> None:
        self.path = path
        graph = onnx.load_model(str(path), load_external_data=False).graph
        named = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT and t.name not in NO_WEIGHTS}
        self._places = {name: place for t in named.values() for name, place in _places(t, architecture)}

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many values each weight has, without reading any."""
        return {name: math.prod(place.shape) for name, place in self._places.items()}

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        place = self._places[name]
        try:
            values = self._values(place.constant)
        except (KeyError, ValueError) as error:
            raise PackageError(f"{self.path}: {place.constant.name} cannot be read as its entries say: {error!r}") from error
        values = (values if place.constant.name == EMBEDDING else values.T)[place.rows]
        step = max(1, BLOCK_VALUES * len(values) // values.size)
        are_numbers = all(np.isfinite(values[start : start + step]).all() for start in range(0, len(values), step))
        require(are_numbers, f"{self.path}: {name} holds values that are no numbers (infinite or NaN)")
        return values

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _values(self, constant: Any) -> NDArray[np.float32]:
        """A constant as the graph has it, inside it or beside it."""
        shape = tuple(constant.dims)
        if constant.data_location != TensorProto.EXTERNAL:
            return np.frombuffer(constant.raw_data, "<f4").reshape(shape)
        entries = {entry.key: entry.value for entry in constant.external_data}
        data, offset = self.path.parent / PurePosixPath(entries["location"]), int(entries.get("offset", "0"))
        end, size = offset + 4 * math.prod(shape), data.stat().st_size
        require(end <= size, f"{self.path}: {constant.name} ends at byte {end} of {data.name}, which has {size}")
        return np.memmap(data, "<f4", "r", offset, shape)


def _places(constant: Any, architecture: Architecture) -> Iterator[tuple[str, _Place]]:
    """The weights that one constant holds: one, or queries, keys and values one behind the other."""
    shape = tuple(constant.dims) if constant.name == EMBEDDING else tuple(reversed(constant.dims))
    if STACKED not in constant.name:
        name = OWN_NAMES.get(constant.name, constant.name)
        yield name, _Place(constant, slice(None), shape)
        return
    start = 0
    heads = {"q_proj": architecture.num_heads, "k_proj": architecture.num_kv_heads, "v_proj": architecture.num_kv_heads}
    for name, count in heads.items():
        size = count * architecture.head_size
        rows, start = slice(start, start + size), start + size
        yield constant.name.replace(STACKED, name), _Place(constant, rows, (size, *shape[1:]))
