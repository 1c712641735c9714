"""A checkpoint as the library ``transformers`` runs it on PyTorch: one session's rows at a time, over a past that is handed in.

The library opens no file and no connection: it is given the configuration and the weights, which ``checkpoint.py`` has read.
Code that a checkpoint brings along is never run.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speculation.engines.checkpoint import Checkpoint
from speculation.engines.handover import computing
from speculation.engines.providers import Provider
from speculation.engines.torch_device import device_of, dtype_of
from speculation.errors import CapacityError, EngineError, PackageError

Past = tuple[tuple[Any, Any], ...]
"""Keys and values [1, heads, tokens, head size] of each layer, or None for a layer that shares another's; never written to."""

EXTRA = "pip install 'outrider[transformers]'"
OF_THE_SOFTWARE = ("attn_implementation", "auto_map", "experts_implementation", "fusion_config", "transformers_weights")
"""Entries of a configuration that say how it is to be run, or by whose code, not what the model is."""


class TorchModel:
    """A causal language model on a device. Not for use by two threads at once.

    Raises ``PackageError`` where the library is missing, does not know the model, or finds weights missing; ``CapacityError``
    where they do not fit the memory; ``ConfigurationError`` for a provider that PyTorch has not.
    """

    def __init__(self, checkpoint: Checkpoint, provider: Provider, threads: int) -> None:
        self._torch, self._transformers = _libraries(checkpoint)
        self._device, self._threads = device_of(self._torch, provider), threads
        self._path, self._config = checkpoint.path, checkpoint.config
        self._model = self._loaded(checkpoint, dtype_of(self._torch, checkpoint, provider))
        parameters = inspect.signature(self._model.forward).parameters
        # The newer name of the argument; the older one is still taken, with a warning.
        self._past_name = "cache" if "cache" in parameters else "past_key_values"
        self._keeps = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}

    @property
    def module(self) -> Any:
        """The library's own model, for who trains another one by it."""
        return self._model

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, as they are on the device."""
        return sum(weight.numel() * weight.element_size() for weight in self._model.parameters())

    @property
    def turning_length(self) -> int:
        """The longest text whose positions are turned as those of a short one, where longer ones are not; else 0."""
        return _turning_length(self._config)

    def run(self, past: Past, length: int, token_ids: Sequence[int], num_wanted: int) -> tuple[NDArray[np.float32], Past]:
        """One forward behind the first ``length`` tokens of a past: the last ``num_wanted`` rows of logits in float32, and the
        past with these tokens. Raises ``EngineError``; what was handed in stays as it was."""
        cache = self._cache(past, length)
        options = {self._past_name: cache, "use_cache": True, **({} if num_wanted else self._keeps)}
        wanted = self._forward(token_ids, num_wanted, options)
        return wanted, tuple((layer.keys, layer.values) for layer in cache.layers)

    def run_whole(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """All rows of logits of a text, by one forward that keeps nothing. Raises ``EngineError``."""
        return self._forward(token_ids, len(token_ids), {"use_cache": False})

    def _forward(self, token_ids: Sequence[int], num_wanted: int, options: Mapping[str, Any]) -> NDArray[np.float32]:
        torch = self._torch
        if self._device == "cpu":
            # It belongs to the calling thread, and other engines of this process may have another number.
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                computing()
                logits = self._model(torch.tensor([list(token_ids)], device=self._device), **options).logits[0]
                first = len(logits) - num_wanted
                wanted: NDArray[np.float32] = logits[first:].float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise EngineError(f"{self._path}: the memory of {self._device} is full; take fewer sessions: {error}") from error
        except Exception as error:
            raise EngineError(f"{self._path} could not be run by transformers: {error!r}") from error
        return wanted

    def _cache(self, past: Past, length: int) -> Any:
        """All of what each layer keeps, also where it looks back only so far: the masks see to that, and what was cut off
        could not come back when a session is cut."""
        cache = self._transformers.DynamicCache()
        if length:
            cache.layers = [self._layer(keys, values, length) for keys, values in past]
        return cache

    def _layer(self, keys: Any, values: Any, length: int) -> Any:
        layer = self._transformers.cache_utils.DynamicLayer()
        if keys is not None:
            layer.lazy_initialization(keys, values)
            # The library appends by making new arrays, so that these stay as they are, whoever else holds them.
            layer.keys, layer.values = keys[..., :length, :], values[..., :length, :]
        return layer

    def _loaded(self, checkpoint: Checkpoint, dtype: Any) -> Any:
        """The model with its weights, on its device."""
        config, kind = self._described(checkpoint)
        try:
            model, found = self._filled(kind, config, checkpoint, dtype)
            model = model.to(self._device).eval()
        except (MemoryError, self._torch.OutOfMemoryError) as error:
            size = sum(checkpoint.sizes.values()) * dtype.itemsize
            raise CapacityError(f"{self._path}: weights of {size} bytes do not fit the memory of {self._device}") from error
        except PackageError:
            raise
        except Exception as error:
            raise PackageError(f"{self._path} cannot be loaded by transformers: {error!r}") from error
        wrong = sorted({str(name) for part in ("missing_keys", "mismatched_keys") for name in found[part]})
        if wrong:
            shown = ", ".join(wrong[:4])
            raise PackageError(f"{self._path} lacks weights that {kind.__name__} has, or has them in another shape: {shown}")
        return model

    def _described(self, checkpoint: Checkpoint) -> tuple[Any, Any]:
        """The configuration as the library's own value, and the class of the model."""
        transformers, entries = self._transformers, _plain(checkpoint.config)
        try:
            described = transformers.CONFIG_MAPPING[entries["model_type"]]
            kind = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[described]
        except KeyError as error:
            name = f"model_type {checkpoint.config.get('model_type')!r}"
            known = f"no causal language model of transformers {transformers.__version__}"
            raise PackageError(f"{self._path}: {name} is {known}; code that a checkpoint brings is never run") from error
        try:
            return described.from_dict(entries), kind
        except Exception as error:
            raise PackageError(f"{self._path}: config.json is refused by transformers: {error!r}") from error

    def _filled(self, kind: Any, config: Any, checkpoint: Checkpoint, dtype: Any) -> tuple[Any, Mapping[str, Any]]:
        """With neither a name nor a folder the library looks for no file. ``attn_implementation`` None is its own choice."""
        weights = {name: self._tensor(values, dtype) for name, values in checkpoint.items()}
        options = {"dtype": dtype, "attn_implementation": None, "trust_remote_code": False, "local_files_only": True}
        bars = self._transformers.utils.logging
        was_shown = bars.is_progress_bar_enabled()
        bars.disable_progress_bar()
        try:
            model, found = kind.from_pretrained(None, config=config, state_dict=weights, output_loading_info=True, **options)
            return model, found
        finally:
            if was_shown:
                bars.enable_progress_bar()

    def _tensor(self, values: NDArray[np.float32], dtype: Any) -> Any:
        """In PyTorch's own memory, which is aligned: where an array begins may change the last bits of a product."""
        return self._torch.empty(values.shape, dtype=dtype).copy_(self._torch.from_numpy(values))


def _libraries(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """``torch`` and ``transformers``. Raises ``PackageError`` where they are not installed."""
    try:
        import torch
        import transformers
    except ImportError as error:
        faster = f"outrider models convert {checkpoint.path} --out FOLDER makes a package, which needs no extra and is faster"
        raise PackageError(f"the variant transformers needs the extra: {EXTRA} ({error}); {faster}") from error
    return torch, transformers


def _turning_length(config: Mapping[str, Any]) -> int:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type")) != "longrope":
        return 0
    return int(config.get("original_max_position_embeddings") or rope.get("original_max_position_embeddings") or 0)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy, for the library writes into what it is given."""
    return {
        key: copy.deepcopy(value) for key, value in config.items() if not key.startswith("_") and key not in OF_THE_SOFTWARE
    }
