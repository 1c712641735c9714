"""A graph as other tools export it, read with suspicion: nothing outside its folder, and no input that we cannot fill."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from speculation.engines.export_facts import ExportFacts, Names
from speculation.engines.files import confined, read_graph, require, tensors_of
from speculation.engines.layouts import WITH_PAST
from speculation.engines.turning import turning_length
from speculation.errors import PackageError

KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Those of the operators that ONNX Runtime has on a CPU without further libraries."""
CACHE_TYPES: Mapping[int, type[Any]] = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}
TOKEN_TYPES: Mapping[int, type[Any]] = {TensorProto.INT64: np.int64, TensorProto.INT32: np.int32}
NOT_LEARNED: Mapping[str, tuple[int, ...]] = {
    "MatMulNBits": (2, 3),
    "GatherBlockQuantized": (2, 3),
    "GroupQueryAttention": (7, 8),
}
"""Inputs that are scales, zero points, or tables of positions."""
MOST_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class ExportedGraph:
    """A checked graph. ``model`` is an ``onnx.ModelProto`` without external data; ``small_inputs`` are those that are no
    caches, with the type of their numbers, and ``fixed_inputs`` those of them that are the same in every run; ``past`` and
    ``present`` are keys and values in turn, layer after layer. ``has_branches``: one half of the graph, of which an input
    tells, begins a text, and the other goes on behind a cache. ``takes_one_token``: a run has no more. ``is_second_half``: it
    was made to go on behind a cache with one token; what it does with several has to be tried. ``turning_length``: the longest
    text whose positions are turned as those of a short one, where longer ones are not; else 0."""

    path: Path
    model: Any
    facts: ExportFacts
    small_inputs: Mapping[str, type[Any]]
    fixed_inputs: Mapping[str, NDArray[Any]]
    past: tuple[str, ...]
    present: tuple[str, ...]
    cache_type: type[Any]
    num_kv_heads: int
    head_size: int
    weight_bytes: int
    has_branches: bool
    takes_one_token: bool
    is_second_half: bool
    turning_length: int

    def without_model(self) -> ExportedGraph:
        """What an engine keeps: the weights are in the runtime by then."""
        return replace(self, model=None)

    @property
    def names(self) -> Names:
        return self.facts.names

    @property
    def kv_bytes_per_token(self) -> int:
        return len(self.past) * self.num_kv_heads * self.head_size * np.dtype(self.cache_type).itemsize


def read_exported(folder: Path, name: str, facts: ExportFacts) -> ExportedGraph:
    """The graph ``name`` of a folder. Raises ``PackageError`` for one that is damaged, reaches out of the folder, or is not
    the decoder that the configuration speaks of."""
    path = confined(folder, name, "model")
    model = read_graph(path)
    size = path.stat().st_size + sum(external_ranges(folder, name, model).values())
    _check_domains(model, path)
    _check_layers(model, path, facts)
    past, present = (_cache_names(templates, facts.num_layers) for templates in (facts.names.past, facts.names.present))
    inputs = _checked_inputs(model, path, facts, past)
    takes_one_token = _tokens_of_a_run(inputs[facts.names.input_ids], path) == 1
    _check_outputs(model, path, facts, present, takes_one_token)
    cache_type, num_kv_heads, head_size = _cache_form([inputs[name] for name in past], path, facts)
    switch = inputs.pop(facts.names.use_cache_branch, None)
    small = {name: _token_type(value, path) for name, value in inputs.items() if name not in past}
    if switch is not None:
        small[switch.name] = _switch_type(switch, path)
    fixed = _fixed_inputs(inputs, facts, small)
    return ExportedGraph(
        path=path,
        model=model,
        facts=facts,
        small_inputs=small,
        fixed_inputs=fixed,
        past=past,
        present=present,
        cache_type=cache_type,
        num_kv_heads=num_kv_heads,
        head_size=head_size,
        weight_bytes=size,
        has_branches=switch is not None,
        takes_one_token=takes_one_token,
        is_second_half=path.name.startswith(WITH_PAST),
        turning_length=turning_length(model.graph, facts.names.position_ids),
    )


