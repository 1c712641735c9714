"""Models on disk as PyTorch's: decoders that can be trained, and full models that are only followed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from outrider.training.network import Decoder, Shape
from outrider.training.place import Place
from outrider.training.samples import FullModel
from speculation.engines.architecture import Architecture
from speculation.engines.checkpoint import Checkpoint
from speculation.engines.checkpoint_folder import CheckpointFolder
from speculation.engines.files import checked
from speculation.engines.graph_weights import GraphWeights
from speculation.engines.manifest import CONFIG, WEIGHTS
from speculation.engines.model import Model
from speculation.engines.package import Package
from speculation.engines.pairs import load_model
from speculation.engines.providers import Provider
from speculation.engines.torch_model import EXTRA, TorchModel
from speculation.engines.variants import PLAIN, check_tied
from speculation.errors import ConfigurationError, InvalidRequestError, PackageError

TRAINED = "trained are decoders of model_type llama with tied embeddings, without biases, windows or stretched positions"


@dataclass(frozen=True, slots=True)
class Trainable:
    """A decoder with its weights, and the model that it is of."""

    decoder: Decoder
    model: Model


def load_draft(path: Path) -> Trainable:
    """A decoder that can be trained. Raises ``InvalidRequestError`` where it is of another architecture, or has no weights."""
    model = load_model(path)
    why_not = _why_not(model)
    if why_not:
        raise InvalidRequestError(f"{path} cannot be trained: {'; '.join(why_not)}; {TRAINED}", "draft")
    return Trainable(_filled(model), model)


def load_full(path: Path, place: Place, threads: int) -> tuple[FullModel, Model]:
    """A model to follow, at a place: a decoder as those that are trained, or any checkpoint that ``transformers`` runs.

    Raises ``InvalidRequestError`` for what has no weights; ``ConfigurationError`` where the extra ``transformers`` is needed
    and missing; ``PackageError`` where the model is none of its.
    """
    model = load_model(path)
    why_not = _why_not(model)
    if not why_not:
        return _filled(model).to(place.device).requires_grad_(False), model
    if not (isinstance(model, CheckpointFolder) or model.checkpoint_variants):
        raise InvalidRequestError(f"{path} has no weights to follow: {'; '.join(why_not)}; a checkpoint is right", "full")
    if isinstance(model, Package):
        _check_weights(model)
    _check_library(path, why_not)
    return FollowedByTransformers(TorchModel(Checkpoint(path), Provider.CPU, threads).module.to(place.device)), model


def _check_library(path: Path, why_not: Sequence[str]) -> None:
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        others = f"computed here {TRAINED.removeprefix('trained ')}; any other needs an extra: {EXTRA} ({error})"
        raise ConfigurationError(f"{path}: {'; '.join(why_not)}; {others}") from error


def cut_to(full: FullModel, rows: int) -> FullModel:
    """The same model without what its output layer has beyond ``rows``."""
    return _Cut(full, rows)


class FollowedByTransformers(nn.Module):
    """A causal language model of the library, as one whose continuations are drawn."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        # The newer name of the argument; the older one is still taken, with a warning.
        self._past = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    def forward(self, token_ids: Tensor) -> Tensor:
        logits: Tensor = self.model(token_ids, use_cache=False).logits
        return logits

    def no_past(self, batch: int, capacity: int, dtype: torch.dtype) -> dict[str, Any]:
        return {}

    def last_logits(self, token_ids: Tensor, past: dict[str, Any]) -> Tensor:
        out = self.model(token_ids, use_cache=True, **past)
        past[self._past] = getattr(out, self._past)
        logits: Tensor = out.logits[:, -1]
        return logits


class _Cut(nn.Module):
    def __init__(self, full: Any, rows: int) -> None:
        super().__init__()
        self.full, self._rows = full, rows

    def forward(self, token_ids: Tensor) -> Tensor:
        logits: Tensor = self.full(token_ids)[..., : self._rows]
        return logits

    def no_past(self, batch: int, capacity: int, dtype: torch.dtype) -> Any:
        return self.full.no_past(batch, capacity, dtype)

    def last_logits(self, token_ids: Tensor, past: Any) -> Tensor:
        logits: Tensor = self.full.last_logits(token_ids, past)[..., : self._rows]
        return logits


def shape_of(architecture: Architecture) -> Shape:
    """The sizes of a decoder of which ``_why_not`` has nothing to say."""
    return Shape(
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.num_layers,
        num_attention_heads=architecture.num_heads,
        num_key_value_heads=architecture.num_kv_heads,
        vocab_size=architecture.vocabulary_size,
        max_position_embeddings=architecture.context_length,
        rope_theta=architecture.rope_theta,
        rms_norm_eps=architecture.norm_epsilon,
    )


def architecture_of(model: Model) -> Architecture:
    """Raises ``PackageError`` for a ``model_type`` that is not built here."""
    if isinstance(model, Package):
        return replace(model.architecture, context_length=model.context_length)
    if isinstance(model, CheckpointFolder):
        return Architecture.from_config(model.checkpoint.config)
    raise PackageError(f"{model.path} is an export; its weights are parts of graphs")


def _why_not(model: Model) -> list[str]:
    """Why a model cannot be computed by ``network.py``; empty where it can."""
    try:
        found = architecture_of(model)
    except PackageError as error:
        return [str(error)]
    reasons = {
        "its embeddings are not tied": not found.is_tied,
        "it has biases": found.has_qkv_bias or found.has_out_bias or found.has_mlp_bias,
        "its queries and keys are normed": found.has_head_norms,
        "some layers look back only so far": any(found.windows),
        f"its positions are stretched ({found.rotary.kind})": found.rotary.kind != "default",
        "its heads are not a share of its width": found.head_size * found.num_heads != found.hidden_size,
    }
    if isinstance(model, Package) and WEIGHTS not in model.manifest.files:
        reasons[f"it has neither {WEIGHTS} nor the variant {PLAIN}"] = PLAIN not in model.variants
    return [reason for reason, holds in reasons.items() if holds]


def _filled(model: Model) -> Decoder:
    decoder, weights = Decoder(shape_of(architecture_of(model))), _weights(model)
    state = {}
    for name, values in decoder.state_dict().items():
        found = np.array(weights[name], np.float32) if name in weights else None
        if found is None or found.shape != tuple(values.shape):
            raise PackageError(f"{model.path} has no weight {name} of shape {tuple(values.shape)}, as config.json wants it")
        state[name] = torch.from_numpy(found)
    decoder.load_state_dict(state)
    return decoder


def _weights(model: Model) -> Mapping[str, NDArray[np.float32]]:
    if isinstance(model, CheckpointFolder):
        check_tied(model.checkpoint, architecture_of(model).is_tied)
        return model.checkpoint
    if isinstance(model, Package) and WEIGHTS in model.manifest.files:
        _check_weights(model)
        return Checkpoint(model.path)
    if isinstance(model, Package):
        return GraphWeights(model.graph(PLAIN), model.architecture)
    raise PackageError(f"{model.path} is an export; its weights are parts of graphs")


def _check_weights(package: Package) -> None:
    for name in (CONFIG, WEIGHTS):
        checked(package.path, name, package.manifest.files)
