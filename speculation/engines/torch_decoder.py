"""The decoder of an ``Architecture`` on PyTorch: steps of always the same number of rows, whosesoever they are.

On a GPU the step is one captured CUDA graph, so every row of every pass goes through the same kernels with the same shapes.
The weights are read as ``graph.py`` reads them, and named alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speculation.engines.architecture import Architecture
from speculation.engines.checkpoint import Checkpoint
from speculation.engines.graph import read_weight
from speculation.engines.kv_pages import PAGE, pages_of
from speculation.engines.providers import Provider
from speculation.engines.torch_attention import Attention, PlainAttention, Pool, Tensor
from speculation.engines.torch_device import device_of, dtype_of
from speculation.engines.variants import CountedWeights, check_tied
from speculation.errors import CapacityError, ConfigurationError, PackageError

EXTRA = "pip install 'outrider[torch]'"
CACHE_SHARE = 0.8
"""Of the GPU's memory that the weights leave; the rest is for what a step computes with, and for others."""
WARM_UPS = 2
"""Steps before one is captured: the first compiles kernels and makes the libraries ready."""


@dataclass(frozen=True, slots=True, eq=False)
class _Linear:
    """A matrix [out, in], and what is added."""

    weight: Tensor
    bias: Tensor | None

    def of(self, x: Tensor) -> Tensor:
        import torch

        return torch.nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    attention_gain: Tensor
    queries_keys_values: _Linear
    out: _Linear
    feed_forward_gain: Tensor
    gate_up: _Linear
    down: _Linear