def external_ranges(folder: Path, name: str, model: Any) -> dict[str, int]:
    """Files beside the graph ``name`` that it keeps weights in: path in the folder -> size in bytes.

    Raises ``PackageError`` for a file outside the folder or missing, and for weights that do not lie inside their file.
    """
    sizes: dict[str, int] = {}
    for part in [model.graph, *model.functions]:
        for tensor in tensors_of(part):
            if tensor.data_location == TensorProto.EXTERNAL:
                entries = {entry.key: entry.value for entry in tensor.external_data}
                location = entries.get("location", "")
                require(not location.startswith("/"), f"{name} keeps weights in {location!r}; they must lie inside the folder")
                file = str(PurePosixPath(name).parent / location)
                sizes[file] = confined(folder, file, "model").stat().st_size
                _check_range(f"{name}: {tensor.name}", entries, file, sizes[file])
    return sizes


def num_parameters(model: Any) -> int:
    """Numbers that were learned, as far as the constants show it; those of 4-bit layers are packed several to a byte."""
    sizes: dict[str, int] = {t.name: math.prod(t.dims) for t in model.graph.initializer if t.data_type not in TOKEN_TYPES}
    for node in model.graph.node:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        # One without its inputs or sizes is refused where it is loaded; nothing is counted of it.
        if node.op_type == "MatMulNBits" and len(node.input) > 1:
            sizes[node.input[1]] = attributes.get("K", 0) * attributes.get("N", 0)
        elif node.op_type == "GatherBlockQuantized" and node.input:
            sizes[node.input[0]] = sizes.get(node.input[0], 0) * 8 // (attributes.get("bits") or 4)
        for name in [node.input[place] for place in NOT_LEARNED.get(node.op_type, ()) if place < len(node.input)]:
            sizes[name] = 0
    return max(1, sum(sizes.values()))


def _check_range(what: str, entries: Mapping[str, str], file: str, size: int) -> None:
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or 0)
    except ValueError as error:
        raise PackageError(f"{what} has an offset or a length in {file} that is no number: {error}") from error
    lies_inside = 0 <= offset <= size and 0 <= length <= size - offset
    require(
        lies_inside, f"{what} takes {length} bytes from {offset} on of {file}, which has {size}; the download is incomplete"
    )


def _check_domains(model: Any, path: Path) -> None:
    own = {function.domain for function in model.functions}
    strange = sorted({node.domain for node in model.graph.node} - KNOWN_DOMAINS - own)
    known = ", ".join(sorted(KNOWN_DOMAINS - {""}))
    require(not strange, f"{path} uses operators of {', '.join(strange)}, which need a library of their own; known: {known}")


def _check_layers(model: Any, path: Path, facts: ExportFacts) -> None:
    """Before a name is made for each layer that the configuration speaks of. Without any cache another refusal says more."""
    patterns = [re.escape(template).replace("%d", r"\d+") for template in facts.names.past]
    num_caches = sum(any(re.fullmatch(pattern, value.name) for pattern in patterns) for value in model.graph.input)
    says = f"{path} has caches for {num_caches / 2:g} layers; {facts.source} says {facts.num_layers}"
    require(num_caches == 2 * facts.num_layers or (num_caches == 0 and facts.num_layers <= MOST_LAYERS), says)


def _cache_names(templates: tuple[str, str], num_layers: int) -> tuple[str, ...]:
    return tuple(template % layer for layer in range(num_layers) for template in templates)


