"""A checkpoint of the Hugging Face hub as a model: no graph, but weights that ``transformers`` runs as they are."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from speculation.engines.architecture import MAX_LAYERS
from speculation.engines.base import Engine
from speculation.engines.checkpoint import Checkpoint
from speculation.engines.export_facts import hugging_face_facts
from speculation.engines.files import require
from speculation.engines.manifest import CONFIG, INDEX
from speculation.engines.model import TRANSFORMERS
from speculation.engines.providers import Provider
from speculation.engines.published import PublishedFolder
from speculation.engines.transformers_engine import CheckpointFacts, TransformersEngine
from speculation.errors import UnknownNameError


class CheckpointFolder(PublishedFolder):
    """A ``Model`` whose only variant is ``transformers``. The extra is needed where an engine is made of it, and only there:
    a device reads no more of a full model than its tokenizer and its digest.

    Raises ``PackageError`` when it is none, or says nothing usable.
    """

    def __init__(self, path: Path) -> None:
        self.checkpoint = Checkpoint(path)
        super().__init__(path, hugging_face_facts(self.checkpoint.config, self.checkpoint.generation_config()))
        layers = self.facts.num_layers
        require(layers <= MAX_LAYERS, f"{path / CONFIG} says that there are {layers} layers; at most {MAX_LAYERS} are built")

    @property
    def variants(self) -> tuple[str, ...]:
        return (TRANSFORMERS,)

    @cached_property
    def num_parameters(self) -> int:
        return sum(self.checkpoint.sizes.values())

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file that is read: configurations, tokenizer, weights and their index."""
        index = {INDEX} if (self.path / INDEX).is_file() else set()
        return self._digest_over(index | {file.relative_to(self.path).as_posix() for file in self.checkpoint.weight_files})

    def weight_bytes(self, variant: str) -> int:
        """Bytes of the weights in float32, as they are on the CPU."""
        self._check(variant)
        return 4 * self.num_parameters

    def kv_bytes_per_token(self, variant: str) -> None:
        """Not known before it is loaded: the library lays the caches out."""
        self._check(variant)

    def engine(self, variant: str, num_slots: int, threads: int, provider: Provider = Provider.CPU) -> Engine:
        self._check(variant)
        name = f"{self.name}:{TRANSFORMERS}:{provider}"
        facts = CheckpointFacts(name, self.vocabulary_size, self.context_length, self.num_parameters)
        return TransformersEngine(self.checkpoint, facts, num_slots, threads, provider)

    def _check(self, variant: str) -> None:
        if variant != TRANSFORMERS:
            raise UnknownNameError(f"variant of {self.name}", variant, self.variants, "variant")
