"""The packed ragged ONNX graph of a decoder, built from its weights with numpy and ``onnx`` alone.

Linear layers run on packed tokens ``[T, hidden]``; only the attention node sees a padded batch ``[B, S]``, through two index
inputs. One graph serves prefill, decoding and verification of any mix of sessions.

Inputs (int64 unless said otherwise; T packed tokens, B cache slots, S most rows of a slot, R wanted rows):

======================== ==================================== ==========================================================
``input_ids``            [T]                                  new tokens, session after session
``pad_idx``              [B, S]                               packed row for each row of the attention node
``unpad_idx``            [T]                                  row of the flattened ``[B * S]`` for each packed row
``out_idx``              [R]                                  packed rows whose logits are wanted
``seqlens_k``            int32 [B]                            tokens in the cache after this pass, minus one
``query_seqlens``        int32 [B]                            rows of the attention node that count; 0 is an idle slot
``total_sequence_length`` int32 scalar                        capacity of a slot
``past_key_values.N.*``  float32 [B, kv heads, capacity, D]   cache; bind the same memory as ``present.N.*``
======================== ==================================== ==========================================================

Outputs: ``logits`` float32 [R, vocabulary] and ``present.N.key``, ``present.N.value``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from speculation.engines.architecture import Architecture, slot_capacity
from speculation.errors import PackageError

OPSET, IR_VERSION = 21, 10
Weights = Mapping[str, NDArray[Any]]


class ConstantStore(Protocol):
    """Where large constants go; ``external.py`` writes them beside the graph."""

    def tensor(self, name: str, values: NDArray[Any]) -> TensorProto | None:
        """What the graph holds instead of ``values``, or None where it may hold them itself."""


class GraphParts:
    """Nodes and constants of a graph under construction. ``weight_bytes`` counts the constants that a pass reads whole."""

    def __init__(self, store: ConstantStore | None = None) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.weight_bytes = 0
        self._store = store

    def constant(self, name: str, values: NDArray[Any], *, is_read_whole: bool = True) -> str:
        stored = self._store.tensor(name, values) if self._store else None
        self.constants[name] = stored or numpy_helper.from_array(np.ascontiguousarray(values), name)
        self.weight_bytes += values.nbytes if is_read_whole else 0
        return name

    def node(self, operator: str, inputs: list[str], outputs: str | list[str], domain: str = "", **attributes: object) -> str:
        """Add a node; its first output's name comes back."""
        names = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(operator, inputs, names, name=names[0], domain=domain, **attributes))
        return names[0]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight matrix [out, in] that is read when it is needed, so that no more of a model than that is in memory."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, int], ...]
    weights: Weights

    @property
    def shape(self) -> tuple[int, int]:
        return sum(rows for rows, _ in self.shapes), self.shapes[0][1]

    @property
    def nbytes(self) -> int:
        """Bytes in float32."""
        return 4 * self.shape[0] * self.shape[1]

    def read(self) -> NDArray[np.float32]:
        """The values; several are stacked, in memory that is taken once the first and largest is right. Raises as ``build``."""
        first, start = read_weight(self.weights, self.names[0], self.shapes[0]), self.shapes[0][0]
        if len(self.names) == 1:
            return first
        stacked = np.empty(self.shape, np.float32)
        stacked[:start] = first
        del first
        for name, shape in zip(self.names[1:], self.shapes[1:], strict=True):
            stacked[start : start + shape[0]] = read_weight(self.weights, name, shape)
            start += shape[0]
        return stacked


class Linear(Protocol):
    """How a constant matrix is multiplied: in float32, or quantised (``quantise.py``)."""

    def emit(self, parts: GraphParts, name: str, x: str, weight: Matrix, stored: str | None = None) -> str:
        """Add ``x [rows, in] @ weight [out, in].T``. ``stored`` names a constant that already holds ``weight``, if one does."""


class Float32Linear:
    """A plain MatMul; the runtime packs the constant once, and then sums in the same order for any number of rows."""

    def emit(self, parts: GraphParts, name: str, x: str, weight: Matrix, stored: str | None = None) -> str:
        if stored is None:
            constant = parts.constant(f"{name}.weight", weight.read().T)
        else:
            parts.weight_bytes += weight.nbytes
            constant = parts.node("Transpose", [stored], f"{name}.weight", perm=[1, 0])
        return parts.node("MatMul", [x, constant], name)


def build(
    architecture: Architecture, weights: Weights, linear: Linear | None = None, store: ConstantStore | None = None
) -> tuple[onnx.ModelProto, int]:
    """The graph, and the bytes of weights that one pass reads.

    ``weights``: arrays named as Hugging Face's ``...ForCausalLM`` of the architecture names them, any float type. Each is taken
    when its turn comes and let go before the next (the tied embeddings of a quantised graph twice), so a mapping that reads
    them from a file keeps the memory small, given a ``store`` that does. Raises ``PackageError`` when one is missing or has
    another shape than the architecture says.
    """
    builder = _DecoderBuilder(architecture, weights, linear or Float32Linear(), store)
    return builder.build(), builder.parts.weight_bytes


