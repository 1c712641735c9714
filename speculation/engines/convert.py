"""From a Hugging Face checkpoint to a package, weight by weight, with numpy and ``onnx`` alone."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from speculation.engines.architecture import DEFAULT_CONTEXT, Architecture
from speculation.engines.checkpoint import Checkpoint
from speculation.engines.external import ExternalData
from speculation.engines.files import file_digest, require
from speculation.engines.graph import build
from speculation.engines.manifest import MANIFEST, SCHEMA_VERSION, TOKENIZER, Manifest, Variant
from speculation.engines.package_writer import GRAPHS, LINEARS, write_json
from speculation.errors import InvalidRequestError, PackageError, UnknownNameError

EXTERNAL_BYTES = 64 << 20
"""Models with more float32 weights than this keep the constants of their graphs in files of their own."""
DATA_SUFFIX = "_data"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
UNSTATED = "not stated; see where the checkpoint came from"
COMPUTED = ".rotary_emb.inv_freq"
"""Older checkpoints hold rotary frequencies, which follow from the configuration."""

Progress = Callable[[str, int, int], None]
"""Told after each weight: the variant, bytes of weights (as float32) that went through, and bytes in all."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What to make of which checkpoint. ``context_length`` and ``end_token_ids`` are the checkpoint's where they are left out.

    ``external_bytes``: float32 weights of more bytes than this are kept beside their graph, not in it.
    """

    checkpoint: Path
    out: Path
    variants: Sequence[str] = ("fp32",)
    context_length: int | None = None
    name: str | None = None
    licence: str | None = None
    end_token_ids: tuple[int, ...] = ()
    external_bytes: int = EXTERNAL_BYTES


def convert(wanted: Conversion, progress: Progress = lambda variant, done, total: None) -> Manifest:
    """Make a package; at most about twice the bytes of the largest weight in float32 are in memory.

    ``out`` appears whole or not at all. Raises ``InvalidRequestError`` where it exists and holds something, and for a context
    that the model has not; ``UnknownNameError`` for a variant that does not exist; ``PackageError`` for a checkpoint that is
    damaged, is of an architecture that cannot be built, or holds weights that the graph would leave out.
    """
    _check_request(wanted)
    checkpoint = Checkpoint(wanted.checkpoint)
    architecture = _cut(Architecture.from_config(checkpoint.config), wanted.context_length)
    end_token_ids = _end_token_ids(checkpoint, wanted.end_token_ids, architecture.vocabulary_size)
    _check_tokenizer(checkpoint.path / TOKENIZER, architecture.vocabulary_size)
    _check_tied(checkpoint, architecture)
    with _staged(wanted.out) as folder:
        weights = _Counted(checkpoint)
        variants = {v: _write_graph(folder, v, architecture, weights.told(v, progress), wanted) for v in wanted.variants}
        for name in checkpoint.small_files:
            shutil.copyfile(checkpoint.path / name, folder / name)
        manifest = Manifest(
            name=wanted.name or checkpoint.path.resolve().name,
            licence=wanted.licence or UNSTATED,
            provenance=_provenance(checkpoint),
            num_parameters=sum(checkpoint.tensor(name).size for name in weights.used),
            context_length=architecture.context_length,
            end_token_ids=end_token_ids,
            variants=variants,
            files=_digests(folder),
        )
        write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, **asdict(manifest)})
    return manifest


class _Counted(Mapping[str, NDArray[np.float32]]):
    """A checkpoint's weights that remembers which were used, and tells of each."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.used: set[str] = set()
        self._total = sum(4 * checkpoint.tensor(name).size for name in checkpoint)
        self._done = 0
        self._tell: Callable[[int], None] = lambda done: None

    def told(self, variant: str, progress: Progress) -> _Counted:
        """The same weights from the start, for the graph of another variant."""
        self._done = 0
        self._tell = lambda done: progress(variant, min(done, self._total), self._total)
        return self

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        values = self.checkpoint[name]
        self.used.add(name)
        self._done += values.nbytes
        self._tell(self._done)
        return values

    def __contains__(self, name: object) -> bool:
        return name in self.checkpoint

    def __iter__(self) -> Iterator[str]:
        return iter(self.checkpoint)

    def __len__(self) -> int:
        return len(self.checkpoint)

    def check_all_used(self, is_tied: bool) -> None:
        """A weight that the graph leaves out would make it another model. Raises ``PackageError``."""
        needless = {HEAD} if is_tied else set()
        left = sorted(n for n in self.checkpoint if n not in self.used | needless and not n.endswith(COMPUTED))
        names = ", ".join(left[:4]) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
        require(not left, f"{self.checkpoint.path} holds weights that its model_type has no place for: {names}")


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its name at the end of the block, and goes away where the block fails."""
    folder = out.parent / f".{out.name}.{secrets.token_hex(4)}.partial"
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(out)
    except OSError as error:
        raise PackageError(f"{out} could not be made: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_graph(folder: Path, variant: str, architecture: Architecture, weights: _Counted, wanted: Conversion) -> Variant:
    path = folder / GRAPHS[variant]
    path.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        store = None
        if sum(4 * weights.checkpoint.tensor(name).size for name in weights) > wanted.external_bytes:
            data = path.with_name(path.name + DATA_SUFFIX)
            store = ExternalData(stack.enter_context(data.open("wb")), data.name)
        model, weight_bytes = build(architecture, weights, LINEARS[variant], store)
    weights.check_all_used(architecture.is_tied)
    path.write_bytes(model.SerializeToString())
    return Variant(GRAPHS[variant], weight_bytes)


def _check_request(wanted: Conversion) -> None:
    for variant in wanted.variants:
        if variant not in LINEARS:
            raise UnknownNameError("variant", variant, LINEARS)
    if len(set(wanted.variants)) != len(wanted.variants) or not wanted.variants:
        raise InvalidRequestError(f"name each variant once, and one at least, not {list(wanted.variants)}", "variant")
    is_taken = wanted.out.is_symlink() or (wanted.out.exists() and not (wanted.out.is_dir() and not any(wanted.out.iterdir())))
    if is_taken:
        raise InvalidRequestError(f"{wanted.out} exists already; name a new or an empty folder", "out")


def _cut(architecture: Architecture, context_length: int | None) -> Architecture:
    """The architecture for sessions of so many tokens. Stretched rotary positions keep the model's own figures."""
    positions = architecture.context_length
    length = min(positions, DEFAULT_CONTEXT) if context_length is None else context_length
    if not 0 < length <= positions:
        raise InvalidRequestError(f"the context must be from 1 to the model's {positions} positions, not {length}", "context")
    return replace(architecture, context_length=length)


