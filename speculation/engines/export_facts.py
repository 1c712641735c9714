"""What lies beside an exported graph and tells of it, in our words: ``config.json``, ``genai_config.json``, ``export.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from speculation.engines.files import require
from speculation.engines.layouts import EXPORT_MANIFEST, GENAI_CONFIG
from speculation.engines.manifest import CONFIG
from speculation.errors import PackageError
from speculation.truncation import MAX_VOCABULARY_SIZE

SIZE_LIMIT = 2**31
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads")
HIDDEN = ("hidden_size", "n_embd", "d_model")
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")
END_TOKEN = "eos_token_id"
COMPONENTS = ("decode", "model")
"""Graphs of ``transformers`` that go on behind a cache: of an export for generation, and of one of a forward with a cache."""
CACHE = "DynamicCache"
"""The only one that grows with the text, as ours do."""


@dataclass(frozen=True, slots=True)
class Names:
    """What a graph calls its inputs and outputs; ``%d`` stands for the layer. ``window``: that of a layer, which few take."""

    input_ids: str = "input_ids"
    attention_mask: str = "attention_mask"
    position_ids: str = "position_ids"
    num_logits_to_keep: str = "num_logits_to_keep"
    use_cache_branch: str = "use_cache_branch"
    past: tuple[str, str] = ("past_key_values.%d.key", "past_key_values.%d.value")
    present: tuple[str, str] = ("present.%d.key", "present.%d.value")
    logits: str = "logits"
    window: str = ""


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """Sizes that the graph must have, where the configuration gives them, and what the graph cannot say."""

    source: str
    num_layers: int
    num_kv_heads: int | None
    head_size: int | None
    vocabulary_size: int
    context_length: int
    end_token_ids: tuple[int, ...]
    names: Names
    window: int | None = None

    def __post_init__(self) -> None:
        most = f"more than the {MAX_VOCABULARY_SIZE} that are served"
        is_served = self.vocabulary_size <= MAX_VOCABULARY_SIZE
        require(is_served, f"{self.source}: a vocabulary of {self.vocabulary_size} tokens is {most}")
        strange = [token for token in self.end_token_ids if not 0 <= token < self.vocabulary_size]
        size = f"the vocabulary's size, {self.vocabulary_size}"
        require(not strange, f"{self.source}: {END_TOKEN} {strange} is not below {size}")


def hugging_face_facts(config: Any, generation: Any) -> ExportFacts:
    """From ``config.json`` and ``generation_config.json`` (an empty object where there is none). Raises ``PackageError``."""
    entries = _object(config, CONFIG)
    heads, hidden = _size(entries, CONFIG, HEADS), _size(entries, CONFIG, HIDDEN)
    head_size = _size(entries, CONFIG, ("head_dim",)) or (hidden // heads if hidden and heads else None)
    end = _object(generation, "generation_config.json").get(END_TOKEN)
    return ExportFacts(
        source=CONFIG,
        num_layers=_needed(entries, CONFIG, LAYERS),
        num_kv_heads=_size(entries, CONFIG, KV_HEADS) or heads,
        head_size=head_size,
        vocabulary_size=_needed(entries, CONFIG, ("vocab_size",)),
        context_length=_needed(entries, CONFIG, POSITIONS),
        end_token_ids=_end_tokens(end if end is not None else entries.get(END_TOKEN), CONFIG),
        names=Names(),
    )


def genai_facts(config: Any) -> tuple[str, ExportFacts]:
    """The graph's file, and the facts, from ``genai_config.json``. Raises ``PackageError``."""
    model = _object(_object(config, GENAI_CONFIG).get("model"), f"{GENAI_CONFIG}: model")
    decoder = _object(model.get("decoder"), f"{GENAI_CONFIG}: model.decoder")
    file = decoder.get("filename")
    if not isinstance(file, str):
        raise PackageError(f"{GENAI_CONFIG}: model.decoder.filename is {file!r}; one graph is needed, in one file")
    return file, ExportFacts(
        source=GENAI_CONFIG,
        num_layers=_needed(decoder, GENAI_CONFIG, LAYERS),
        num_kv_heads=_size(decoder, GENAI_CONFIG, KV_HEADS),
        head_size=_size(decoder, GENAI_CONFIG, ("head_size",)),
        vocabulary_size=_needed(model, GENAI_CONFIG, ("vocab_size",)),
        context_length=_genai_context(model, decoder),
        end_token_ids=_end_tokens(model.get(END_TOKEN), GENAI_CONFIG),
        names=_genai_names(decoder),
    )


def transformers_graph(manifest: Any) -> tuple[str, str]:
    """Name and file of the graph that goes on behind a cache, from ``export.json``. Raises ``PackageError``."""
    component, entry = _component(manifest)
    file = entry.get("file")
    if not isinstance(file, str):
        raise PackageError(f"{EXPORT_MANIFEST}: components.{component}.file is {file!r}; the name of a graph is right")
    return component, file


