"""``manifest.json`` of a package and ``pair.json`` of a pair, as checked values. ``docs/model-package.md`` tells the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speculation.engines.files import confined, digest_of, read_json, require
from speculation.errors import PackageError
from speculation.protocol.messages import MAX_VERSION

SCHEMA_VERSION = 1
MANIFEST, PAIR, PROMPTS = "manifest.json", "pair.json", "prompts.json"
CONFIG, TOKENIZER, GENERATION, WEIGHTS = "config.json", "tokenizer.json", "generation_config.json", "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"


@dataclass(frozen=True, slots=True)
class Variant:
    """One graph of a package; ``weight_bytes`` is what one pass reads of its weights."""

    graph: str
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package says of itself. ``files`` maps each of its files to the file's SHA-256."""

    name: str
    licence: str
    provenance: str
    num_parameters: int
    context_length: int
    end_token_ids: tuple[int, ...]
    variants: Mapping[str, Variant]
    files: Mapping[str, str]

    def __post_init__(self) -> None:
        require(bool(self.variants), f"{MANIFEST}: variants is empty; name at least one graph")
        require(self.num_parameters > 0, f"{MANIFEST}: num_parameters must be positive, not {self.num_parameters}")
        missing = sorted({CONFIG, TOKENIZER, *(v.graph for v in self.variants.values())} - self.files.keys())
        require(not missing, f"{MANIFEST}: files has no digest for {', '.join(missing)}")

    @classmethod
    def from_json(cls, value: Any) -> Manifest:
        """Raises ``PackageError`` for another schema version, unknown or missing entries, or entries of the wrong form."""
        entries = _entries(value, MANIFEST, cls)
        try:
            variants = {str(n): Variant(str(v["graph"]), int(v["weight_bytes"])) for n, v in entries["variants"].items()}
            return cls(
                name=str(entries["name"]),
                licence=str(entries["licence"]),
                provenance=str(entries["provenance"]),
                num_parameters=int(entries["num_parameters"]),
                context_length=int(entries["context_length"]),
                end_token_ids=tuple(int(t) for t in entries["end_token_ids"]),
                variants=variants,
                files={str(path): str(digest) for path, digest in entries["files"].items()},
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise PackageError(f"{MANIFEST} holds an entry of the wrong form: {error!r}") from error

    @property
    def digest(self) -> str:
        """One digest for all of the package's files."""
        return digest_of(dict(self.files))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a package. Raises ``PackageError`` where it cannot be right, and for a folder that is something else."""
    check_is_no_pair(folder)
    what = f"`outrider models list {folder}` tells what it is"
    is_there = (folder / MANIFEST).exists() or (folder / MANIFEST).is_symlink()
    require(is_there, f"{folder / MANIFEST} is not there, so {folder} is no package: {what}")
    return Manifest.from_json(read_json(confined(folder, MANIFEST)))


def check_is_no_pair(folder: Path) -> None:
    """Raises ``PackageError`` for a folder that holds packages, where one is needed."""
    is_pair = (folder / PAIR).is_file() and not (folder / MANIFEST).exists()
    require(not is_pair, f"{folder} is a pair, no package; name one of its halves (draft and full, most often)")


@dataclass(frozen=True, slots=True)
class PairManifest:
    """What ties a draft to a full model. ``draft`` and ``full`` are folders; ``prompts`` is the SHA-256 of ``prompts.json``."""

    name: str
    version: int
    licence: str
    draft: str
    full: str
    tokenizer_digest: str
    pair_digest: str
    prompts: str

    @classmethod
    def from_json(cls, value: Any) -> PairManifest:
        """Raises ``PackageError`` as ``Manifest.from_json`` does."""
        entries = _entries(value, PAIR, cls)
        wrong = [n for n, v in entries.items() if not isinstance(v, int if n == "version" else str)]
        require(not wrong, f"{PAIR}: entries of the wrong form: {', '.join(wrong)} (version is a number, the rest is text)")
        version = entries["version"]
        require(0 <= version <= MAX_VERSION, f"{PAIR}: version counts from 1, and up to {MAX_VERSION}; it is {version}")
        return cls(**entries)


def pair_digest(name: str, version: int, draft: Manifest, full: Manifest) -> str:
    """The digest that names a pair: it changes when any file of either package does, and with the version."""
    return digest_of({"name": name, "version": version, "draft": draft.digest, "full": full.digest})


def _entries(value: Any, name: str, kind: Any) -> dict[str, Any]:
    """The object's entries without the schema version, which is checked."""
    if not isinstance(value, dict):
        raise PackageError(f"{name} must hold a JSON object")
    version = value.get("schema_version")
    require(version == SCHEMA_VERSION, f"{name}: schema_version is {version!r}; this release reads {SCHEMA_VERSION}")
    wanted = {"schema_version", *kind.__dataclass_fields__}
    missing, unknown = sorted(wanted - value.keys()), sorted(value.keys() - wanted)
    require(not missing, f"{name} lacks {', '.join(missing)}")
    require(not unknown, f"{name} has unknown entries: {', '.join(unknown)}; known: {', '.join(sorted(wanted))}")
    return {key: entry for key, entry in value.items() if key != "schema_version"}