def read_weight(weights: Weights, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One weight in float32. Raises ``PackageError`` when it is missing or has another shape."""
    if name not in weights:
        raise PackageError(f"the checkpoint lacks {name}, which config.json asks for with shape {list(shape)}")
    values = weights[name]
    if values.shape != shape:
        raise PackageError(f"{name} has shape {list(values.shape)}; config.json asks for {list(shape)}")
    return values.astype(np.float32, copy=False)


class _DecoderBuilder:
    """Builds the nodes in the order a token meets them."""

    def __init__(self, architecture: Architecture, weights: Weights, linear: Linear, store: ConstantStore | None) -> None:
        self.architecture, self.weights, self.linear = architecture, weights, linear
        self.parts = GraphParts(store)

    def build(self) -> onnx.ModelProto:
        a = self.architecture
        embedding = self._matrix("model.embed_tokens", (a.vocabulary_size, a.hidden_size))
        stored = self.parts.constant("model.embed_tokens.weight", embedding.read(), is_read_whole=False)
        self._rotary_tables()
        residual = self.parts.node("Gather", [stored, "input_ids"], "embedded")
        x = self._norm("model.layers.0.input_layernorm", residual, a.hidden_size)
        for number in range(a.num_layers):
            x, residual = self._layer(number, x, residual)
        head, stored_head = (embedding, stored) if a.is_tied else (self._matrix("lm_head", embedding.shape), None)
        self.linear.emit(self.parts, "logits", x, head, stored_head)
        return self._model()

    def _layer(self, number: int, x: str, residual: str) -> tuple[str, str]:
        """Normed input and residual of a layer to those of the next; the last layer goes on with the wanted rows only."""
        a, prefix = self.architecture, f"model.layers.{number}"
        is_last = number == a.num_layers - 1
        attention = self._attention(f"{prefix}.self_attn", number, x)
        rows = "unpad_idx"
        if is_last:
            rows = self.parts.node("Gather", ["unpad_idx", "out_idx"], "wanted_rows")
            residual = self.parts.node("Gather", [residual, "out_idx"], "wanted_residual")
        attention = self.parts.node("Gather", [attention, rows], f"{prefix}.attention_packed")
        shape = (a.hidden_size, a.num_heads * a.head_size)
        out = self._linear(f"{prefix}.self_attn.o_proj", attention, shape, has_bias=a.has_out_bias)
        x, residual = self._skip_norm(f"{prefix}.post_attention_layernorm", out, residual)
        out = self._feed_forward(f"{prefix}.mlp", x)
        return self._skip_norm("model.norm" if is_last else f"model.layers.{number + 1}.input_layernorm", out, residual)

    def _attention(self, prefix: str, number: int, x: str) -> str:
        """Attention over packed rows ``x [T, hidden]``; rows of the padded batch come back, ``[B * S, heads * D]``."""
        a, parts = self.architecture, self.parts
        packed = self._queries_keys_values(prefix, x)
        padded = parts.node("Gather", [packed, "pad_idx"], f"{prefix}.padded")
        past = [f"past_key_values.{number}.{n}" for n in ("key", "value")]
        inputs = [padded, "", "", *past, "seqlens_k", "total_sequence_length", "cos", "sin", *[""] * 7, "query_seqlens"]
        outputs = [f"{prefix}.out", f"present.{number}.key", f"present.{number}.value"]
        options = {"num_heads": a.num_heads, "kv_num_heads": a.num_kv_heads}
        if 0 < a.windows[number] < a.context_length:
            options["local_window_size"] = a.windows[number]
        out = parts.node("GroupQueryAttention", inputs, outputs, "com.microsoft", do_rotary=1, **options)
        return parts.node("Reshape", [out, "flat_shape"], f"{prefix}.flat")

    def _queries_keys_values(self, prefix: str, x: str) -> str:
        """Queries, keys and values side by side, ``[T, (heads + 2 * kv heads) * D]``."""
        a, parts = self.architecture, self.parts
        sizes = {"q_proj": a.num_heads, "k_proj": a.num_kv_heads, "v_proj": a.num_kv_heads}
        names = tuple(f"{prefix}.{n}" for n in sizes)
        shapes = tuple((heads * a.head_size, a.hidden_size) for heads in sizes.values())
        matrix = Matrix(tuple(f"{n}.weight" for n in names), shapes, self.weights)
        packed = self.linear.emit(parts, f"{prefix}.qkv_proj", x, matrix)
        if a.has_qkv_bias:
            biases = [self._vector(f"{n}.bias", rows) for n, (rows, _) in zip(names, shapes, strict=True)]
            constant = parts.constant(f"{prefix}.qkv_proj.bias", np.concatenate(biases))
            packed = parts.node("Add", [packed, constant], f"{prefix}.qkv_proj.biased")
        return self._with_head_norms(prefix, packed) if a.has_head_norms else packed

    def _with_head_norms(self, prefix: str, packed: str) -> str:
        """Queries and keys normed head by head, before they are turned; the attention node's own norm has no CPU kernel."""
        a, parts = self.architecture, self.parts
        counts = np.array([a.num_heads, a.num_kv_heads, a.num_kv_heads], np.int64)
        by_head = parts.constant("by_head_shape", np.array([-1, counts.sum(), a.head_size], np.int64), is_read_whole=False)
        side_by_side = parts.constant("qkv_shape", np.array([-1, counts.sum() * a.head_size], np.int64), is_read_whole=False)
        split = parts.constant("head_counts", counts, is_read_whole=False)
        heads = parts.node("Reshape", [packed, by_head], f"{prefix}.by_head")
        names = [f"{prefix}.{n}" for n in ("queries", "keys", "values")]
        parts.node("Split", [heads, split], names, axis=1)
        normed = [self._norm(f"{prefix}.{n}_norm", x, a.head_size) for n, x in zip("qk", names[:2], strict=True)]
        joined = parts.node("Concat", [*normed, names[2]], f"{prefix}.joined", axis=1)
        return parts.node("Reshape", [joined, side_by_side], f"{prefix}.normed")

    def _feed_forward(self, prefix: str, x: str) -> str:
        a, parts = self.architecture, self.parts
        gate = self._linear(f"{prefix}.gate_proj", x, (a.intermediate_size, a.hidden_size), has_bias=a.has_mlp_bias)
        up = self._linear(f"{prefix}.up_proj", x, (a.intermediate_size, a.hidden_size), has_bias=a.has_mlp_bias)
        sigmoid = parts.node("Sigmoid", [gate], f"{prefix}.sigmoid")
        activated = parts.node("Mul", [gate, sigmoid], f"{prefix}.silu")
        product = parts.node("Mul", [activated, up], f"{prefix}.product")
        return self._linear(f"{prefix}.down_proj", product, (a.hidden_size, a.intermediate_size), has_bias=a.has_mlp_bias)

    def _linear(self, name: str, x: str, shape: tuple[int, int], *, has_bias: bool) -> str:
        out = self.linear.emit(self.parts, name, x, self._matrix(name, shape))
        if not has_bias:
            return out
        bias = self.parts.constant(f"{name}.bias", self._vector(f"{name}.bias", shape[0]))
        return self.parts.node("Add", [out, bias], f"{name}.biased")

    def _norm(self, name: str, x: str, size: int) -> str:
        inputs, epsilon = [x, self._gain(name, size)], self.architecture.norm_epsilon
        return self.parts.node("SimplifiedLayerNormalization", inputs, name, epsilon=epsilon, axis=-1, stash_type=1)

    def _skip_norm(self, name: str, x: str, residual: str) -> tuple[str, str]:
        """The norm of ``x + residual``, and that sum."""
        outputs = [name, "", "", f"{name}.residual"]
        a = self.architecture
        inputs, epsilon = [x, residual, self._gain(name, a.hidden_size)], a.norm_epsilon
        if name == "model.norm":
            outputs = outputs[:1]
        normed = self.parts.node("SkipSimplifiedLayerNormalization", inputs, outputs, "com.microsoft", epsilon=epsilon)
        return normed, f"{name}.residual"

    def _gain(self, name: str, size: int) -> str:
        return self.parts.constant(f"{name}.weight", self._vector(f"{name}.weight", size))

    def _rotary_tables(self) -> None:
        """Cosines and sines [positions, D / 2], and the shape that flattens a padded batch."""
        a = self.architecture
        cosines, sines = a.rotary.tables(slot_capacity(a.context_length), a.head_size, a.context_length)
        self.parts.constant("cos", cosines, is_read_whole=False)
        self.parts.constant("sin", sines, is_read_whole=False)
        self.parts.constant("flat_shape", np.array([-1, a.num_heads * a.head_size], np.int64), is_read_whole=False)

    def _matrix(self, name: str, shape: tuple[int, int]) -> Matrix:
        return Matrix((f"{name}.weight",), (shape,), self.weights)

    def _vector(self, name: str, size: int) -> NDArray[np.float32]:
        return read_weight(self.weights, name, (size,))

    def _model(self) -> onnx.ModelProto:
        a, value = self.architecture, helper.make_tensor_value_info
        int64, int32, float32 = TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT
        cache = ["B", a.num_kv_heads, "capacity", a.head_size]
        names = [f"{n}.{kind}" for n in range(a.num_layers) for kind in ("key", "value")]
        inputs = [
            value("input_ids", int64, ["T"]),
            value("pad_idx", int64, ["B", "S"]),
            value("unpad_idx", int64, ["T"]),
            value("out_idx", int64, ["R"]),
            value("seqlens_k", int32, ["B"]),
            value("query_seqlens", int32, ["B"]),
            value("total_sequence_length", int32, []),
            *[value(f"past_key_values.{n}", float32, cache) for n in names],
        ]
        outputs = [value("logits", float32, ["R", a.vocabulary_size]), *[value(f"present.{n}", float32, cache) for n in names]]
        graph = helper.make_graph(self.parts.nodes, "decoder", inputs, outputs, list(self.parts.constants.values()))
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="outrider")