def transformers_facts(manifest: Any, config: Any, generation: Any) -> ExportFacts:
    """Those of ``hugging_face_facts``, and what the graph of ``export.json`` calls its caches. Raises ``PackageError``."""
    component, entry = _component(manifest)
    cache = _cache_name(entry, f"{EXPORT_MANIFEST}: components.{component}.metadata")
    past, present = ((f"{end}.{cache}.layers.%d.keys", f"{end}.{cache}.layers.%d.values") for end in ("input", "output"))
    # A layer with a window keeps it as a tensor beside its keys and values, so it became an input, whether it is used or not.
    names = Names(past=past, present=present, window=f"input.{cache}.layers.%d._sliding_window_tensor")
    facts = hugging_face_facts(config, generation)
    return replace(facts, names=names, window=_size(config, CONFIG, ("sliding_window",)))


def _component(manifest: Any) -> tuple[str, Mapping[str, Any]]:
    components = _object(_object(manifest, EXPORT_MANIFEST).get("components"), f"{EXPORT_MANIFEST}: components")
    name = next((name for name in COMPONENTS if name in components), "")
    found = ", ".join(sorted(components)) or "none"
    needed = f"{' or '.join(COMPONENTS)} is needed, as export_for_generation makes it"
    require(bool(name), f"{EXPORT_MANIFEST}: an export of transformers 5 with the components {found}; {needed}")
    return name, _object(components[name], f"{EXPORT_MANIFEST}: components.{name}")


def _cache_name(entry: Mapping[str, Any], where: str) -> str:
    """The argument that was a growing cache when the graph was traced."""
    arguments = _object(_object(entry.get("metadata"), where).get("kwargs"), f"{where}.kwargs")
    kinds = {name: kind.get("container") for name, kind in arguments.items() if isinstance(kind, dict)}
    names = [name for name, kind in kinds.items() if kind == CACHE and name.isidentifier()]
    found = ", ".join(str(kind) for kind in kinds.values() if kind) or "none"
    require(len(names) == 1, f"{where}.kwargs has caches of another kind: {found}; one {CACHE} is right")
    return names[0]


def _genai_context(model: Mapping[str, Any], decoder: Mapping[str, Any]) -> int:
    """Where onnxruntime-genai is to let its cache slide, the graph knows no window: texts longer than it would be another
    model's."""
    context = _needed(model, GENAI_CONFIG, ("context_length",))
    window = decoder.get("sliding_window")
    if window is None:
        return context
    return min(
        context, _needed(_object(window, f"{GENAI_CONFIG}: model.decoder.sliding_window"), GENAI_CONFIG, ("window_size",))
    )


def _genai_names(decoder: Mapping[str, Any]) -> Names:
    inputs, outputs = (_object(decoder.get(n), f"{GENAI_CONFIG}: model.decoder.{n}") for n in ("inputs", "outputs"))
    usual = Names()
    return Names(
        input_ids=_name(inputs, "input_ids", usual.input_ids),
        attention_mask=_name(inputs, "attention_mask", usual.attention_mask),
        position_ids=_name(inputs, "position_ids", usual.position_ids),
        past=_templates(inputs, "past", usual.past),
        present=_templates(outputs, "present", usual.present),
        logits=_name(outputs, "logits", usual.logits),
    )


def _name(entries: Mapping[str, Any], key: str, default: str) -> str:
    name = entries.get(key, default)
    require(isinstance(name, str), f"{GENAI_CONFIG}: {key} must be a name, not {name!r}")
    return str(name)


def _templates(entries: Mapping[str, Any], kind: str, defaults: tuple[str, str]) -> tuple[str, str]:
    return _template(entries, f"{kind}_key_names", defaults[0]), _template(entries, f"{kind}_value_names", defaults[1])


def _template(entries: Mapping[str, Any], key: str, default: str) -> str:
    """A name with one ``%d`` in it, and no other use of the sign."""
    template = _name(entries, key, default)
    is_one = template.count("%") == 1 and "%d" in template
    require(is_one, f"{GENAI_CONFIG}: {key} is {template!r}; it must hold %d once, for the layer")
    return template


def _object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PackageError(f"{what} must be a JSON object, not {type(value).__name__}")
    return value


def _needed(entries: Mapping[str, Any], source: str, keys: tuple[str, ...]) -> int:
    size = _size(entries, source, keys)
    if size is None:
        raise PackageError(f"{source} lacks {keys[0]}" + (f" (or {', '.join(keys[1:])})" if keys[1:] else ""))
    return size


def _size(entries: Mapping[str, Any], source: str, keys: tuple[str, ...]) -> int | None:
    """The first of the keys that is there; None where none is."""
    for key in keys:
        if (value := entries.get(key)) is not None:
            is_size = isinstance(value, int) and not isinstance(value, bool) and 0 < value < SIZE_LIMIT
            require(is_size, f"{source}: {key} must be a whole number from 1 to {SIZE_LIMIT - 1}, not {value!r}")
            return int(value)
    return None


def _end_tokens(value: Any, source: str) -> tuple[int, ...]:
    """One id, a list of them, or none."""
    tokens = [] if value is None else value if isinstance(value, list) else [value]
    are_ids = all(isinstance(token, int) and not isinstance(token, bool) for token in tokens)
    require(are_ids, f"{source}: {END_TOKEN} must be a token id or a list of them, not {value!r}")
    return tuple(tokens)
