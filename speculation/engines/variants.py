"""The variants that a graph comes in, and how one is written from weights that are read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from speculation.engines.architecture import Architecture
from speculation.engines.checkpoint import Checkpoint
from speculation.engines.external import ExternalData
from speculation.engines.files import require
from speculation.engines.graph import Float32Linear, Linear, Weights, build
from speculation.engines.manifest import Variant
from speculation.engines.quantise import BLOCK, BLOCKS, Int4Linear, Int8Linear, Int8RowLinear

PLAIN, INT8 = "fp32", "i8"
CALIBRATED = "_cal"
"""Behind the name of a 4-bit variant whose scales were found with a text."""


def blocks_name(bits: int, block: int) -> str:
    """What the variant with blocks of so many weights is called, in 4 bits or 8; the usual size goes without saying."""
    return f"q{bits}" if block == BLOCK else f"q{bits}_b{block}"


LINEARS: Mapping[str, Linear] = {
    PLAIN: Float32Linear(),
    blocks_name(4, BLOCK): Int4Linear(),
    INT8: Int8RowLinear(),
    blocks_name(8, BLOCK): Int8Linear(),
    **{blocks_name(4, block): Int4Linear(block) for block in BLOCKS if block != BLOCK},
    **{blocks_name(8, block): Int8Linear(block) for block in BLOCKS if block != BLOCK},
}
"""How each variant multiplies."""
EXTERNAL_BYTES = 64 << 20
"""Models with more float32 weights than this keep the constants of their graphs in files of their own."""
DATA_SUFFIX = "_data"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
COMPUTED = ".rotary_emb.inv_freq"
"""Older checkpoints hold rotary frequencies, which follow from the configuration."""


def graph_path(variant: str) -> str:
    """Where a variant's graph lies in a package."""
    return "onnx/model.onnx" if variant == PLAIN else f"onnx/model_{variant}.onnx"


Progress = Callable[[str, int, int], None]
"""Told after each weight: the variant, bytes of weights (as float32) that went through, and bytes in all."""


class CountedWeights(Mapping[str, NDArray[np.float32]]):
    """Weights that remember which were used, and tell of each.

    ``sizes``: how many values each has, known without reading it. ``origin``: what a refusal calls the place they are from.
    """

    def __init__(self, weights: Weights, sizes: Mapping[str, int], origin: Path) -> None:
        self.used: set[str] = set()
        self.num_bytes = 4 * sum(sizes.values())
        self._weights, self._origin = weights, origin
        self._done = 0
        self._tell: Callable[[int], None] = lambda done: None

    def told(self, variant: str, progress: Progress) -> CountedWeights:
        """The same weights from the start, for the graph of another variant."""
        self._done = 0
        self._tell = lambda done: progress(variant, min(done, self.num_bytes), self.num_bytes)
        return self

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        values = self._weights[name]
        self.used.add(name)
        self._done += values.nbytes
        self._tell(self._done)
        return values

    def __contains__(self, name: object) -> bool:
        return name in self._weights

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)

    def check_all_used(self, is_tied: bool) -> None:
        """A weight that the graph leaves out would make it another model. Raises ``PackageError``."""
        needless = {HEAD} if is_tied else set()
        left = sorted(n for n in self if n not in self.used | needless and not n.endswith(COMPUTED))
        names = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        require(not left, f"{self._origin} holds weights that its model_type has no place for: {names}")


def check_tied(checkpoint: Checkpoint, is_tied: bool) -> None:
    """Tied embeddings that are stored twice must be the same, or other software would run another model. Raises
    ``PackageError``."""
    if is_tied and HEAD in checkpoint and EMBEDDING in checkpoint:
        differ = f"{checkpoint.path}: tie_word_embeddings is true, but {HEAD} differs from {EMBEDDING}"
        require(checkpoint.are_equal(HEAD, EMBEDDING), f"{differ}; say false in config.json to keep the head")


def write_graph(
    folder: Path,
    variant: str,
    architecture: Architecture,
    weights: CountedWeights,
    external_bytes: int = EXTERNAL_BYTES,
    linear: Linear | None = None,
) -> Variant:
    """Write one variant's graph into a folder, its constants beside it where the weights take more than ``external_bytes``.

    ``linear`` multiplies, where the variant is not one of ``LINEARS``. Raises ``PackageError`` for weights that are missing,
    have another shape than ``architecture`` says, or are left over.
    """
    path = folder / graph_path(variant)
    path.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        store = None
        if weights.num_bytes > external_bytes:
            data = path.with_name(path.name + DATA_SUFFIX)
            store = ExternalData(stack.enter_context(data.open("wb")), data.name)
        model, weight_bytes = build(architecture, weights, linear or LINEARS[variant], store)
    weights.check_all_used(architecture.is_tied)
    path.write_bytes(model.SerializeToString())
    return Variant(graph_path(variant), weight_bytes)
