"""llama.cpp by the C interface that llama-cpp-python hands through: its high-level one has a single sequence.

Caches are what they are by default, float16; all sessions of a step are one batch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.rivals.base import CAPACITY, Tokens

SAME_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""A layer's weights as a checkpoint and as GGUF call them."""
ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
QUANTISED = {"Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0", "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0"}


def gguf_name(name: str) -> str:
    """What GGUF calls a checkpoint's weight."""
    if name in ENDS:
        return ENDS[name]
    _, _, number, rest = name.split(".", 3)
    return f"blk.{number}.{SAME_NAMES[rest.removesuffix('.weight')]}.weight"


def neighbours(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of queries or keys, reordered: a checkpoint turns row i of a head with row i + D / 2, GGUF with the one below."""
    size = len(weight) // heads
    order = np.arange(size).reshape(2, size // 2).T.reshape(-1)
    return np.ascontiguousarray(weight.reshape(heads, size, -1)[:, order].reshape(weight.shape))


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, NDArray[np.float32]],
    tokenizer: Mapping[str, Any] | None = None,
) -> Path:
    """A Llama in float32. Without ``tokenizer``, the content of a ``tokenizer.json``, it has no vocabulary."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    if tokenizer is None:
        writer.add_tokenizer_model("no_vocab")
    else:
        _add_vocabulary(writer, tokenizer, config["eos_token_id"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    turned = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, values in weights.items():
        heads = next((count for key, count in turned.items() if key in name), 0)
        writer.add_tensor(gguf_name(name), neighbours(values, heads) if heads else np.ascontiguousarray(values))
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write()
    return path


def _add_vocabulary(writer: Any, tokenizer: Mapping[str, Any], end_token_id: int) -> None:
    """A byte-level BPE's tokens: the server writes text, and stops at an end token that it knows."""
    import gguf

    special = {added["content"] for added in tokenizer["added_tokens"] if added["special"]}
    ids = tokenizer["model"]["vocab"] | {added["content"]: added["id"] for added in tokenizer["added_tokens"]}
    tokens = sorted(ids, key=lambda token: int(ids[token]))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(end_token_id)
    writer.add_add_bos_token(False)


def quantised(source: Path, kind: str) -> Path:
    """The same model by the library's own quantiser, every matrix in ``kind``."""
    import llama_cpp

    out = source.with_name(f"{kind}.gguf")
    asked = llama_cpp.llama_model_quantize_default_params()
    asked.ftype, asked.pure, asked.nthread = getattr(llama_cpp, QUANTISED[kind]), True, 1
    quiet(llama_cpp)
    if llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(asked)):
        raise RuntimeError(f"llama.cpp could not quantise {source.name} to {kind}")
    return out


@dataclass(frozen=True, slots=True)
class _Batch:
    """A ``llama_batch``, and the arrays that it points into."""

    batch: Any
    arrays: tuple[NDArray[Any], ...]


_silent: list[Any] = []


def quiet(library: Any) -> None:
    """No log on standard error."""
    if not _silent:
        _silent.append(library.llama_log_callback(lambda level, text, data: None))
    library.llama_log_set(_silent[0], ctypes.c_void_p(0))


class LlamaCpp:
    """A context with a sequence for each session, and one for a session alone."""

    def __init__(self, path: Path) -> None:
        import llama_cpp

        self._library: Any = llama_cpp
        quiet(llama_cpp)
        asked = llama_cpp.llama_model_default_params()
        asked.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), asked)
        if not self._model:
            raise RuntimeError(f"llama.cpp could not load {path.name}")
        self._vocabulary_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._contexts: dict[int, Any] = {}
        self._batches: dict[tuple[int, ...], _Batch] = {}
        self._prompts = np.empty((0, 0), np.int64)

    def fill(self, prompts: Tokens) -> None:
        self._prompts = prompts

    def ready(self, tokens: Tokens) -> None:
        """Batches are laid out beforehand, as a program in C would not count them either."""
        sessions = len(tokens)
        if sessions not in self._contexts:
            self._contexts[sessions] = self._context(sessions)
            self._run(sessions, self._batch(self._prompts[:sessions], 0))
        if tokens.shape not in self._batches:
            self._batches[tokens.shape] = self._batch(tokens, self._prompts.shape[1])

    def step(self, tokens: Tokens) -> NDArray[np.float32]:
        return self._run(len(tokens), self._batches[tokens.shape])

    def rewind(self, sessions: int) -> None:
        memory = self._library.llama_get_memory(self._contexts[sessions])
        for number in range(sessions):
            self._library.llama_memory_seq_rm(memory, number, self._prompts.shape[1], -1)

    def _context(self, sessions: int) -> Any:
        asked = self._library.llama_context_default_params()
        asked.n_seq_max, asked.n_ctx, asked.n_threads, asked.n_threads_batch = sessions, sessions * CAPACITY, 1, 1
        asked.n_batch = self._prompts.size
        context = self._library.llama_init_from_model(self._model, asked)
        if not context:
            raise RuntimeError("llama.cpp could not make a context")
        return context

    def _batch(self, tokens: Tokens, start: int) -> _Batch:
        """All rows, session after session, the logits of each wanted."""
        sessions, rows = tokens.shape
        ids, positions = tokens.astype(np.int32).ravel(), np.tile(np.arange(start, start + rows, dtype=np.int32), sessions)
        numbers, ones = np.repeat(np.arange(sessions, dtype=np.int32), rows), np.ones(tokens.size, np.int32)
        addresses, wanted = numbers.ctypes.data + 4 * np.arange(tokens.size, dtype=np.uint64), np.ones(tokens.size, np.int8)
        batch, arrays = self._library.llama_batch(), {"token": ids, "pos": positions, "n_seq_id": ones, "logits": wanted}
        for field, array in (arrays | {"seq_id": addresses}).items():
            setattr(batch, field, array.ctypes.data_as(type(getattr(batch, field))))
        batch.n_tokens = tokens.size
        return _Batch(batch, (*arrays.values(), addresses, numbers))

    def _run(self, sessions: int, batch: _Batch) -> NDArray[np.float32]:
        """Logits are a view that the next run overwrites."""
        context, size = self._contexts[sessions], batch.batch.n_tokens
        if code := self._library.llama_decode(context, batch.batch):
            raise RuntimeError(f"llama.cpp could not run a batch of {size} rows: {code}")
        return np.ctypeslib.as_array(self._library.llama_get_logits(context), (size, self._vocabulary_size))
