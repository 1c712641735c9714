"""A model as others publish it: a folder of the Hugging Face hub with ONNX graphs in it, or one of onnxruntime-genai.

``docs/models.md`` tells what loads and what is refused. Nothing lies beside these files that could vouch for them, so the
digest is computed from what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from speculation.engines import chat
from speculation.engines.base import Engine, EngineDescription
from speculation.engines.chat import ChatTemplate
from speculation.engines.export_facts import ExportFacts, genai_facts, hugging_face_facts
from speculation.engines.exported_graph import ExportedGraph, external_ranges, num_parameters, read_exported
from speculation.engines.files import confined, digest_of, file_digest, read_bounded_json, read_graph, require
from speculation.engines.generation_defaults import generation_defaults
from speculation.engines.layouts import GENAI_CONFIG, Layout, graph_files, layout_of
from speculation.engines.manifest import CONFIG, GENERATION, TOKENIZER
from speculation.engines.ragged import RaggedEngine
from speculation.engines.stock import StockEngine
from speculation.engines.surgery import CannotBeRaggedError
from speculation.engines.tokenizer_files import load_tokenizer, meaning_of
from speculation.errors import ConfigurationError, UnknownNameError
from speculation.parameters import GenerationDefaults

CONFIG_LIMIT_BYTES = 16 * 1024 * 1024
GENAI_CONFIG_LIMIT_BYTES = 1024 * 1024
GENAI_VARIANT = "genai"
WHOLE_MODEL = ("fp32", "fp16")
"""Variants whose constants are the parameters themselves, so that they can be counted best."""

_log = logging.getLogger(__name__)


class ExportFolder:
    """A ``Model`` in a layout that other tools write. Raises ``PackageError`` when it is none, or says nothing usable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout = layout_of(path)
        require(self.layout is not Layout.PACKAGE, f"{path} is a package; it is no export")
        self.graphs, self.facts = self._described()

    def __repr__(self) -> str:
        return f"ExportFolder({str(self.path)!r})"

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(self.graphs)

    @cached_property
    def num_parameters(self) -> int:
        """Counted in the graph that is nearest to the whole model."""
        nearest = next((variant for variant in WHOLE_MODEL if variant in self.graphs), self.variants[0])
        return num_parameters(read_graph(confined(self.path, self.graphs[nearest], "model")))

    @property
    def context_length(self) -> int:
        return self.facts.context_length

    @property
    def vocabulary_size(self) -> int:
        return self.facts.vocabulary_size

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        return self.facts.end_token_ids

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of each file that is read: configurations, tokenizer, graphs and their weights."""
        names = {name for name in (CONFIG, GENERATION, GENAI_CONFIG, TOKENIZER) if (self.path / name).is_file()}
        for graph in self.graphs.values():
            names |= {graph, *external_ranges(self.path, graph, read_graph(confined(self.path, graph, "model")))}
        return digest_of({name: file_digest(confined(self.path, name, "model")) for name in sorted(names)})

    @cached_property
    def tokenizer_digest(self) -> str:
        """SHA-256 over what the tokenizer does, however its file is spelled."""
        return digest_of(meaning_of(self.path))

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(confined(self.path, TOKENIZER, "model"), self.vocabulary_size, self.facts.source, leaves_out=True)

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        def find(name: str) -> Path | None:
            return confined(self.path, name, "model") if (self.path / name).is_file() else None

        return chat.load(find)

    @cached_property
    def generation_defaults(self) -> GenerationDefaults:
        """Of ``generation_config.json``, or of ``search`` in ``genai_config.json``."""
        if self.layout is Layout.GENAI:
            config = read_bounded_json(confined(self.path, GENAI_CONFIG, "model"), GENAI_CONFIG_LIMIT_BYTES)
            return generation_defaults(config.get("search") or {}, f"{self.path / GENAI_CONFIG}: search")
        return generation_defaults(self._generation_config(), f"{self.path / GENERATION}")

    def _generation_config(self) -> Any:
        """The object of the file, an empty one where there is no file."""
        is_there = (self.path / GENERATION).is_file()
        return read_bounded_json(confined(self.path, GENERATION, "model"), CONFIG_LIMIT_BYTES) if is_there else {}

    def weight_bytes(self, variant: str) -> int:
        """Bytes of the graph and of its weights in other files."""
        return self.graph(variant).weight_bytes

    def graph(self, variant: str) -> ExportedGraph:
        """The graph, checked. Raises ``UnknownNameError`` and ``PackageError``."""
        if variant not in self.graphs:
            raise UnknownNameError(f"variant of {self.name}", variant, self.variants, "variant")
        return read_exported(self.path, self.graphs[variant], self.facts)

    def engine(self, variant: str, num_slots: int, threads: int) -> Engine:
        """In ragged batches where the graph allows it, else session by session; the log says which, and why."""
        if num_slots < 1 or threads < 1:
            raise ConfigurationError(f"an engine needs at least 1 slot and 1 thread, not {num_slots} and {threads}")
        graph = self.graph(variant)
        description = self._description(graph, variant, num_slots)
        try:
            engine: Engine = RaggedEngine(graph, description, threads)
        except CannotBeRaggedError as reason:
            _log.info("%s: each session is run alone, since %s", description.name, reason)
            return StockEngine(graph, description, threads)
        _log.info("%s: sessions share passes, since its attention nodes take lengths", description.name)
        return engine

    def _description(self, graph: ExportedGraph, variant: str, num_slots: int) -> EngineDescription:
        return EngineDescription(
            name=f"{self.name}:{variant}:{self.layout.value}",
            vocabulary_size=self.vocabulary_size,
            context_length=self.context_length,
            num_slots=num_slots,
            num_parameters=self.num_parameters,
            weight_bytes=graph.weight_bytes,
            kv_bytes_per_token=graph.kv_bytes_per_token,
        )

    def _described(self) -> tuple[Mapping[str, str], ExportFacts]:
        if self.layout is Layout.GENAI:
            file, facts = genai_facts(read_bounded_json(confined(self.path, GENAI_CONFIG, "model"), GENAI_CONFIG_LIMIT_BYTES))
            return {GENAI_VARIANT: file}, facts
        config = read_bounded_json(confined(self.path, CONFIG, "model"), CONFIG_LIMIT_BYTES)
        return graph_files(self.path), hugging_face_facts(config, self._generation_config())
