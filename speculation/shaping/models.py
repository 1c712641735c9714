"""The models that are emulated: their size in bytes, their cache per token, and the strings by which people name them."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from dataclasses import dataclass
from importlib import resources

from speculation.engines.base import EngineDescription
from speculation.errors import InvalidRequestError

_BITS = {"fp32": 32.0, "fp16": 16.0, "bf16": 16.0, "fp8": 8.0, "int8": 8.0, "int4": 4.0}
_SCALES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_LISTED_SIZES = ("70B", "13B", "7B", "3.25B", "1.8B")
_LISTED_TYPES = ("fp32", "fp16", "int8", "int4")
"""Sizes and number types of the table in Liang, Computing Architecture for LLMs and LMMs (ISPD 2024): 4, 2, 1, half a byte."""
_EXAMPLES = "0.9B:int4, 70B:fp16, 47B:int4:active=13B or 70B:fp16:layers=80,kv_heads=8,head_size=128"
_SHAPE_OPTIONS = ("layers", "kv_heads", "head_size")


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A decoder as far as time and memory go. ``bits`` is the average per weight; keys and values take ``kv_bits`` each.

    ``active_parameters`` is what one token uses of a mixture of experts; None means all.
    """

    parameters: float
    bits: float
    layers: int
    kv_heads: int
    head_size: int
    active_parameters: float | None = None
    kv_bits: float = 16.0
    name: str = ""

    def __post_init__(self) -> None:
        for field in ("parameters", "bits", "layers", "kv_heads", "head_size", "kv_bits"):
            if not 0 < getattr(self, field) < math.inf:
                raise InvalidRequestError(f"{field} of a model is a number above 0, not {getattr(self, field)}", "model")
        if self.active_parameters is not None and not 0 < self.active_parameters <= self.parameters:
            raise InvalidRequestError("active parameters are more than 0 and at most all of them", "model")

    @classmethod
    def of_engine(cls, description: EngineDescription) -> ModelDescription:
        """An engine's own model, where nothing bigger is emulated: its real weight and cache bytes."""
        bits = 8 * description.weight_bytes / description.num_parameters
        halves = max(1, description.kv_bytes_per_token // 2)  # one layer with one head stands for the whole cache
        return cls(description.num_parameters, bits, 1, 1, halves, kv_bits=8.0, name=description.name)

    @property
    def weight_bytes(self) -> float:
        """All weights, as they lie in memory."""
        return self.parameters * self.bits / 8

    @property
    def kv_bytes_per_token(self) -> float:
        """Keys and values of one token over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_size * self.kv_bits / 8

    def weight_bytes_read(self, num_rows: int) -> float:
        """Weights that a step over ``num_rows`` tokens reads: each at most once; experts as if no two tokens shared one."""
        return min(self.parameters, self._active * num_rows) * self.bits / 8

    def operations(self, num_rows: int) -> float:
        """A multiplication and an addition for each active weight and token; attention's own are left out."""
        return 2 * self._active * num_rows

    @property
    def _active(self) -> float:
        return self.parameters if self.active_parameters is None else self.active_parameters


@dataclass(frozen=True, slots=True)
class _Shape:
    """A published model whose attention stands for others of about its size."""

    name: str
    parameters: float
    layers: int
    kv_heads: int
    head_size: int
    source: str
    date: str


def parse_model(text: str) -> ModelDescription:
    """A model named as ``SIZE:TYPE[:OPTIONS]``, such as ``0.9B:int4``.

    Options, separated by commas: ``active`` (parameters a token uses), ``layers``, ``kv_heads``, ``head_size`` (all three or
    none; by default those of the published model nearest in size). Raises ``InvalidRequestError`` that says what is right.
    """
    size, separator, rest = text.strip().lower().partition(":")
    number_type, _, option_text = rest.partition(":")
    if not separator:
        raise _refusal(text, "it has no number type")
    parameters = _parse_size(text, size)
    options = _parse_options(text, option_text)
    active = _parse_size(text, options["active"]) if "active" in options else None
    layers, kv_heads, head_size = _shape(text, options, parameters)
    bits = _parse_bits(text, number_type)
    return ModelDescription(parameters, bits, layers, kv_heads, head_size, active, name=text.strip())


def _parse_size(text: str, size: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmbt])", size)
    parameters = 0.0 if match is None else float(match[1]) * _SCALES[match[2]]
    if not 0 < parameters < math.inf:
        raise _refusal(text, f"{size[:40]!r} is no number of parameters such as 900M or 0.9B")
    return parameters


def _parse_bits(text: str, number_type: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)bit", number_type)
    if match is not None and float(match[1]) > 0:
        return float(match[1])
    if number_type not in _BITS:
        known = ", ".join(_BITS)
        raise _refusal(text, f"unknown number type {number_type!r}; known: {known}, or bits per weight such as 4.5bit")
    return _BITS[number_type]


def _parse_options(text: str, option_text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for option in filter(None, option_text.split(",")):
        key, _, value = option.partition("=")
        if key not in ("active", *_SHAPE_OPTIONS):
            raise _refusal(text, f"unknown option {key!r}; known: active, {', '.join(_SHAPE_OPTIONS)}")
        options[key] = value
    return options


def _shape(text: str, options: dict[str, str], parameters: float) -> tuple[int, int, int]:
    given = [options[name] for name in _SHAPE_OPTIONS if name in options]
    if not given:
        nearest = min(_published_shapes(), key=lambda shape: abs(math.log(shape.parameters / parameters)))
        return nearest.layers, nearest.kv_heads, nearest.head_size
    if len(given) != len(_SHAPE_OPTIONS) or not all(re.fullmatch(r"[0-9]{1,6}", value) for value in given):
        raise _refusal(text, f"{', '.join(_SHAPE_OPTIONS)} are whole numbers below a million, given all together or not at all")
    layers, kv_heads, head_size = map(int, given)
    return layers, kv_heads, head_size


@functools.cache
def listed_models() -> tuple[ModelDescription, ...]:
    """The models that a refusal may offer instead, the one with most parameters first, then that with most bits."""
    sizes = {*_LISTED_SIZES, *(f"{shape.parameters / 1e9:g}B" for shape in _published_shapes())}
    models = [parse_model(f"{size}:{number_type}") for size in sizes for number_type in _LISTED_TYPES]
    return tuple(sorted(models, key=lambda model: (model.parameters, model.bits), reverse=True))


@functools.cache
def _published_shapes() -> tuple[_Shape, ...]:
    text = resources.files(__package__).joinpath("data", "shapes.toml").read_text("utf-8")
    return tuple(_Shape(**shape) for shape in tomllib.loads(text)["shape"])


def _refusal(text: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"{text!r} names no model: {reason}. Write for example {_EXAMPLES}", "model")