def _checked_inputs(model: Any, path: Path, facts: ExportFacts, past: tuple[str, ...]) -> dict[str, Any]:
    """The graph's inputs by name: all that are needed, and none that is not known."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    names = facts.names
    missing = sorted({names.input_ids, *past} - inputs.keys())
    require(not missing, f"{path} has no input {_shown(missing)}; a decoder with a cache is needed (text-generation-with-past)")
    known = (names.input_ids, names.attention_mask, names.position_ids, names.num_logits_to_keep, names.use_cache_branch)
    unknown = sorted(inputs.keys() - {*known, *past, *_window_names(facts)})
    require(
        not unknown, f"{path} has inputs that are not known: {_shown(unknown)}; known: {', '.join(known)} and {past[0]} ..."
    )
    return inputs


def _tokens_of_a_run(value: Any, path: Path) -> int:
    """How many tokens a run takes; 0 for any number."""
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    count = shape[1] if len(shape) == 2 else 0
    right = "any number is right, or one (transformers: OnnxConfig(dynamic=True) and multi_token_decode=True)"
    require(count < 2, f"{path} takes {value.name} of shape {shape}: {count} tokens a run; {right}")
    return count


def _check_outputs(model: Any, path: Path, facts: ExportFacts, present: tuple[str, ...], takes_one_token: bool) -> None:
    outputs = {value.name: value for value in model.graph.output}
    missing = sorted({facts.names.logits, *present} - outputs.keys())
    require(not missing, f"{path} has no output {_shown(missing)}, which the next pass needs")
    shape = outputs[facts.names.logits].type.tensor_type.shape.dim
    require(len(shape) == 3, f"{path} gives logits of {len(shape)} dimensions; 3 are right: batch, rows, vocabulary")
    size = shape[2].dim_value or facts.vocabulary_size
    says = f"{facts.source} says {facts.vocabulary_size}"
    require(size == facts.vocabulary_size, f"{path} has a vocabulary of {size}; {says}")
    kind = outputs[facts.names.logits].type.tensor_type.elem_type
    require(kind in CACHE_TYPES, f"{path} gives logits of {_type_name(kind)}; FLOAT or FLOAT16 is right")
    gives_all = takes_one_token or shape[1].dim_value != 1
    require(gives_all, f"{path} gives logits of the last token only; those of every token are needed")


def _cache_form(values: list[Any], path: Path, facts: ExportFacts) -> tuple[type[Any], int, int]:
    """Type, heads and head size of all caches, which are one."""
    kinds = {value.type.tensor_type.elem_type for value in values}
    names = ", ".join(sorted(_type_name(kind) for kind in kinds))
    require(len(kinds) == 1 and kinds <= CACHE_TYPES.keys(), f"{path} has caches of {names}; FLOAT or FLOAT16 is right")
    shapes = {tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim) for value in values}
    shape = shapes.pop()
    require(
        not shapes and len(shape) == 4, f"{path} has caches of different shapes; one of 4 dimensions is right, for all layers"
    )
    is_open = shape[2] == 0
    require(is_open, f"{path} has caches of {shape[2]} tokens, always; a number that grows, and may be 0, is right")
    sizes = [_agreed(path, facts.source, *entry) for entry in _head_entries(shape, facts)]
    return CACHE_TYPES[kinds.pop()], sizes[0], sizes[1]


def _head_entries(shape: tuple[int, ...], facts: ExportFacts) -> list[tuple[str, int, int | None]]:
    return [("key-value heads", shape[1], facts.num_kv_heads), ("head size", shape[3], facts.head_size)]


def _agreed(path: Path, source: str, what: str, found: int, said: int | None) -> int:
    """What the graph says; where it leaves that open (0), what the configuration says."""
    require(bool(found or said), f"neither {path} nor {source} says the number of {what}")
    require(not found or said in (None, found), f"{path} has {what} {found}; {source} says {said}")
    return found or said or 0


def _token_type(value: Any, path: Path) -> type[Any]:
    kind = value.type.tensor_type.elem_type
    require(kind in TOKEN_TYPES, f"{path} takes {value.name} as {_type_name(kind)}; INT64 or INT32 is right")
    return TOKEN_TYPES[kind]


def _switch_type(value: Any, path: Path) -> type[Any]:
    kind, rank = value.type.tensor_type.elem_type, len(value.type.tensor_type.shape.dim)
    says = f"{path} takes {value.name} as {_type_name(kind)} of {rank} dimensions; BOOL of 1 is right"
    require(kind == TensorProto.BOOL and rank == 1, says)
    return np.bool_


def _fixed_inputs(inputs: Mapping[str, Any], facts: ExportFacts, types: Mapping[str, type[Any]]) -> dict[str, NDArray[Any]]:
    """Newer exports ask how many of the last logits are wanted, where 0 stands for all, and some for the window of each layer:
    a number, or an array of one."""
    values = {facts.names.num_logits_to_keep: 0} | dict.fromkeys(_window_names(facts), facts.window or 0)
    return {
        name: np.full([1] * len(inputs[name].type.tensor_type.shape.dim), value, types[name])
        for name, value in values.items()
        if name in inputs
    }


def _window_names(facts: ExportFacts) -> list[str]:
    """Inputs that may ask for the window, where the configuration says one."""
    return [facts.names.window % layer for layer in range(facts.num_layers)] if facts.window and facts.names.window else []


def _type_name(kind: int) -> str:
    """What ONNX calls a type of numbers; a damaged graph may have one that it has no name for."""
    return TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else f"type {kind}"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
