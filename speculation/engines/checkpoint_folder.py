"""A checkpoint of the Hugging Face hub as a model: no graph, but weights that PyTorch runs as they are."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from speculation.engines.architecture import MAX_LAYERS, Architecture
from speculation.engines.base import Engine
from speculation.engines.checkpoint import Checkpoint, CheckpointFacts
from speculation.engines.export_facts import hugging_face_facts
from speculation.engines.files import require
from speculation.engines.manifest import CONFIG, INDEX
from speculation.engines.model import TORCH, TRANSFORMERS
from speculation.engines.providers import Provider
from speculation.engines.published import PublishedFolder
from speculation.engines.torch_engine import TorchEngine
from speculation.engines.transformers_engine import TransformersEngine
from speculation.errors import PackageError, UnknownNameError


class CheckpointFolder(PublishedFolder):
    """A ``Model`` whose variants are ``transformers`` and, for the families that ``architecture.py`` knows, ``torch``. Their
    extras are needed where an engine is made of it, and only there: a device reads no more of a full model than its tokenizer
    and its digest.

    Raises ``PackageError`` when it is none, or says nothing usable.
    """

    def __init__(self, path: Path) -> None:
        self.checkpoint = Checkpoint(path)
        super().__init__(path, hugging_face_facts(self.checkpoint.config, self.checkpoint.generation_config()))
        layers = self.facts.num_layers
        require(layers <= MAX_LAYERS, f"{path / CONFIG} says that there are {layers} layers; at most {MAX_LAYERS} are built")

    @cached_property
    def variants(self) -> tuple[str, ...]:
        return (TRANSFORMERS,) if self.architecture is None else (TRANSFORMERS, TORCH)

    @cached_property
    def architecture(self) -> Architecture | None:
        """None for a family that is not known, and where positions are turned by the length of the text so far: a pass of many
        sessions turns them by where they stand alone."""
        try:
            found = Architecture.from_config(self.checkpoint.config)
        except PackageError:
            return None
        return found if found.rotary.fixed_context(self.context_length) == self.context_length else None

    @cached_property
    def num_parameters(self) -> int:
        return sum(self.checkpoint.sizes.values())

    def _others(self) -> set[str]:
        """Weights and their index."""
        index = {INDEX} if (self.path / INDEX).is_file() else set()
        return index | {file.relative_to(self.path).as_posix() for file in self.checkpoint.weight_files}

    def weight_bytes(self, variant: str) -> int:
        """Bytes of the weights in float32, as they are on the CPU."""
        self._check(variant)
        return 4 * self.num_parameters

    def kv_bytes_per_token(self, variant: str) -> int | None:
        """In float32. Of ``transformers`` not known before it is loaded: the library lays the caches out."""
        self._check(variant)
        return None if variant == TRANSFORMERS or self.architecture is None else self.architecture.kv_bytes_per_token

    def engine(self, variant: str, num_slots: int, threads: int, provider: Provider = Provider.CPU) -> Engine:
        self._check(variant)
        name = f"{self.name}:{variant}:{provider}"
        facts = CheckpointFacts(name, self.vocabulary_size, self.context_length, self.num_parameters)
        kind = TorchEngine if variant == TORCH else TransformersEngine
        return kind(self.checkpoint, facts, num_slots, threads, provider)

    def _check(self, variant: str) -> None:
        if variant not in self.variants:
            raise UnknownNameError(f"variant of {self.name}", variant, self.variants, "variant")
