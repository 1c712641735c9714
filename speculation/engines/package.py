"""Model packages and pairs on disk. Nothing of a package is used before its SHA-256 agrees with the manifest.

``docs/model-package.md`` tells the layout; ``package_writer.py`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from tokenizers import Tokenizer

from speculation.engines import chat
from speculation.engines.architecture import Architecture
from speculation.engines.base import Engine
from speculation.engines.chat import ChatTemplate
from speculation.engines.checkpoint import Checkpoint, CheckpointFacts
from speculation.engines.files import checked, confined, external_files, read_json, require
from speculation.engines.generation_defaults import generation_defaults
from speculation.engines.manifest import (
    CONFIG,
    GENERATION,
    MANIFEST,
    PAIR,
    PROMPTS,
    TOKENIZER,
    WEIGHTS,
    PairManifest,
    Variant,
    read_manifest,
)
from speculation.engines.manifest import pair_digest as digest_of_pair
from speculation.engines.model import HALF_CACHES, TORCH, TRANSFORMERS, graph_variant
from speculation.engines.onnx import OnnxEngine
from speculation.engines.providers import Provider
from speculation.engines.tokenizer_files import load_tokenizer
from speculation.engines.torch_engine import TorchEngine
from speculation.engines.transformers_engine import TransformersEngine
from speculation.errors import ConfigurationError, UnknownNameError
from speculation.parameters import NO_DEFAULTS, GenerationDefaults
from speculation.protocol.messages import PairIdentity

BUNDLED_PAIR = "pydoc"
PROMPT_KEYS = {"source", "title", "text"}
PACKED_ON_CPU = (
    "which are run on the CPU only: their attention node wants lengths that ONNX Runtime's build for CUDA has not had yet; "
    "the variant torch of a package that has model.safetensors is right, or transformers, or an export, or provider cpu"
)


class Package:
    """One model: its sizes, tokenizer and graphs.

    Raises ``PackageError`` when the folder is not what its manifest says. Small files are checked here, a graph when it is
    asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        require(path.is_dir(), f"{path} is not a folder; a package is a folder with {MANIFEST} in it")
        self.manifest = read_manifest(path)
        self.config: Mapping[str, Any] = read_json(self._checked(CONFIG))
        require(isinstance(self.config, dict), f"{path / CONFIG} must hold a JSON object")
        self.architecture = Architecture.from_config(self.config)
        self._check_sizes()

    def __repr__(self) -> str:
        return f"Package({str(self.path)!r})"

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(self.manifest.variants)

    @property
    def num_parameters(self) -> int:
        return self.manifest.num_parameters

    @property
    def context_length(self) -> int:
        return self.manifest.context_length

    @property
    def vocabulary_size(self) -> int:
        return self.architecture.vocabulary_size

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return self.manifest.end_token_ids

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of all files."""
        return self.manifest.digest

    @property
    def tokenizer_digest(self) -> str:
        """SHA-256 of ``tokenizer.json``."""
        return self.manifest.files[TOKENIZER]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Raises ``PackageError`` when the file is no tokenizer, or has tokens that the model has not."""
        return load_tokenizer(self._checked(TOKENIZER), self.vocabulary_size, CONFIG)

    @property
    def checkpoint_variants(self) -> tuple[str, ...]:
        """Weights beside the graphs are a checkpoint that PyTorch can run."""
        return (TORCH, TRANSFORMERS) if WEIGHTS in self.manifest.files else ()

    def engine(self, variant: str, num_slots: int, threads: int, provider: Provider = Provider.CPU) -> Engine:
        """The variant's packed graph, or the package's weights, loaded.

        Raises ``UnknownNameError``, ``PackageError``, ``ConfigurationError``, ``CapacityError``.
        """
        if variant in self.checkpoint_variants:
            return self._by_pytorch(variant, num_slots, threads, provider)
        if provider is not Provider.CPU:
            raise ConfigurationError(f"provider {provider}: {self.path} has packed graphs, {PACKED_ON_CPU}")
        return OnnxEngine(self, variant, num_slots, threads)

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """Of the files that the manifest lists."""
        return chat.load(lambda name: self._checked(name) if name in self.manifest.files else None)

    @cached_property
    def generation_defaults(self) -> GenerationDefaults:
        """Of ``generation_config.json``, where the manifest lists it."""
        if GENERATION not in self.manifest.files:
            return NO_DEFAULTS
        return generation_defaults(read_json(self._checked(GENERATION)), f"{self.path / GENERATION}")

    def weight_bytes(self, variant: str) -> int:
        """Bytes of weights that one pass reads. Raises ``UnknownNameError``."""
        if variant in self.checkpoint_variants:
            return 4 * self.num_parameters
        return self._variant(variant).weight_bytes

    def kv_bytes_per_token(self, variant: str) -> int | None:
        """Of a packed graph, and of the weights in float32; None where another library runs them."""
        if variant == TRANSFORMERS and variant in self.checkpoint_variants:
            return None
        if variant in self.checkpoint_variants:
            return self.architecture.kv_bytes_per_token
        self._variant(variant)
        return self.architecture.kv_bytes_per_token // (1 + variant.endswith(HALF_CACHES))

    def graph(self, variant: str) -> Path:
        """The graph's file, checked together with any file that it keeps weights in.

        Raises ``UnknownNameError`` for a variant that does not exist, ``PackageError`` for a damaged file or weights elsewhere.
        """
        name = self._variant(variant).graph
        path = self._checked(name)
        for location in sorted(external_files(path)):
            require(not location.startswith("/"), f"{path} keeps weights in {location!r}; they must lie inside the package")
            self._checked(str(PurePosixPath(name).parent / location))
        return path

    def _by_pytorch(self, variant: str, num_slots: int, threads: int, provider: Provider) -> Engine:
        for name in (CONFIG, WEIGHTS):
            self._checked(name)
        name = f"{self.name}:{variant}:{provider}"
        facts = CheckpointFacts(name, self.vocabulary_size, self.context_length, self.num_parameters)
        kind = TorchEngine if variant == TORCH else TransformersEngine
        return kind(Checkpoint(self.path), facts, num_slots, threads, provider)

    def _variant(self, name: str) -> Variant:
        found = self.manifest.variants.get(graph_variant(name))
        if found is None:
            raise UnknownNameError(f"variant of {self.name}", name, self.variants, "variant")
        return found

    def _checked(self, name: str) -> Path:
        return checked(self.path, name, self.manifest.files)

    def _check_sizes(self) -> None:
        positions, vocabulary_size = self.architecture.context_length, self.architecture.vocabulary_size
        fits = 0 < self.context_length <= positions
        require(fits, f"{MANIFEST}: context_length {self.context_length} must be from 1 to the model's {positions} positions")
        strange = [t for t in self.end_token_ids if not 0 <= t < vocabulary_size]
        require(not strange, f"{MANIFEST}: end_token_ids {strange} are not below the vocabulary's size, {vocabulary_size}")


