"""Reads what a service tells Prometheus, with Prometheus' own parser."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from speculation.telemetry.exposition import snapshot


class Figures:
    """The samples of an exposition, by name and labels."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        samples = [sample for family in self.families.values() for sample in family.samples]
        self._values = {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}
        assert len(self._values) == len(samples), "a figure is told twice"

    @classmethod
    def of(cls, registry: CollectorRegistry) -> Figures:
        return cls(generate_latest(snapshot(registry)).decode())

    def __getitem__(self, name: str) -> float:
        return self.get(name)

    def get(self, name: str, **labels: str) -> float:
        return self._values[name, tuple(sorted(labels.items()))]

    def has(self, name: str, **labels: str) -> bool:
        return (name, tuple(sorted(labels.items()))) in self._values

    def type_of(self, family: str) -> str:
        return self.families[family].type
