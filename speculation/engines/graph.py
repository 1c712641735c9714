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
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from speculation.engines.architecture import Architecture, slot_capacity
from speculation.errors import PackageError

OPSET, IR_VERSION = 21, 10

Weights = Mapping[str, NDArray[Any]]


class GraphParts:
    """Nodes and constants of a graph under construction. ``weight_bytes`` counts the constants that a pass reads whole."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.weight_bytes = 0

    def constant(self, name: str, values: NDArray[Any], *, is_read_whole: bool = True) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        self.weight_bytes += values.nbytes if is_read_whole else 0
        return name

    def node(self, operator: str, inputs: list[str], outputs: str | list[str], domain: str = "", **attributes: object) -> str:
        """Add a node; its first output's name comes back."""
        names = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(operator, inputs, names, name=names[0], domain=domain, **attributes))
        return names[0]


class Linear(Protocol):
    """How a constant matrix is multiplied: in float32, or quantised (``quantise.py``)."""

    def emit(self, parts: GraphParts, name: str, x: str, weight: NDArray[np.float32], stored: str | None = None) -> str:
        """Add ``x [rows, in] @ weight [out, in].T``. ``stored`` names a constant that already holds ``weight``, if one does."""


class Float32Linear:
    """A plain MatMul; the runtime packs the constant once, and then sums in the same order for any number of rows."""

    def emit(self, parts: GraphParts, name: str, x: str, weight: NDArray[np.float32], stored: str | None = None) -> str:
        if stored is None:
            constant = parts.constant(f"{name}.weight", weight.T)
        else:
            parts.weight_bytes += weight.nbytes
            constant = parts.node("Transpose", [stored], f"{name}.weight", perm=[1, 0])
        return parts.node("MatMul", [x, constant], name)


def build(architecture: Architecture, weights: Weights, linear: Linear | None = None) -> tuple[onnx.ModelProto, int]:
    """The graph, and the bytes of weights that one pass reads.

    ``weights``: arrays named as Hugging Face's ``LlamaForCausalLM`` names them, any float type. Raises ``PackageError`` when
    one is missing or has another shape than the architecture says.
    """
    builder = _DecoderBuilder(architecture, weights, linear or Float32Linear())
    return builder.build(), builder.parts.weight_bytes