class TorchDecoder:
    """A decoder with the keys and values of ``num_slots`` caches in one pool. Not for use by two threads at once.

    ``inputs`` int32 [3, rows]: token ids, slots, positions of the next step's rows; ``table`` int32 [slots, pages]. ``step``
    runs them, and leaves ``logits`` float32 [rows, vocabulary]. ``num_pages`` is how many pages the pool has beside page 0.

    Raises ``PackageError`` without PyTorch, and for weights that are missing, left over, tied though they differ, or of another
    shape than ``config.json`` says; ``CapacityError`` where they do not fit the memory, or leave too little for the caches of
    one context; ``ConfigurationError`` for a provider that PyTorch has not, or without the compiler of its kernels.
    """

    def __init__(
        self, checkpoint: Checkpoint, context_length: int, num_slots: int, num_rows: int, provider: Provider, threads: int
    ) -> None:
        self._torch = _library(checkpoint)
        self._device = device_of(self._torch, provider)
        self._dtype = dtype_of(self._torch, checkpoint, provider)
        self._threads, self._path = threads, checkpoint.path
        self.architecture = shape = Architecture.from_config(checkpoint.config)
        with self._torch.inference_mode():
            try:
                self._load(checkpoint)
                self._allocate(context_length, num_slots, num_rows)
                self.attention: Attention = attention_of(self.pool, provider)
                self._step = self._captured() if provider is Provider.CUDA else self._run
            except (MemoryError, self._torch.OutOfMemoryError) as error:
                raise CapacityError(f"{self._path} does not fit the memory of {self._device}: {error}") from error
        self.page_bytes = self._page_bytes(shape)
        self.token_bytes = self.page_bytes // PAGE

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights that a step reads, as they are on the device."""
        layers = [part for layer in self._layers for part in (layer.queries_keys_values, layer.out, layer.gate_up, layer.down)]
        return sum(part.weight.nbytes for part in [*layers, self._head])

    def in_its_mode(self) -> Any:
        """What all use of the decoder's tensors stands within."""
        if self._device == "cpu":
            # It belongs to the calling thread, and other engines of this process may have another number.
            self._torch.set_num_threads(self._threads)
        return self._torch.inference_mode()

    def set_pages(self, slot: int, pages: NDArray[np.int32]) -> None:
        """The pages that a slot has now."""
        self.pool.table[slot, : len(pages)] = self._sent(pages)

    def copy_pages(self, source: NDArray[np.int32], target: NDArray[np.int32]) -> None:
        """The content of some pages into others, in all layers."""
        self.pool.caches[:, :, self._sent(target).long()] = self.pool.caches[:, :, self._sent(source).long()]

    def run(self, steps: NDArray[np.int32], wanted: Sequence[NDArray[np.int64]]) -> NDArray[np.float32]:
        """Steps [steps, 3, rows] one after the other; of each the rows of logits that are wanted, float32 [all of them,
        vocabulary]."""
        torch, sent = self._torch, self._sent(steps)
        counts = [len(rows) for rows in wanted]
        found = torch.empty((sum(counts), self.architecture.vocabulary_size), dtype=torch.float32, device=self._device)
        indices, parts = self._sent(np.concatenate(wanted)).split(counts), found.split(counts)
        for step, rows, part in zip(sent, indices, parts, strict=True):
            self._inputs.copy_(step)
            self._step()
            if len(rows):
                torch.index_select(self._logits, 0, rows, out=part)
        return self._brought(found)

    def _sent(self, values: NDArray[Any]) -> Tensor:
        return self._torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    def _brought(self, found: Tensor) -> NDArray[np.float32]:
        """In memory of its own; pinned, where a GPU writes it, which the library takes from what was let go before."""
        on_gpu = self._device != "cpu"
        here = self._torch.empty(found.shape, dtype=found.dtype, pin_memory=on_gpu)
        here.copy_(found, non_blocking=on_gpu)
        if on_gpu:
            self._torch.cuda.current_stream().synchronize()
        values: NDArray[np.float32] = here.numpy()
        return values

    def _load(self, checkpoint: Checkpoint) -> None:
        shape = self.architecture
        weights = CountedWeights(checkpoint, checkpoint.sizes, checkpoint.path)
        embedding = (shape.vocabulary_size, shape.hidden_size)
        self._embedding = self._tensor(weights, "model.embed_tokens.weight", embedding)
        self._layers = [self._layer(weights, f"model.layers.{number}") for number in range(shape.num_layers)]
        self._gain = self._tensor(weights, "model.norm.weight", (shape.hidden_size,))
        head = self._embedding if shape.is_tied else self._tensor(weights, "lm_head.weight", embedding)
        self._head = _Linear(head, None)
        self._gains = self._head_gains(weights) if shape.has_head_norms else None
        weights.check_all_used(shape.is_tied)
        check_tied(checkpoint, shape.is_tied)

    def _layer(self, weights: Mapping[str, NDArray[np.float32]], prefix: str) -> _Layer:
        shape = self.architecture
        queries, keys = shape.num_heads * shape.head_size, shape.num_kv_heads * shape.head_size
        hidden, inner = shape.hidden_size, shape.intermediate_size

        def gain(name: str) -> Tensor:
            return self._tensor(weights, f"{prefix}.{name}.weight", (hidden,))

        def linear(names: Mapping[str, int], num_inputs: int, has_bias: bool) -> _Linear:
            """Matrices of one input below each other, by how many rows each has."""
            matrices = [self._tensor(weights, f"{prefix}.{n}.weight", (rows, num_inputs)) for n, rows in names.items()]
            biases = [self._tensor(weights, f"{prefix}.{n}.bias", (rows,)) for n, rows in names.items() if has_bias]
            return _Linear(self._joined(matrices), self._joined(biases) if has_bias else None)

        attention = {"self_attn.q_proj": queries, "self_attn.k_proj": keys, "self_attn.v_proj": keys}
        return _Layer(
            gain("input_layernorm"),
            linear(attention, hidden, shape.has_qkv_bias),
            linear({"self_attn.o_proj": hidden}, queries, shape.has_out_bias),
            gain("post_attention_layernorm"),
            linear({"mlp.gate_proj": inner, "mlp.up_proj": inner}, hidden, shape.has_mlp_bias),
            linear({"mlp.down_proj": hidden}, inner, shape.has_mlp_bias),
        )

    def _head_gains(self, weights: Mapping[str, NDArray[np.float32]]) -> Tensor:
        """Of queries and keys, [layers, 2, D]."""
        shape = self.architecture
        names = [f"model.layers.{n}.self_attn.{part}_norm.weight" for n in range(shape.num_layers) for part in "qk"]
        gains = [self._tensor(weights, name, (shape.head_size,)) for name in names]
        return self._torch.stack(gains).view(shape.num_layers, 2, shape.head_size)

    def _tensor(self, weights: Mapping[str, NDArray[np.float32]], name: str, size: tuple[int, ...]) -> Tensor:
        # As it is to the device, and rounded there.
        return self._torch.tensor(read_weight(weights, name, size)).to(self._device).to(self._dtype)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        return parts[0] if len(parts) == 1 else self._torch.cat(list(parts))

    def _allocate(self, context_length: int, num_slots: int, num_rows: int) -> None:
        """The pool, the rows of a step, and their logits. Raises ``CapacityError`` where not one context has room."""
        torch, shape = self._torch, self.architecture
        whole = pages_of(context_length)
        self.num_pages = min(num_slots * whole, self._most_pages())
        if self.num_pages < whole:
            has = f"{self.num_pages} of the {whole} pages ({self._page_bytes(shape)} bytes each) that one context takes"
            raise CapacityError(f"{self._path}: the weights leave room for {has} on {self._device}; take a smaller context")
        zeros = {"device": self._device}
        size = (shape.num_layers, 2, self.num_pages + 1, PAGE, shape.num_kv_heads, shape.head_size)
        self._inputs = torch.zeros(3, num_rows, dtype=torch.int32, **zeros)
        self._inputs[2] = -1
        self._logits = torch.zeros(num_rows, shape.vocabulary_size, dtype=torch.float32, **zeros)
        cosines, sines = shape.rotary.tables(whole * PAGE, shape.head_size, context_length)
        self.pool = Pool(
            shape,
            torch.zeros(size, dtype=self._dtype, **zeros),
            torch.zeros(num_slots, whole, dtype=torch.int32, **zeros),
            self._inputs[1],
            self._inputs[2],
            self._sent(cosines),
            self._sent(sines),
            self._gains,
        )

    def _most_pages(self) -> int:
        if self._device == "cpu":
            return 1 << 40
        free_bytes, _ = self._torch.cuda.mem_get_info()
        return int(CACHE_SHARE * free_bytes) // self._page_bytes(self.architecture)

    def _page_bytes(self, shape: Architecture) -> int:
        return int(2 * shape.num_layers * PAGE * shape.num_kv_heads * shape.head_size * self._dtype.itemsize)

    def _run(self) -> None:
        """One step, as it is written."""
        shape, norm = self.architecture, self._torch.nn.functional.rms_norm
        silu = self._torch.nn.functional.silu
        size, epsilon = (shape.hidden_size,), shape.norm_epsilon
        x = self._embedding[self._inputs[0].long()]
        for number, layer in enumerate(self._layers):
            packed = layer.queries_keys_values.of(norm(x, size, layer.attention_gain, epsilon))
            attended = self.attention.attended(number, self.attention.turned(number, packed))
            x = x + layer.out.of(attended)
            gate, up = layer.gate_up.of(norm(x, size, layer.feed_forward_gain, epsilon)).chunk(2, -1)
            x = x + layer.down.of(silu(gate) * up)
        self._logits.copy_(self._head.of(norm(x, size, self._gain, epsilon)))

    def _captured(self) -> Callable[[], None]:
        """The step as a CUDA graph, whose replay launches all of its kernels at once."""
        cuda = self._torch.cuda
        aside = cuda.Stream()
        aside.wait_stream(cuda.current_stream())
        with cuda.stream(aside):
            for _ in range(WARM_UPS):
                self._run()
        cuda.current_stream().wait_stream(aside)
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            self._run()
        replay: Callable[[], None] = graph.replay
        return replay


def attention_of(pool: Pool, provider: Provider) -> Attention:
    """What computes attention there. Raises ``ConfigurationError`` where the compiler of its kernels is missing."""
    if provider is Provider.CPU:
        return PlainAttention(pool)
    try:
        from speculation.engines.triton_attention import TritonAttention
    except ImportError as error:
        right = "builds of torch for CUDA on Linux bring it along"
        raise ConfigurationError(f"provider {provider}: the variant torch needs triton ({error}); {right}") from error
    return TritonAttention(pool)


def _library(checkpoint: Checkpoint) -> Any:
    try:
        import torch
    except ImportError as error:
        raise PackageError(f"{checkpoint.path}: the variant torch needs the extra: {EXTRA} ({error})") from error
    return torch
