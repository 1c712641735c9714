"""Writes packages and pairs: from weights in memory to a folder that ``package.py`` reads. Needs no framework for training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors.numpy import save

from speculation.engines.architecture import Architecture
from speculation.engines.chat import TEMPLATE_FILE, ChatTemplate
from speculation.engines.files import file_digest
from speculation.engines.graph import build
from speculation.engines.manifest import (
    CONFIG,
    GENERATION,
    MANIFEST,
    PAIR,
    PROMPTS,
    SCHEMA_VERSION,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    PairManifest,
    Variant,
    pair_digest,
)
from speculation.engines.variants import LINEARS, graph_path
from speculation.errors import PackageError, UnknownNameError


@dataclass(frozen=True, slots=True)
class PackageSource:
    """What a package is made of. ``weights`` are rounded to float16; all graphs are built from the rounded ones.

    ``config`` is a Hugging Face ``config.json``; ``weights`` are named as its ``LlamaForCausalLM`` names them.
    ``chat_template`` is Jinja, None for a model that takes no conversations.
    """

    name: str
    config: Mapping[str, Any]
    weights: Mapping[str, NDArray[Any]]
    tokenizer: bytes
    end_token_ids: tuple[int, ...]
    licence: str
    provenance: str
    variants: Sequence[str] = ("fp32",)
    chat_template: str | None = None


def write_package(path: Path, source: PackageSource) -> Manifest:
    """Write one package into a folder that is made if need be.

    Raises ``PackageError`` when the weights do not fit the configuration, ``UnknownNameError`` for an unknown variant.
    """
    architecture = Architecture.from_config(source.config)
    weights = _rounded(source.weights, architecture.is_tied)
    (path / "onnx").mkdir(parents=True, exist_ok=True)
    variants = {name: _write_graph(path, name, architecture, weights) for name in source.variants}
    (path / WEIGHTS).write_bytes(save(weights, metadata={"format": "pt"}))
    (path / TOKENIZER).write_bytes(source.tokenizer)
    write_json(path / CONFIG, dict(source.config))
    write_json(path / GENERATION, {"eos_token_id": list(source.end_token_ids)})
    template = _write_template(path, source.chat_template)
    files = sorted([CONFIG, GENERATION, TOKENIZER, WEIGHTS, *template, *(v.graph for v in variants.values())])
    manifest = Manifest(
        name=source.name,
        licence=source.licence,
        provenance=source.provenance,
        num_parameters=sum(w.size for w in weights.values()),
        context_length=architecture.context_length,
        end_token_ids=source.end_token_ids,
        variants=variants,
        files={name: file_digest(path / name) for name in files},
    )
    write_manifest(path, manifest)
    return manifest


def write_pair(path: Path, name: str, version: int, draft: PackageSource, full: PackageSource, prompts: object) -> PairManifest:
    """Write both halves, the held-out prompts and ``pair.json``. Raises as ``write_package``, and where tokenizers differ."""
    if draft.tokenizer != full.tokenizer:
        raise PackageError("a pair shares one tokenizer.json; those of its draft and its full model differ")
    halves = {folder: write_package(path / folder, source) for folder, source in (("draft", draft), ("full", full))}
    write_json(path / PROMPTS, prompts)
    manifest = PairManifest(
        name=name,
        version=version,
        licence=full.licence,
        draft="draft",
        full="full",
        tokenizer_digest=halves["full"].files[TOKENIZER],
        pair_digest=pair_digest(name, version, halves["draft"], halves["full"]),
        prompts=file_digest(path / PROMPTS),
    )
    write_json(path / PAIR, {"schema_version": SCHEMA_VERSION, **asdict(manifest)})
    return manifest


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a package's manifest into its folder."""
    write_json(path / MANIFEST, {"schema_version": SCHEMA_VERSION, **asdict(manifest)})


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _write_template(path: Path, template: str | None) -> list[str]:
    """The names of the files that were written: one, or none. Raises ``PackageError`` for what is no template."""
    if template is None:
        return []
    ChatTemplate(template)
    (path / TEMPLATE_FILE).write_text(template, "utf-8")
    return [TEMPLATE_FILE]


def _rounded(weights: Mapping[str, NDArray[Any]], is_tied: bool) -> dict[str, NDArray[np.float16]]:
    """Float16 weights, without the head where the embeddings serve as one."""
    dropped = {"lm_head.weight"} if is_tied else set()
    kept = {n: np.ascontiguousarray(w, np.float16) for n, w in sorted(weights.items()) if n not in dropped}
    spoilt = [name for name, values in kept.items() if not np.isfinite(values).all()]
    if spoilt:
        raise PackageError(f"weights that float16 cannot hold: {', '.join(spoilt)}")
    return kept


def _write_graph(path: Path, variant: str, architecture: Architecture, weights: Mapping[str, NDArray[Any]]) -> Variant:
    if variant not in LINEARS:
        raise UnknownNameError("variant", variant, LINEARS)
    model, weight_bytes = build(architecture, weights, LINEARS[variant])
    onnx.save_model(model, str(path / graph_path(variant)))
    return Variant(graph_path(variant), weight_bytes)