class _DecoderBuilder:
    """Builds the nodes in the order a token meets them."""

    def __init__(self, architecture: Architecture, weights: Weights, linear: Linear) -> None:
        self.architecture, self.weights, self.linear = architecture, weights, linear
        self.parts = GraphParts()

    def build(self) -> onnx.ModelProto:
        a = self.architecture
        embedding = self._weight("model.embed_tokens.weight", (a.vocabulary_size, a.hidden_size))
        stored = self.parts.constant("model.embed_tokens.weight", embedding, is_read_whole=False)
        self._rotary_tables()
        residual = self.parts.node("Gather", [stored, "input_ids"], "embedded")
        x = self._norm("model.layers.0.input_layernorm", residual)
        for number in range(a.num_layers):
            x, residual = self._layer(number, x, residual)
        head, stored_head = (embedding, stored) if a.is_tied else (self._weight("lm_head.weight", embedding.shape), None)
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
        out = self._linear(f"{prefix}.self_attn.o_proj", attention, (a.hidden_size, a.num_heads * a.head_size))
        x, residual = self._skip_norm(f"{prefix}.post_attention_layernorm", out, residual)
        out = self._feed_forward(f"{prefix}.mlp", x)
        return self._skip_norm("model.norm" if is_last else f"model.layers.{number + 1}.input_layernorm", out, residual)

    def _attention(self, prefix: str, number: int, x: str) -> str:
        """Attention over packed rows ``x [T, hidden]``; rows of the padded batch come back, ``[B * S, heads * D]``."""
        a, parts = self.architecture, self.parts
        sizes = {"q_proj": a.num_heads, "k_proj": a.num_kv_heads, "v_proj": a.num_kv_heads}
        matrices = [self._weight(f"{prefix}.{n}.weight", (h * a.head_size, a.hidden_size)) for n, h in sizes.items()]
        packed = self.linear.emit(parts, f"{prefix}.qkv_proj", x, np.concatenate(matrices))
        padded = parts.node("Gather", [packed, "pad_idx"], f"{prefix}.padded")
        past = [f"past_key_values.{number}.{n}" for n in ("key", "value")]
        inputs = [padded, "", "", *past, "seqlens_k", "total_sequence_length", "cos", "sin", *[""] * 7, "query_seqlens"]
        outputs = [f"{prefix}.out", f"present.{number}.key", f"present.{number}.value"]
        heads = {"num_heads": a.num_heads, "kv_num_heads": a.num_kv_heads}
        out = parts.node("GroupQueryAttention", inputs, outputs, "com.microsoft", do_rotary=1, **heads)
        return parts.node("Reshape", [out, "flat_shape"], f"{prefix}.flat")

    def _feed_forward(self, prefix: str, x: str) -> str:
        a, parts = self.architecture, self.parts
        gate = self._linear(f"{prefix}.gate_proj", x, (a.intermediate_size, a.hidden_size))
        up = self._linear(f"{prefix}.up_proj", x, (a.intermediate_size, a.hidden_size))
        sigmoid = parts.node("Sigmoid", [gate], f"{prefix}.sigmoid")
        activated = parts.node("Mul", [gate, sigmoid], f"{prefix}.silu")
        product = parts.node("Mul", [activated, up], f"{prefix}.product")
        return self._linear(f"{prefix}.down_proj", product, (a.hidden_size, a.intermediate_size))

    def _linear(self, name: str, x: str, shape: tuple[int, int]) -> str:
        return self.linear.emit(self.parts, name, x, self._weight(f"{name}.weight", shape))

    def _norm(self, name: str, x: str) -> str:
        inputs, epsilon = [x, self._gain(name)], self.architecture.norm_epsilon
        return self.parts.node("SimplifiedLayerNormalization", inputs, name, epsilon=epsilon, axis=-1, stash_type=1)

    def _skip_norm(self, name: str, x: str, residual: str) -> tuple[str, str]:
        """The norm of ``x + residual``, and that sum."""
        outputs = [name, "", "", f"{name}.residual"]
        inputs, epsilon = [x, residual, self._gain(name)], self.architecture.norm_epsilon
        if name == "model.norm":
            outputs = outputs[:1]
        normed = self.parts.node("SkipSimplifiedLayerNormalization", inputs, outputs, "com.microsoft", epsilon=epsilon)
        return normed, f"{name}.residual"

    def _gain(self, name: str) -> str:
        return self.parts.constant(f"{name}.weight", self._weight(f"{name}.weight", (self.architecture.hidden_size,)))

    def _rotary_tables(self) -> None:
        """Cosines and sines [positions, D / 2] of Su et al., arXiv 2104.09864, and the shape that flattens a padded batch."""
        a = self.architecture
        frequencies = a.rope_theta ** -(np.arange(0, a.head_size, 2, dtype=np.float64) / a.head_size)
        angles = np.outer(np.arange(slot_capacity(a.context_length), dtype=np.float64), frequencies)
        self.parts.constant("cos", np.cos(angles).astype(np.float32), is_read_whole=False)
        self.parts.constant("sin", np.sin(angles).astype(np.float32), is_read_whole=False)
        self.parts.constant("flat_shape", np.array([-1, a.num_heads * a.head_size], np.int64), is_read_whole=False)

    def _weight(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if name not in self.weights:
            raise PackageError(f"model.safetensors lacks {name}, which config.json asks for with shape {list(shape)}")
        values = self.weights[name]
        if values.shape != shape:
            raise PackageError(f"{name} has shape {list(values.shape)}; config.json asks for {list(shape)}")
        return values.astype(np.float32)

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
