"""What services need of a model and of a pair, whichever way they lie on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from speculation.engines.base import Engine
from speculation.engines.chat import ChatTemplate
from speculation.engines.providers import Provider
from speculation.errors import UnknownNameError
from speculation.parameters import GenerationDefaults
from speculation.protocol.messages import PairIdentity

TRANSFORMERS = "transformers"
"""The variant that is no graph: a checkpoint's own weights, run by the library of this name on PyTorch."""
TORCH = "torch"
"""The same weights in passes that all sessions share, for the families that ``architecture.py`` knows."""


class Model(Protocol):
    """One model in a folder. What it says of itself is checked; a graph is checked when an engine is made of it."""

    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str: ...

    @property
    def variants(self) -> tuple[str, ...]:
        """What an engine can be made of, by name: graphs, or of a checkpoint without one its weights."""

    @property
    def checkpoint_variants(self) -> tuple[str, ...]:
        """Those that run weights which lie beside the graphs. On a GPU, which runs no packed graph, ``torch`` is taken where
        none is named; else they are taken only where they are."""

    @property
    def num_parameters(self) -> int: ...

    @property
    def context_length(self) -> int:
        """Tokens of a session at most, prompt included."""

    @property
    def vocabulary_size(self) -> int:
        """Rows of the output layer: the tokenizer's tokens, and padding in some models."""

    @property
    def end_token_ids(self) -> tuple[int, ...]: ...

    @property
    def digest(self) -> str:
        """SHA-256 that changes with any file of the model."""

    @property
    def tokenizer(self) -> Any:
        """A ``tokenizers.Tokenizer``. Raises ``PackageError`` when it is none, or has tokens that the model has not."""

    @property
    def tokenizer_digest(self) -> str: ...

    @property
    def chat_template(self) -> ChatTemplate | None:
        """How the model wants conversations written; None where it does not say. Raises ``PackageError``."""

    @property
    def generation_defaults(self) -> GenerationDefaults:
        """What the model's makers suggest for a request that does not say. Raises ``PackageError``."""

    def weight_bytes(self, variant: str) -> int:
        """Bytes of weights that one pass reads. Raises ``UnknownNameError``."""

    def kv_bytes_per_token(self, variant: str) -> int | None:
        """Bytes of a cache for each token in it; None where that is known only once the variant is loaded. Raises
        ``UnknownNameError``, and ``PackageError`` for a graph that is damaged."""

    def engine(self, variant: str, num_slots: int, threads: int, provider: Provider = Provider.CPU) -> Engine:
        """A variant, loaded: takes seconds. Raises ``UnknownNameError``, ``PackageError``, ``ConfigurationError``, and
        ``CapacityError`` where it does not fit the memory."""


HALF_CACHES = "_kv16"
"""Behind the name of a package's variant: that graph, with caches in 16 bits."""


def graph_variant(variant: str) -> str:
    """The variant whose graph it is."""
    return variant.removesuffix(HALF_CACHES)


class ModelPair(Protocol):
    """A draft and a full model that speak of the same tokens."""

    @property
    def draft(self) -> Model: ...

    @property
    def full(self) -> Model: ...

    @property
    def identity(self) -> PairIdentity: ...

    @property
    def prompts(self) -> Sequence[Mapping[str, str]]:
        """Prompts that the pair was not trained on, with ``source``, ``title`` and ``text``; none where nobody chose any."""


def chosen_variant(model: Model, asked: str | None, preferred: str, *others: str, provider: Provider = Provider.CPU) -> str:
    """The variant that is asked for; with None the preferred one, or the model's first where it has no such. On a GPU
    ``torch`` is preferred.

    ``others`` are names that may be asked for besides the model's graphs. Whether a model has caches in 16 bits it says itself.
    Raises ``UnknownNameError``.
    """
    known = (*model.variants, *model.checkpoint_variants, *others)
    if asked is None:
        if provider is Provider.CUDA and TORCH in known:
            return TORCH
        return preferred if preferred in model.variants else model.variants[0]
    if graph_variant(asked) not in known:
        raise UnknownNameError(f"variant of {model.name}", asked, known, "variant")
    return asked
