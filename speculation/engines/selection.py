"""Which files of a folder, here or elsewhere, are the model: configurations, tokenizer, the graphs or weights asked for."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from speculation.engines.checkpoint import COMPANIONS, INDEX_LIMIT_BYTES
from speculation.engines.described import ELSEWHERE
from speculation.engines.export_facts import genai_facts, transformers_graph
from speculation.engines.exports import GENAI_CONFIG_LIMIT_BYTES, GENAI_VARIANT
from speculation.engines.files import CONFIG_LIMIT_BYTES, external_files, read_bounded_json, require
from speculation.engines.layouts import EXPORT_MANIFEST, GENAI_CONFIG, graphs_among
from speculation.engines.manifest import (
    CONFIG,
    INDEX,
    MANIFEST,
    PAIR,
    PROMPTS,
    TOKENIZER,
    WEIGHTS,
    Manifest,
    PairManifest,
)
from speculation.engines.model import TRANSFORMERS
from speculation.errors import InvalidRequestError, PackageError, UnknownNameError

TERMS = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "NOTICE", "NOTICE.txt", "USE_POLICY.md")
"""The terms of the weights go with them."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")

Fetch = Callable[[str], Path]
"""Brings one file here; gives where it lies then."""


def files_of(names: Collection[str], variants: Sequence[str], fetch: Fetch) -> list[str]:
    """The files to take, of all ``names`` that there are; those that name others are fetched and read on the way.

    ``variants``: of an export those graphs; ``transformers`` is the weights of a checkpoint, ``elsewhere`` no weights at all.
    May be empty where there is nothing to choose. Raises ``InvalidRequestError`` where there is, ``UnknownNameError``, and
    ``PackageError`` for what is no model, or names a file that is not there.
    """
    for name in names:
        _check_plain(name)
    if PAIR in names or MANIFEST in names:
        if variants:
            what = "a pair" if PAIR in names else "a package"
            raise InvalidRequestError(
                f"{what} is taken whole, since its digests tie its files; leave the variant out", "variant"
            )
        return sorted(_of_pair(names, fetch) if PAIR in names else _of_package(names, fetch))
    return sorted(_of_published(names, variants, fetch))


def _of_pair(names: Collection[str], fetch: Fetch) -> set[str]:
    pair = PairManifest.from_json(_json(fetch(PAIR), CONFIG_LIMIT_BYTES))
    found = {PAIR, PROMPTS}
    for half in (pair.draft, pair.full):
        inner = {name.removeprefix(f"{half}/") for name in names if name.startswith(f"{half}/")}
        require(MANIFEST in inner, f"{PAIR} names {half}, which has no {MANIFEST}")
        found |= {f"{half}/{name}" for name in _of_package(inner, _inside(half, fetch))}
    return _there(found, names)


def _inside(folder: str, fetch: Fetch) -> Fetch:
    return lambda name: fetch(f"{folder}/{name}")


def _of_package(names: Collection[str], fetch: Fetch) -> set[str]:
    manifest = Manifest.from_json(_json(fetch(MANIFEST), CONFIG_LIMIT_BYTES))
    return _there({MANIFEST, *manifest.files}, names)


def _of_published(names: Collection[str], variants: Sequence[str], fetch: Fetch) -> set[str]:
    graphs, is_genai = _graphs(names, fetch), GENAI_CONFIG in names
    _there({TOKENIZER} if is_genai else {CONFIG, TOKENIZER}, names)
    chosen = _chosen(names, graphs, variants)
    # Beside no graph it would say that there is one.
    told_by = GENAI_CONFIG if is_genai and not {TRANSFORMERS, ELSEWHERE} & set(chosen) else CONFIG
    taken = {told_by, TOKENIZER, *(name for name in (CONFIG, *COMPANIONS, *TERMS) if name in names)}
    for variant in chosen:
        if variant == TRANSFORMERS:
            taken |= _weights(names, fetch)
        elif variant != ELSEWHERE:
            taken |= _graph(_there({graphs[variant]}, names).pop(), fetch) | ({EXPORT_MANIFEST} & set(names))
    return _there(taken, names)


