"""The ONNX graph of a BERT encoder that makes one vector of one text, built from its weights with numpy and ``onnx`` alone.

Input: ``input_ids``, int64 [S], the tokens of one text, framed as the model was trained. Output: ``embedding``,
float32 [hidden], the mean of the last layer's rows at length 1. One text a run: nothing is padded, so no vector depends on
its neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from speculation.engines.files import require
from speculation.engines.graph import IR_VERSION, OPSET, GraphParts, Weights, read_weight


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """Sizes of a BERT encoder."""

    vocabulary_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    num_positions: int
    epsilon: float

    @classmethod
    def of(cls, config: Any, source: str) -> EncoderShape:
        """From a ``config.json``. Raises ``PackageError`` for another kind of model, and for what is not computed here."""
        require(isinstance(config, dict), f"{source} must be a JSON object")
        kinds = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
        for key, wanted in kinds.items():
            got = config.get(key, wanted if key != "model_type" else None)
            require(
                got == wanted, f"{source} has {key} {got!r}; text is embedded with a BERT encoder whose {key} is {wanted!r}"
            )
        sizes = {field: _size(config, key, source) for field, key in _SIZES.items()}
        shape = cls(**sizes, epsilon=_epsilon(config.get("layer_norm_eps", 1e-12), source))
        whole = shape.hidden_size % shape.num_heads == 0
        require(whole, f"{source}: hidden_size {shape.hidden_size} is no multiple of {shape.num_heads} heads")
        return shape


_SIZES = {
    "vocabulary_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "num_positions": "max_position_embeddings",
}


def _size(config: dict[str, Any], key: str, source: str) -> int:
    value = config.get(key)
    require(type(value) is int and value > 0, f"{source} has {key} {value!r}; it must be a whole number from 1 on")
    return int(config[key])


def _epsilon(value: Any, source: str) -> float:
    require(isinstance(value, int | float) and 0 < value < 1, f"{source} has layer_norm_eps {value!r}; it is between 0 and 1")
    return float(value)


def build_encoder(shape: EncoderShape, weights: Weights) -> onnx.ModelProto:
    """The graph. Arrays are named as Hugging Face's ``BertModel`` names them, with or without ``bert.`` before the name.

    Raises ``PackageError`` for a weight that is missing or has another shape than the configuration says.
    """
    builder = _EncoderBuilder(shape, weights)
    return builder.build()


class _EncoderBuilder:
    def __init__(self, shape: EncoderShape, weights: Weights) -> None:
        self._shape = shape
        self._weights = weights
        self._prefix = "bert." if "bert.embeddings.word_embeddings.weight" in weights else ""
        self.parts = GraphParts()

    def build(self) -> onnx.ModelProto:
        x = self._embeddings()
        for number in range(self._shape.num_layers):
            x = self._layer(x, number)
        self._pooled(x)
        inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["S"])]
        outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [self._shape.hidden_size])]
        graph = helper.make_graph(self.parts.nodes, "encoder", inputs, outputs, list(self.parts.constants.values()))
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _read(self, name: str, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return read_weight(self._weights, self._prefix + name, shape)

    def _embeddings(self) -> str:
        parts, shape = self.parts, self._shape
        words = self._read("embeddings.word_embeddings.weight", shape.vocabulary_size, shape.hidden_size)
        places = self._read("embeddings.position_embeddings.weight", shape.num_positions, shape.hidden_size)
        # There is one text, so its kind is always the first: that row is part of every position's.
        kinds = self._weights.get(f"{self._prefix}embeddings.token_type_embeddings.weight", np.zeros((1, shape.hidden_size)))
        table = parts.constant("words", words, is_read_whole=False)
        positions = parts.constant("positions", (places + kinds[0]).astype(np.float32), is_read_whole=False)
        count = parts.node("Shape", ["input_ids"], "count")
        zero = parts.constant("zero", np.zeros(1, np.int64))
        first = parts.node("Slice", [positions, zero, count, zero], "first_positions")
        rows = parts.node("Gather", [table, "input_ids"], "word_rows")
        return self._norm(parts.node("Add", [rows, first], "embedded"), "embeddings.LayerNorm")

    def _layer(self, x: str, number: int) -> str:
        base, size, wide = f"encoder.layer.{number}", self._shape.hidden_size, self._shape.intermediate_size
        heard = self._linear(self._attention(x, base), f"{base}.attention.output.dense", size, size)
        x = self._norm(self.parts.node("Add", [heard, x], f"{base}.heard"), f"{base}.attention.output.LayerNorm")
        inner = self._linear(x, f"{base}.intermediate.dense", wide, size)
        inner = self.parts.node("Gelu", [inner], f"{base}.gelu")
        outer = self._linear(inner, f"{base}.output.dense", size, wide)
        return self._norm(self.parts.node("Add", [outer, x], f"{base}.thought"), f"{base}.output.LayerNorm")

    def _attention(self, x: str, base: str) -> str:
        """Every row looks at every row: [S, hidden]."""
        parts, size, heads = self.parts, self._shape.hidden_size, self._shape.num_heads
        query, key, value = (self._by_head(x, f"{base}.attention.self.{name}") for name in ("query", "key", "value"))
        key = parts.node("Transpose", [key], f"{base}.keys", perm=[0, 2, 1])
        scale = parts.constant(f"{base}.scale", np.array(1 / math.sqrt(size // heads), np.float32))
        scores = parts.node("Mul", [parts.node("MatMul", [query, key], f"{base}.dots"), scale], f"{base}.scores")
        shares = parts.node("Softmax", [scores], f"{base}.shares", axis=-1)
        mixed = parts.node("MatMul", [shares, value], f"{base}.mixed")
        rows = parts.node("Transpose", [mixed], f"{base}.rows", perm=[1, 0, 2])
        return parts.node("Reshape", [rows, self._numbers(f"{base}.flat", [0, size])], f"{base}.joined")

    def _by_head(self, x: str, name: str) -> str:
        """A projection, [heads, S, head size]."""
        parts, size, heads = self.parts, self._shape.hidden_size, self._shape.num_heads
        flat = self._linear(x, name, size, size)
        split = parts.node("Reshape", [flat, self._numbers(f"{name}.split", [0, heads, size // heads])], f"{name}.by_row")
        return parts.node("Transpose", [split], f"{name}.by_head", perm=[1, 0, 2])

    def _linear(self, x: str, name: str, out_size: int, in_size: int) -> str:
        weight = self.parts.constant(f"{name}.weight", self._read(f"{name}.weight", out_size, in_size).T)
        bias = self.parts.constant(f"{name}.bias", self._read(f"{name}.bias", out_size))
        return self.parts.node("Add", [self.parts.node("MatMul", [x, weight], f"{name}.product"), bias], name)

    def _norm(self, x: str, name: str) -> str:
        size = self._shape.hidden_size
        scale, bias = (self.parts.constant(f"{name}.{part}", self._read(f"{name}.{part}", size)) for part in ("weight", "bias"))
        return self.parts.node("LayerNormalization", [x, scale, bias], name, axis=-1, epsilon=self._shape.epsilon)

    def _pooled(self, x: str) -> None:
        axis = self.parts.constant("rows_axis", np.zeros(1, np.int64))
        mean = self.parts.node("ReduceMean", [x, axis], "mean", keepdims=0)
        self.parts.node("LpNormalization", [mean], "embedding", axis=-1, p=2)

    def _numbers(self, name: str, values: list[int]) -> str:
        return self.parts.constant(name, np.array(values, np.int64))
