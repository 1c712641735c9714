"""Adds a quantised variant to a package, from the weights that the package has, one weight at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from speculation.engines.checkpoint import Checkpoint
from speculation.engines.files import checked, read_json, require
from speculation.engines.graph import Linear
from speculation.engines.graph_weights import GraphWeights
from speculation.engines.importance import importance_of, read_text
from speculation.engines.manifest import INDEX, MANIFEST, PAIR, WEIGHTS, Manifest, PairManifest, check_is_no_pair
from speculation.engines.package import Package
from speculation.engines.package_writer import write_manifest
from speculation.engines.quantise import BLOCK, BLOCKS, Int4Linear
from speculation.engines.staging import check_is_free, digests_of, staged_files, staged_folder
from speculation.engines.variants import (
    CALIBRATED,
    EXTERNAL_BYTES,
    INT8,
    PLAIN,
    CountedWeights,
    Progress,
    blocks_name,
    write_graph,
)
from speculation.errors import InvalidRequestError, PackageError, UnknownNameError

INT4_KIND, INT8_KIND = "int4", "int8"
KINDS = (INT8_KIND, INT4_KIND)


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What to add to which package. ``kind`` is one of ``KINDS``; ``block`` weights share a scale, and ``calibrate`` is a text
    that says which of them count most, with ``int4`` alone. ``int8`` without a block has a scale for each row of a matrix.

    With ``out``, a copy of the package gets the variant, and the package stays as it is. ``external_bytes``: as ``Conversion``.
    """

    package: Path
    kind: str
    block: int | None = None
    out: Path | None = None
    external_bytes: int = EXTERNAL_BYTES
    calibrate: Path | None = None

    @property
    def variant(self) -> str:
        """What the variant is called. Raises ``UnknownNameError`` for another kind, ``InvalidRequestError`` for the block."""
        if self.kind not in KINDS:
            raise UnknownNameError("kind of weights", self.kind, KINDS, "to")
        if self.kind == INT8_KIND and self.calibrate is not None:
            raise InvalidRequestError("int8 covers the largest weight of each scale, and has nothing to calibrate", "calibrate")
        if self.kind == INT8_KIND and self.block is None:
            return INT8
        if self._block not in BLOCKS:
            sizes = ", ".join(map(str, BLOCKS))
            raise InvalidRequestError(f"a block must be a power of two, one of {sizes}; not {self.block}", "block")
        bits = 8 if self.kind == INT8_KIND else 4
        return blocks_name(bits, self._block) + (CALIBRATED if self.calibrate is not None else "")

    def linear(self, package: Package, progress: Progress) -> Linear | None:
        """How a calibrated variant multiplies; None for others. Runs the fp32 graph over the text."""
        if self.calibrate is None:
            return None
        text = read_text(self.calibrate)
        importance = importance_of(package, text, lambda done, total: progress("text", done, total))
        return Int4Linear(self._block, importance)

    @property
    def _block(self) -> int:
        return BLOCK if self.block is None else self.block


def add_quantised(wanted: Quantisation, progress: Progress = lambda variant, done, total: None) -> Manifest:
    """Write the variant's graph and the manifest that lists it; about twice the largest weight in float32 is in memory.

    Weights are those of ``model.safetensors`` where the package has it, else of its fp32 graph. All of it happens or nothing.
    Raises ``InvalidRequestError`` for a variant that is there already, a block that cannot be, an ``out`` that holds something,
    and for one half of a pair, which names its halves by their files; ``PackageError`` for a folder that is no package, a
    damaged file, a package without weights in full, or without the fp32 graph that a calibration runs.
    """
    variant, package = wanted.variant, _opened(wanted.package)
    _check_request(wanted, package)
    for name in sorted(package.manifest.files):
        checked(package.path, name, package.manifest.files)
    weights, architecture = _weights(package), replace(package.architecture, context_length=package.context_length)
    linear = wanted.linear(package, progress)
    with _staged(wanted, package.manifest) as folder:
        made = write_graph(folder, variant, architecture, weights.told(variant, progress), wanted.external_bytes, linear)
        files = {**package.manifest.files, **digests_of(folder)}
        manifest = replace(package.manifest, variants={**package.manifest.variants, variant: made}, files=files)
        write_manifest(folder, manifest)
        changed = f"{package.path / MANIFEST} was changed by something else meanwhile; try again"
        require(Package(package.path).manifest == package.manifest, changed)
    return manifest


def _opened(path: Path) -> Package:
    """The package in a folder. Where there is none, the refusal names the command that makes one."""
    check_is_no_pair(path)
    if path.is_dir() and not (path / MANIFEST).exists():
        is_checkpoint = any((path / name).exists() for name in (WEIGHTS, INDEX))
        source = path if is_checkpoint else "CHECKPOINT"
        what = "" if is_checkpoint else ", of the checkpoint that any graphs in it were exported from"
        command = f"outrider models convert {source} --out DIR --variant fp32"
        raise PackageError(f"{path} has no {MANIFEST}, so it is no package; `{command}` makes one{what}")
    return Package(path)


def _check_request(wanted: Quantisation, package: Package) -> None:
    if wanted.variant in package.variants:
        graph = package.manifest.variants[wanted.variant].graph
        raise InvalidRequestError(f"{package.path} has the variant {wanted.variant} already, in {graph}", "to")
    if wanted.out is not None:
        check_is_free(wanted.out)
    elif _is_half_of_a_pair(package.path):
        hint = "which knows it by the digests of its files; name another folder for a copy that has the variant (--out)"
        pair = package.path.resolve().parent
        raise InvalidRequestError(f"{package.path} is a half of the pair in {pair}, {hint}", "out")


def _is_half_of_a_pair(path: Path) -> bool:
    pair = path.resolve().parent / PAIR
    if not pair.is_file():
        return False
    manifest = PairManifest.from_json(read_json(pair))
    return path.resolve().name in (manifest.draft, manifest.full)


def _weights(package: Package) -> CountedWeights:
    if WEIGHTS in package.manifest.files:
        checkpoint = Checkpoint(package.path)
        return CountedWeights(checkpoint, checkpoint.sizes, package.path)
    has_plain = PLAIN in package.variants
    hint = "make it again of its checkpoint: outrider models convert CHECKPOINT --out DIR --variant fp32"
    require(has_plain, f"{package.path} has neither {WEIGHTS} nor the variant {PLAIN}, so no weights to quantise; {hint}")
    graph = GraphWeights(package.graph(PLAIN), package.architecture)
    return CountedWeights(graph, graph.sizes, package.path)


@contextmanager
def _staged(wanted: Quantisation, manifest: Manifest) -> Iterator[Path]:
    """A folder for what is new; at the end of the block it is in the package, or in a copy of it."""
    if wanted.out is None:
        with staged_files(wanted.package, last=MANIFEST) as folder:
            yield folder
        return
    with staged_folder(wanted.out) as folder:
        yield folder
        for name in manifest.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(wanted.package / name, folder / name)
