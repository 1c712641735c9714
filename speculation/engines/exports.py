"""A model as others publish it: ONNX graphs as the Hugging Face hub has them, of onnxruntime-genai or of ``transformers`` 5.

``docs/models.md`` tells what loads and what is refused. Nothing lies beside these files that could vouch for them, so the
digest is computed from what is there.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from speculation.engines.base import Engine, EngineDescription
from speculation.engines.export_facts import ExportFacts, genai_facts, transformers_facts, transformers_graph
from speculation.engines.exported_graph import ExportedGraph, external_ranges, num_parameters, read_exported
from speculation.engines.files import CONFIG_LIMIT_BYTES, confined, read_bounded_json, read_graph, require
from speculation.engines.generation_defaults import generation_defaults
from speculation.engines.layouts import EXPORT_MANIFEST, GENAI_CONFIG, Layout, graph_files, layout_of
from speculation.engines.providers import Provider
from speculation.engines.published import PublishedFolder, configurations, described_facts
from speculation.engines.ragged import RaggedEngine
from speculation.engines.stock import StockEngine
from speculation.engines.surgery import CannotBeRaggedError
from speculation.errors import ConfigurationError, UnknownNameError
from speculation.parameters import GenerationDefaults

GENAI_CONFIG_LIMIT_BYTES = 1024 * 1024
GENAI_VARIANT = "genai"
WHOLE_MODEL = ("fp32", "fp16")
"""Variants whose constants are the parameters themselves, so that they can be counted best."""

_log = logging.getLogger(__name__)


class ExportFolder(PublishedFolder):
    """A ``Model`` of graphs that other tools write. Raises ``PackageError`` when it is none, or says nothing usable."""

    def __init__(self, path: Path) -> None:
        self.layout = layout_of(path)
        is_export = self.layout in (Layout.HUGGING_FACE, Layout.GENAI, Layout.TRANSFORMERS_EXPORT)
        require(is_export, f"{path} is a {self.layout.value}; it is no export")
        self.graphs, facts = self._described(path)
        super().__init__(path, facts)

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(self.graphs)

    @cached_property
    def num_parameters(self) -> int:
        """Counted in the graph that is nearest to the whole model."""
        nearest = next((variant for variant in WHOLE_MODEL if variant in self.graphs), self.variants[0])
        return num_parameters(read_graph(confined(self.path, self.graphs[nearest], "model")))

    def _others(self) -> set[str]:
        """Configurations of the layout, graphs and their weights."""
        names = {GENAI_CONFIG} if (self.path / GENAI_CONFIG).is_file() else set()
        names |= {EXPORT_MANIFEST} if self.layout is Layout.TRANSFORMERS_EXPORT else set()
        for graph in self.graphs.values():
            names |= {graph, *external_ranges(self.path, graph, read_graph(confined(self.path, graph, "model")))}
        return names

    @cached_property
    def generation_defaults(self) -> GenerationDefaults:
        """Of ``generation_config.json``, or of ``search`` in ``genai_config.json``."""
        if self.layout is not Layout.GENAI:
            return super().generation_defaults
        config = read_bounded_json(confined(self.path, GENAI_CONFIG, "model"), GENAI_CONFIG_LIMIT_BYTES)
        return generation_defaults(config.get("search") or {}, f"{self.path / GENAI_CONFIG}: search")

    def weight_bytes(self, variant: str) -> int:
        """Bytes of the graph and of its weights in other files."""
        return self.graph(variant).weight_bytes

    def kv_bytes_per_token(self, variant: str) -> int:
        """Bytes of a cache for each token in it, by the graph's inputs."""
        return self.graph(variant).kv_bytes_per_token

    def graph(self, variant: str) -> ExportedGraph:
        """The graph, checked. Raises ``UnknownNameError`` and ``PackageError``."""
        if variant not in self.graphs:
            raise UnknownNameError(f"variant of {self.name}", variant, self.variants, "variant")
        return read_exported(self.path, self.graphs[variant], self.facts)

    def engine(self, variant: str, num_slots: int, threads: int, provider: Provider = Provider.CPU) -> Engine:
        """In ragged batches where the graph and the provider allow it, else session by session; the log says which, and why."""
        if num_slots < 1 or threads < 1:
            raise ConfigurationError(f"an engine needs at least 1 slot and 1 thread, not {num_slots} and {threads}")
        graph = self.graph(variant)
        description = self._description(graph, variant, num_slots)
        try:
            if provider is not Provider.CPU:
                raise CannotBeRaggedError(f"caches in place are not known to work on {provider}")
            engine = RaggedEngine(graph, description, threads)
        except CannotBeRaggedError as reason:
            alone = StockEngine(graph, description, threads, provider)
            what = "token" if alone.one_row_since else "session"
            _log.info("%s: each %s is run alone, since %s", description.name, what, alone.one_row_since or reason)
            return alone
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

    def _described(self, path: Path) -> tuple[Mapping[str, str], ExportFacts]:
        if self.layout is Layout.GENAI:
            file, facts = genai_facts(read_bounded_json(confined(path, GENAI_CONFIG, "model"), GENAI_CONFIG_LIMIT_BYTES))
            return {GENAI_VARIANT: file}, facts
        if self.layout is Layout.TRANSFORMERS_EXPORT:
            manifest = read_bounded_json(confined(path, EXPORT_MANIFEST, "model"), CONFIG_LIMIT_BYTES)
            return dict([transformers_graph(manifest)]), transformers_facts(manifest, *configurations(path))
        return graph_files(path), described_facts(path)
