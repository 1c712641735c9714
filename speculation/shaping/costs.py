"""What a step of an emulated model costs on an emulated machine: pure functions of sizes.

A step reads the weights once, whatever the number of sessions in it, and each session's keys and values; meanwhile it
computes two operations a weight and token. The slower of the two is its time (the roofline model). Decoding is bound by the
first, prefill by the second. ``docs/shaping.md`` has the formulas and what they leave out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from speculation.errors import CapacityError
from speculation.shaping.models import ModelDescription

_GB = 1e9


@dataclass(frozen=True, slots=True)
class Work:
    """One session's part of a step: ``new_tokens`` rows behind ``past_tokens`` that its cache already holds."""

    past_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a step's time follows from; bandwidth and speed are what is reached, not peaks."""

    bandwidth_bytes_per_s: float
    operations_per_s: float
    memory_bytes: float
    memory_name: str
    runtime_bytes: float = 0.0
    overhead_s: float = 0.0
    overhead_per_layer_s: float = 0.0


def bytes_read(model: ModelDescription, works: Sequence[Work]) -> float:
    """Bytes of weights and of keys and values that a step touches."""
    num_rows = sum(work.new_tokens for work in works)
    num_cached = sum(work.past_tokens + work.new_tokens for work in works)
    return model.weight_bytes_read(num_rows) + num_cached * model.kv_bytes_per_token


def step_time_s(machine: Machine, model: ModelDescription, works: Sequence[Work]) -> float:
    """Seconds of one step: the longer of reading and computing, plus the machine's overhead a step and a layer. No work takes
    no time."""
    if not works:
        return 0.0
    reading_s = bytes_read(model, works) / machine.bandwidth_bytes_per_s
    computing_s = model.operations(sum(work.new_tokens for work in works)) / machine.operations_per_s
    return max(reading_s, computing_s) + machine.overhead_s + model.layers * machine.overhead_per_layer_s


def bytes_held(machine: Machine, model: ModelDescription, num_tokens: int) -> float:
    """What a model with ``num_tokens`` of cache takes: weights, keys and values, and the runtime."""
    return model.weight_bytes + num_tokens * model.kv_bytes_per_token + machine.runtime_bytes


def room_tokens(machine: Machine, model: ModelDescription) -> float:
    """Tokens of cache for which there is room beside the weights, with a fraction; below 0 where the weights do not fit."""
    return (machine.memory_bytes - bytes_held(machine, model, 0)) / model.kv_bytes_per_token


def check_capacity(machine: Machine, model: ModelDescription, num_tokens: int, listed: Sequence[ModelDescription] = ()) -> None:
    """Raises ``CapacityError``, with the sum in GB, where weights, ``num_tokens`` of cache and the runtime do not fit.

    The refusal names the first of the ``listed`` models that would fit.
    """
    total_bytes = bytes_held(machine, model, num_tokens)
    if total_bytes <= machine.memory_bytes:
        return
    kv_bytes = num_tokens * model.kv_bytes_per_token
    name = model.name or "the model"
    raise CapacityError(
        f"{name} does not fit: {model.weight_bytes / _GB:.2f} GB weights + {kv_bytes / _GB:.2f} GB keys and values of "
        f"{num_tokens} tokens + {machine.runtime_bytes / _GB:.2f} GB runtime = {total_bytes / _GB:.2f} GB, "
        f"but {machine.memory_name} is {machine.memory_bytes / _GB:.2f} GB{_advice(machine, num_tokens, listed)}"
    )


def _advice(machine: Machine, num_tokens: int, listed: Sequence[ModelDescription]) -> str:
    """The end of a refusal: what to take instead."""
    if not listed:
        return ""
    fits = (model for model in listed if bytes_held(machine, model, num_tokens) <= machine.memory_bytes)
    largest = next(fits, None)
    return "; no listed model fits" if largest is None else f"; the largest listed model that fits is {largest.name}"