def _end_token_ids(checkpoint: Checkpoint, given: tuple[int, ...], vocabulary_size: int) -> tuple[int, ...]:
    """Those that were asked for, else those of ``generation_config.json``, else those of ``config.json``."""
    found: Any = list(given)
    for source in (checkpoint.generation_config(), checkpoint.config):
        found = source.get("eos_token_id") if found in (None, []) else found
    where = f"{checkpoint.path}: neither generation_config.json nor config.json has eos_token_id"
    require(found not in (None, []), f"{where}; say what ends a text with --end-token ID")
    ids = found if isinstance(found, list) else [found]
    fits = all(type(token) is int and 0 <= token < vocabulary_size for token in ids)
    require(fits, f"{checkpoint.path}: end tokens {found!r} must be whole numbers from 0 to {vocabulary_size - 1}")
    return tuple(ids)


def _check_tokenizer(path: Path, vocabulary_size: int) -> None:
    try:
        size = Tokenizer.from_buffer(path.read_bytes()).get_vocab_size()
    except Exception as error:
        raise PackageError(f"{path} is not a tokenizer: {error}") from error
    require(size <= vocabulary_size, f"{path} has {size} tokens; config.json has a vocabulary of {vocabulary_size}")


def _check_tied(checkpoint: Checkpoint, architecture: Architecture) -> None:
    """Tied embeddings that are stored twice must be the same, or other software would run another model."""
    if architecture.is_tied and HEAD in checkpoint and EMBEDDING in checkpoint:
        differ = f"{checkpoint.path}: tie_word_embeddings is true, but {HEAD} differs from {EMBEDDING}"
        require(checkpoint.are_equal(HEAD, EMBEDDING), f"{differ}; say false in config.json to keep the head")


def _provenance(checkpoint: Checkpoint) -> str:
    digests = ", ".join(f"{path.name} {file_digest(path)}" for path in checkpoint.weight_files)
    return f"converted from the checkpoint {checkpoint.path.resolve().name}; SHA-256 of its weights: {digests}"


def _digests(folder: Path) -> dict[str, str]:
    """The digest of every file of a folder, by its path in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