@dataclass(frozen=True, slots=True)
class Pair:
    """A draft and a full model with one tokenizer. ``prompts``: held-out prompts with ``source``, ``title`` and ``text``."""

    name: str
    version: int
    licence: str
    draft: Package
    full: Package
    identity: PairIdentity
    prompts: tuple[dict[str, str], ...]


def load_pair(path: Path | None = None) -> Pair:
    """The pair in a folder, or the bundled one. Raises ``PackageError`` when it is damaged, or its two halves do not fit."""
    path = path or bundled_pair_path()
    require(path.is_dir(), f"{path} is not a folder; a pair is a folder with {PAIR} in it")
    manifest = PairManifest.from_json(read_json(confined(path, PAIR)))
    draft, full = (Package(_half(path, name)) for name in (manifest.draft, manifest.full))
    identity = _checked_identity(manifest, draft, full)
    return Pair(manifest.name, manifest.version, manifest.licence, draft, full, identity, _prompts(path, manifest.prompts))


def bundled_pair_path() -> Path:
    """Where the pair lies that comes with the project: inside an installed ``outrider``, else in the checkout."""
    root = Path(__file__).resolve().parents[2]
    installed = root / "outrider" / "models" / BUNDLED_PAIR
    return installed if installed.is_dir() else root / "models" / BUNDLED_PAIR


def _half(path: Path, name: str) -> Path:
    """The folder of one half; it holds a manifest, and no link leads out of the pair."""
    return confined(path, f"{name}/{MANIFEST}").parent


def _prompts(path: Path, digest: str) -> tuple[dict[str, str], ...]:
    prompts = read_json(checked(path, PROMPTS, {PROMPTS: digest}))
    is_list = isinstance(prompts, list) and all(isinstance(prompt, dict) and prompt.keys() == PROMPT_KEYS for prompt in prompts)
    require(is_list, f"{path / PROMPTS} must be a list of objects with {', '.join(sorted(PROMPT_KEYS))}")
    return tuple(prompts)


def _checked_identity(manifest: PairManifest, draft: Package, full: Package) -> PairIdentity:
    """Raises ``PackageError`` unless both halves have one tokenizer and are those that the pair was made of."""
    mine, other = draft.tokenizer_digest, full.tokenizer_digest
    differ = f"the tokenizers differ: {draft.name} has {mine}, {full.name} has {other}; a pair shares one tokenizer.json"
    require(mine == other, differ)
    named = f"{PAIR} names the tokenizer {manifest.tokenizer_digest}, its packages have {mine}"
    require(manifest.tokenizer_digest == mine, named)
    digest = digest_of_pair(manifest.name, manifest.version, draft.manifest, full.manifest)
    made_of = f"{PAIR} has the pair digest {manifest.pair_digest}, its packages make {digest}: a half was exchanged or changed"
    require(manifest.pair_digest == digest, made_of)
    sizes = [half.architecture.vocabulary_size for half in (draft, full)]
    require(sizes[0] == sizes[1], f"the vocabularies differ in size: {draft.name} has {sizes[0]}, {full.name} has {sizes[1]}")
    return PairIdentity(tokenizer_digest=mine, pair_digest=digest, full_digest=full.digest, version=manifest.version)
