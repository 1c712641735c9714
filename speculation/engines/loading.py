"""A package's graph as a session of ONNX Runtime on the CPU, in the form in which it is computed fastest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from speculation.engines import arena
from speculation.engines.cache_pages import CacheType
from speculation.engines.files import read_graph
from speculation.engines.grouping import INPUTS, group_heads, groups_of
from speculation.engines.half_caches import halve_caches
from speculation.engines.head_groups import HeadGroups
from speculation.engines.large_pages import in_large_pages
from speculation.engines.model import HALF_CACHES, graph_variant
from speculation.engines.pointwise import FOLDER_OF_WEIGHTS, Convolved, convolved
from speculation.engines.quantise import Int8Linear
from speculation.engines.variants import LINEARS
from speculation.engines.whole_sums import are_whole
from speculation.errors import ConfigurationError, PackageError

if TYPE_CHECKING:
    from speculation.engines.package import Package


@dataclass(frozen=True, slots=True)
class Loaded:
    """``matrices``: with whose memory the session computes, where they are convolved. ``groups``: of a graph whose attention
    may have grouped rows (``grouping.py``). ``cache_type``: what the caches are to be made of."""

    session: Any
    matrices: Convolved | None
    groups: HeadGroups | None
    cache_type: CacheType


def load(package: Package, variant: str, threads: int) -> Loaded:
    """One variant of a package; the graph's file is checked before it is opened.

    Raises ``PackageError`` when it is damaged or not of the form that ``graph.py`` builds, ``ConfigurationError`` for 8-bit
    blocks whose sums this processor cuts off.
    """
    linear = LINEARS.get(graph_variant(variant))
    if isinstance(linear, Int8Linear) and not are_whole(linear.block):
        name = f"{package.name}:{variant}"
        raise ConfigurationError(f"{name}: ONNX Runtime cuts off sums of 8-bit blocks on this processor; take i8, q4 or fp32")
    options = arena.in_shared_arena()
    options.intra_op_num_threads = threads
    # It would keep a plan of memory for every shape of a pass, and hardly two ragged passes have the same.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path, shape, is_half = package.graph(variant), package.architecture, variant.endswith(HALF_CACHES)
    model, groups = read_graph(path), groups_of(shape)
    if is_half and not halve_caches(model):
        raise PackageError(f"{path} is not a packed graph, so its caches cannot be in 16 bits")
    if groups is not None and not group_heads(model, groups, shape.head_size):
        groups = None
    with in_large_pages():
        made = convolved(path, model)
        if made is not None:
            made.tell(options, path.parent)
            graph: str | bytes = made.graph
        elif groups is not None or is_half:
            options.add_session_config_entry(FOLDER_OF_WEIGHTS, str(path.parent))
            graph = model.SerializeToString()
        else:
            graph = str(path)
        del model
        try:
            session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise PackageError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
    _check_interface(session, package, path.name, groups)
    return Loaded(session, made, groups, np.float16 if is_half else np.float32)


def _check_interface(session: Any, package: Package, name: str, groups: HeadGroups | None) -> None:
    """The graph must have exactly the inputs that ``graph.py`` gives it, with the cache that ``config.json`` says."""
    shape = package.architecture
    caches = {f"past_key_values.{n}.{kind}" for n in range(shape.num_layers) for kind in ("key", "value")}
    small = {"input_ids", "pad_idx", "unpad_idx", "out_idx", "seqlens_k", "query_seqlens", "total_sequence_length"}
    if groups is not None:
        small |= INPUTS
    found = {value.name: value.shape for value in session.get_inputs()}
    if found.keys() != caches | small:
        wrong = ", ".join(sorted(found.keys() ^ (caches | small)))
        raise PackageError(f"{name} is not a packed graph with {shape.num_layers} layers; missing or unexpected: {wrong}")
    sizes = {tuple(found[cache][1::2]) for cache in caches}  # as many as there are: a damaged graph may have fewer dimensions
    if sizes != {(shape.num_kv_heads, shape.head_size)}:
        wanted = f"{shape.num_kv_heads} heads of {shape.head_size}"
        raise PackageError(f"{name} keeps key-value heads of {sorted(map(str, sizes))}; config.json says {wanted}")
    vocabulary = next(iter(session.get_outputs()[0].shape[1:]), None)
    if vocabulary != shape.vocabulary_size:
        raise PackageError(f"{name} has a vocabulary of {vocabulary}; config.json says {shape.vocabulary_size}")