def _graphs(names: Collection[str], fetch: Fetch) -> Mapping[str, str]:
    """Variants and their files, told as ``layouts.layout_of`` tells a layout."""
    graphs = graphs_among(names)
    if any("/" in graph for graph in graphs.values()):
        return graphs
    if GENAI_CONFIG in names:
        return {GENAI_VARIANT: genai_facts(_json(fetch(GENAI_CONFIG), GENAI_CONFIG_LIMIT_BYTES))[0]}
    if EXPORT_MANIFEST in names and any(name.endswith(".onnx") for name in names):
        return dict([transformers_graph(_json(fetch(EXPORT_MANIFEST), CONFIG_LIMIT_BYTES))])
    return graphs


def _chosen(names: Collection[str], graphs: Mapping[str, str], variants: Sequence[str]) -> Sequence[str]:
    known = [*graphs, *([TRANSFORMERS] if WEIGHTS in names or INDEX in names else [])]
    for variant in variants:
        if variant not in (*known, ELSEWHERE):
            raise UnknownNameError("variant", variant, [*known, ELSEWHERE], "variant")
    if len(variants) > 1 and {TRANSFORMERS, ELSEWHERE} & set(variants):
        alone = "a folder with graphs is run by its graphs, and one without runs its weights"
        raise InvalidRequestError(f"{TRANSFORMERS} and {ELSEWHERE} are taken alone: {alone}", "variant")
    if variants:
        return variants
    if len(known) > 1:
        raise InvalidRequestError(f"say which of {', '.join(known)} to take, with --variant; it may repeat", "variant")
    if not known:
        pickles = sorted(name for name in names if name.endswith(PICKLES))
        has = f"but {', '.join(pickles[:3])}, and a pickle can run code" if pickles else f"only {', '.join(sorted(names)[:8])}"
        hint = f"--variant {ELSEWHERE} takes what describes a model that a server elsewhere runs"
        raise PackageError(f"there is no graph, and neither {WEIGHTS} nor {INDEX}, {has}; {hint}")
    return known


def _weights(names: Collection[str], fetch: Fetch) -> set[str]:
    if WEIGHTS in names:
        return {WEIGHTS}
    index = _json(fetch(INDEX), INDEX_LIMIT_BYTES)
    places: Any = index.get("weight_map") if isinstance(index, dict) else None
    is_map = isinstance(places, dict) and bool(places) and all(isinstance(place, str) for place in places.values())
    require(is_map, f"{INDEX} must have weight_map, from each weight's name to its file's")
    return _there({INDEX, *places.values()}, names)


def _graph(graph: str, fetch: Fetch) -> set[str]:
    """A graph and the files that it keeps weights in."""
    parent = posixpath.dirname(graph)
    return {graph, *(posixpath.normpath(posixpath.join(parent, place)) for place in external_files(fetch(graph)))}


def _there(wanted: set[str], names: Collection[str]) -> set[str]:
    missing = sorted(wanted - set(names))
    require(not missing, f"{', '.join(missing[:4])} is not there; the model is incomplete, or no model")
    pickles = sorted(name for name in wanted if name.endswith(PICKLES))
    require(not pickles, f"{', '.join(pickles[:4])} has the name of a pickle, which can run code; it is not taken")
    return wanted


def _check_plain(name: str) -> None:
    parts = PurePosixPath(name).parts
    is_plain = bool(parts) and not name.startswith("/") and ".." not in parts and not set(name) & {"\\", ":", "\0"}
    require(is_plain, f"{name!r} must be a relative path, with forward slashes and no '..'")


def _json(path: Path, limit_bytes: int) -> Any:
    return read_bounded_json(path, limit_bytes)
