"""One safetensors file, read with suspicion: a checked header, and tensors a block at a time.

The format: the header's size as 8 bytes (little endian), a JSON header of ``name -> dtype, shape, data_offsets``, then the data
without holes. The ``safetensors`` library reads bfloat16 into numpy only where another package has taught numpy that type, and
its refusals name no file; so the header, a page of code, is read here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from speculation.engines.files import parse_json, require, require_no_pointer

SIZE_BYTES = 8
HEADER_LIMIT_BYTES = 16 << 20
MOST_BYTES = 1 << 128
"""Python writes no number of many thousand digits out, and the sizes of a shape may multiply to one."""
BLOCK_WEIGHTS = 1 << 18
"""Weights that are read and converted at a time."""
METADATA = "__metadata__"
ENTRIES = {"dtype", "shape", "data_offsets"}
ITEM_BYTES: Mapping[str, int] = {"F32": 4, "F16": 2, "BF16": 2}
MASK_BYTES: Mapping[str, int] = {"BOOL": 1, "U8": 1}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies: ``begin`` and ``end`` are bytes from the start of the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class SafetensorsFile:
    """The tensors of one file by name; ``masks`` are names of what is no weight and is left out.

    Raises ``PackageError``, which names the file, what was found and what would be right, for a header that is too long or
    means nothing, a type other than float32, float16 and bfloat16, a range that does not fit its shape, ranges that overlap,
    leave holes or reach beyond the file, and, when it is read, a tensor that holds what is no number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        header, start, size = _header(path)
        found = {name: _tensor(path, name, entry, start) for name, entry in header.items() if name != METADATA}
        require(bool(found), f"{path} holds no tensor; a checkpoint's file holds its weights")
        self._check_ranges(found, start, size)
        self.masks = {name for name, tensor in found.items() if _is_mask(name, tensor.dtype, tensor.shape)}
        self.tensors = {name: tensor for name, tensor in found.items() if name not in self.masks}

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor in float32. No second copy of it is made on the way."""
        tensor, start = self.tensors[name], 0
        values = np.empty(tensor.size, np.float32)
        for block in self.blocks(name):
            values[start : start + block.size] = block
            start += block.size
        return values.reshape(tensor.shape)

    def blocks(self, name: str) -> Iterator[NDArray[np.float32]]:
        """A tensor's values in float32, at most ``BLOCK_WEIGHTS`` at a time."""
        tensor = self.tensors[name]
        with self.path.open("rb") as file:
            file.seek(tensor.begin)
            for start in range(0, tensor.size, BLOCK_WEIGHTS):
                yield _next(file, min(BLOCK_WEIGHTS, tensor.size - start), tensor.dtype, f"{self.path}: {name}")

    def _check_ranges(self, tensors: Mapping[str, Tensor], start: int, size: int) -> None:
        """The format wants the data filled without holes, so each tensor begins where the one before it ends."""
        expected = start
        for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
            what = "overlaps the tensor before it" if tensor.begin < expected else "leaves a hole before it"
            require(tensor.begin == expected, f"{self.path}: {name} {what}: it begins at {tensor.begin}, not at {expected}")
            expected = tensor.end
        beyond = f"{self.path} has {size} bytes, but its header places tensors up to byte {expected}"
        require(expected == size, f"{beyond}; the file is cut off, or something was put behind it")


def _header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header's entries, where the data starts, and the size of the file, in bytes."""
    require_no_pointer(path)
    size = path.stat().st_size
    require(size >= SIZE_BYTES, f"{path} has {size} bytes; a safetensors file begins with {SIZE_BYTES} for its header's size")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(SIZE_BYTES), "little")
        limit = min(HEADER_LIMIT_BYTES, size - SIZE_BYTES)
        require(length <= limit, f"{path} says that its header has {length} bytes; it may have {limit} at most")
        header = parse_json(file.read(length), f"the header of {path}")
    require(isinstance(header, dict), f"the header of {path} must be a JSON object")
    return header, SIZE_BYTES + length, size


def _tensor(path: Path, name: str, entry: Any, start: int) -> Tensor:
    """An entry of the header, once it fits together in itself."""
    where = f"{path}: {name}"
    require(isinstance(entry, dict) and entry.keys() == ENTRIES, f"{where} must have {', '.join(sorted(ENTRIES))}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    require(_are_sizes(shape), f"{where} has shape {shape!r}; a shape is a list of whole numbers from 0 on")
    is_known = isinstance(dtype, str) and (dtype in ITEM_BYTES or _is_mask(name, dtype, shape))
    require(is_known, f"{where} has dtype {dtype!r}; converted are {', '.join(ITEM_BYTES)}, not what is quantised already")
    require(_are_sizes(offsets) and len(offsets) == 2, f"{where} has data_offsets {offsets!r}; they are two whole numbers")
    wanted = math.prod(shape) * {**ITEM_BYTES, **MASK_BYTES}[dtype]
    found = offsets[1] - offsets[0]
    takes = wanted if wanted < MOST_BYTES else "more than any file has"
    require(found == wanted, f"{where} has a range of {found} bytes; {dtype} of shape {shape} takes {takes}")
    return Tensor(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _is_mask(name: str, dtype: str, shape: Sequence[int]) -> bool:
    """What older software saved of its attention (GPT-NeoX, GPT-J, GPT-Neo): a table of who sees whom, in bytes, and the number
    that stood for the others, which is infinite in float16. Both follow from the configuration."""
    is_table = dtype in MASK_BYTES and name.endswith(".bias") and len(shape) == 4 and tuple(shape) == (1, 1, shape[2], shape[2])
    return is_table or (name.endswith(".masked_bias") and math.prod(shape) == 1)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _next(file: BinaryIO, count: int, dtype: str, where: str) -> NDArray[np.float32]:
    """The next ``count`` items of a file, in float32."""
    content = file.read(count * ITEM_BYTES[dtype])
    require(len(content) == count * ITEM_BYTES[dtype], f"{where} ends early; the file was changed while it was read")
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        values = (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(content, "<f4" if dtype == "F32" else "<f2").astype(np.float32, copy=False)
    require(bool(np.isfinite(values).all()), f"{where} holds values that are no numbers (infinite or NaN)")
    return values
