"""From a Hugging Face checkpoint to a package, weight by weight, with numpy and ``onnx`` alone."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speculation.engines.architecture import DEFAULT_CONTEXT, Architecture
from speculation.engines.checkpoint import Checkpoint
from speculation.engines.files import file_digest, require
from speculation.engines.manifest import CONFIG, TOKENIZER, Manifest
from speculation.engines.package_writer import write_manifest
from speculation.engines.staging import check_is_free, digests_of, staged_folder
from speculation.engines.tokenizer_files import load_tokenizer
from speculation.engines.variants import EXTERNAL_BYTES, LINEARS, CountedWeights, Progress, check_tied, write_graph
from speculation.errors import InvalidRequestError, UnknownNameError

UNSTATED = "not stated; see where the checkpoint came from"


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

    ``out`` appears whole or not at all. Raises ``InvalidRequestError`` where it exists and holds something, for a context that
    the model has not, and for a name or a licence that is no UTF-8; ``UnknownNameError`` for a variant that does not exist;
    ``PackageError`` for a checkpoint that is damaged, is of an architecture that cannot be built, or holds weights that the
    graph would leave out.
    """
    _check_request(wanted)
    checkpoint = Checkpoint(wanted.checkpoint)
    architecture = _cut(Architecture.from_config(checkpoint.config), wanted.context_length)
    end_token_ids = _end_token_ids(checkpoint, wanted.end_token_ids, architecture.vocabulary_size)
    load_tokenizer(checkpoint.path / TOKENIZER, architecture.vocabulary_size, CONFIG)  # as the package's will be
    check_tied(checkpoint, architecture.is_tied)
    with staged_folder(wanted.out) as folder:
        weights, limit_bytes = CountedWeights(checkpoint, checkpoint.sizes, checkpoint.path), wanted.external_bytes
        variants = {v: write_graph(folder, v, architecture, weights.told(v, progress), limit_bytes) for v in wanted.variants}
        for name in checkpoint.small_files:
            shutil.copyfile(checkpoint.path / name, folder / name)
        manifest = Manifest(
            name=wanted.name or _name_of(checkpoint),
            licence=wanted.licence or UNSTATED,
            provenance=_provenance(checkpoint),
            num_parameters=sum(checkpoint.sizes[name] for name in weights.used),
            context_length=architecture.context_length,
            end_token_ids=end_token_ids,
            variants=variants,
            files=digests_of(folder),
        )
        write_manifest(folder, manifest)
    return manifest


def _check_request(wanted: Conversion) -> None:
    for key, text in (("name", wanted.name), ("licence", wanted.licence)):
        if text is not None and text != _in_utf8(text):
            raise InvalidRequestError(f"--{key} is text in UTF-8 (got {text!a})", key)
    for variant in wanted.variants:
        if variant not in LINEARS:
            raise UnknownNameError("variant", variant, LINEARS)
    if len(set(wanted.variants)) != len(wanted.variants) or not wanted.variants:
        raise InvalidRequestError(f"name each variant once, and one at least, not {list(wanted.variants)}", "variant")
    check_is_free(wanted.out)


def _cut(architecture: Architecture, context_length: int | None) -> Architecture:
    """The architecture for sessions of so many tokens. Stretched rotary positions keep the model's own figures, and are those
    of the model's short texts where nothing is said."""
    positions, rotary = architecture.context_length, architecture.rotary
    length = min(rotary.fixed_context(positions), DEFAULT_CONTEXT) if context_length is None else context_length
    if not 0 < length <= positions:
        ends = f" ({rotary.note(positions)})" if rotary.kind == "dynamic" else ""
        raise InvalidRequestError(
            f"the context must be from 1 to the model's {positions} positions{ends}, not {length}", "context"
        )
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


def _provenance(checkpoint: Checkpoint) -> str:
    digests = ", ".join(f"{path.name} {file_digest(path)}" for path in checkpoint.weight_files)
    return f"converted from the checkpoint {_name_of(checkpoint)}; SHA-256 of its weights: {digests}"


def _name_of(checkpoint: Checkpoint) -> str:
    return _in_utf8(checkpoint.path.resolve().name)


def _in_utf8(text: str) -> str:
    """What a manifest can hold of a name: the system's may have other bytes."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
