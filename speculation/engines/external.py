"""Large constants of a graph in a file of their own, written one after the other (ONNX external data)."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

ALIGNMENT_BYTES = 4096
"""A page of memory: only from there can a runtime map a constant instead of copying it."""
INLINE_BYTES = 1024
"""Constants up to this size stay in the graph; a page for each of them would be waste."""
SLICE_BYTES = 1 << 20


class ExternalData:
    """A ``ConstantStore`` over an open file that the graph will know as ``location``, beside its own."""

    def __init__(self, file: BinaryIO, location: str) -> None:
        self._file, self._location = file, location

    def tensor(self, name: str, values: NDArray[Any]) -> TensorProto | None:
        """Write ``values``, of any strides, in C order and slice by slice: a transposed matrix is never copied whole."""
        if values.nbytes <= INLINE_BYTES:
            return None
        offset = self._aligned()
        step = max(1, SLICE_BYTES * len(values) // values.nbytes)
        for start in range(0, len(values), step):
            self._file.write(np.ascontiguousarray(values[start : start + step]).data)
        return self._reference(name, values, offset)

    def _aligned(self) -> int:
        """Fill up to the next page; its offset in bytes."""
        self._file.write(bytes(-self._file.tell() % ALIGNMENT_BYTES))
        return self._file.tell()

    def _reference(self, name: str, values: NDArray[Any], offset: int) -> TensorProto:
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor = TensorProto(name=name, data_type=kind, dims=values.shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self._location), ("offset", offset), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor
