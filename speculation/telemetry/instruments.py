"""What a service counts and measures, in a registry of its own: figures that are read when asked for, and histograms."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0)
TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
ANSWER_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 240.0, 480.0)
"""Upper bounds of buckets, in seconds: of waits for a first token, of waits for the next one, of whole answers."""

Value = float | Mapping[str, float] | None
"""A figure now; one for each value of its label; or none that would mean anything."""


class _Reading(Collector):
    """A figure that is read when it is asked for: to count it costs no more than an addition."""

    def __init__(self, kind: type[Metric], name: str, what: str, read: Callable[[], Value], label: str | None) -> None:
        self._kind = kind
        self._name = name
        self._what = what
        self._read = read
        self._label = label

    def collect(self) -> Iterator[Metric]:
        value = self._read()
        if self._label is None:
            yield self._kind(self._name, self._what, value=value)  # type: ignore[call-arg]
            return
        family = self._kind(self._name, self._what, labels=(self._label,))  # type: ignore[call-arg]
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        assert isinstance(value, Mapping)
        for key, number in list(value.items()):
            family.add_metric((key,), number)
        yield family


class Histogram(Collector):
    """Seconds by buckets. The library's own takes one observation at a time and a lock; here several tokens that come at once
    are one call, on the event loop alone: a quarter of the time."""

    def __init__(self, name: str, what: str, bounds_s: Sequence[float]) -> None:
        self._name = name
        self._what = what
        self._bounds_s = tuple(bounds_s)
        self._counts = [0] * (len(bounds_s) + 1)
        self._sum_s = 0.0

    def observe(self, seconds: float, count: int = 1) -> None:
        """The same number of seconds, ``count`` times."""
        self._counts[bisect_left(self._bounds_s, seconds)] += count
        self._sum_s += count * seconds

    def collect(self) -> Iterator[Metric]:
        names = [*map(floatToGoString, self._bounds_s), "+Inf"]
        buckets = list(zip(names, accumulate(self._counts), strict=True))
        yield HistogramMetricFamily(self._name, self._what, buckets, self._sum_s)


class Instruments:
    """Makes the instruments of one service; ``prefix`` begins their names, which stand in the base units of Prometheus.

    ``read`` is called on the event loop, whenever somebody asks for the figures. A counter's name gets its ``_total`` here.
    """

    def __init__(self, prefix: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = prefix

    def counter(self, name: str, what: str, read: Callable[[], Value], label: str | None = None) -> Collector:
        return self._registered(_Reading(CounterMetricFamily, self._prefix + name, what, read, label))

    def gauge(self, name: str, what: str, read: Callable[[], Value], label: str | None = None) -> Collector:
        return self._registered(_Reading(GaugeMetricFamily, self._prefix + name, what, read, label))

    def histogram(self, name: str, what: str, bounds_s: Sequence[float]) -> Histogram:
        histogram = Histogram(self._prefix + name, what, bounds_s)
        self.registry.register(histogram)
        return histogram

    def info(self, what: str, facts: Callable[[], Mapping[str, str]]) -> None:
        """Facts, as labels of a figure that is always 1."""
        self._registered(_Facts(self._prefix + "info", what, facts))

    def also(self, figures: Sequence[Renamed], labels: Mapping[str, str]) -> None:
        """Tell figures under other names, too, with ``labels`` added."""
        self._registered(_Also(figures, labels))

    def _registered(self, collector: Collector) -> Collector:
        self.registry.register(collector)
        return collector


class _Facts(Collector):
    def __init__(self, name: str, what: str, read: Callable[[], Mapping[str, str]]) -> None:
        self._name = name
        self._what = what
        self._read = read

    def collect(self) -> Iterator[Metric]:
        facts = self._read()
        family = GaugeMetricFamily(self._name, self._what, labels=tuple(facts))
        family.add_metric(tuple(facts.values()), 1)
        yield family


@dataclass(frozen=True, slots=True)
class Renamed:
    """A figure's other name, without ``_total``. ``label`` is its label's other name, ``values`` what the label's values are
    called there; those that are not in it are left out, those that become one are added up."""

    source: Collector
    name: str
    label: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)


class _Also(Collector):
    def __init__(self, figures: Sequence[Renamed], labels: Mapping[str, str]) -> None:
        self._figures = figures
        self._labels = dict(labels)

    def collect(self) -> Iterator[Metric]:
        for figure in self._figures:
            for family in figure.source.collect():
                yield self._renamed(family, figure)

    def _renamed(self, family: Metric, figure: Renamed) -> Metric:
        told = Metric(figure.name, family.documentation, family.type)
        sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        for sample in family.samples:
            labels = _relabelled(sample.labels, figure)
            if labels is not None:
                name = figure.name + sample.name.removeprefix(family.name)
                sums[name, tuple((self._labels | labels).items())] += sample.value
        for (name, pairs), value in sums.items():
            told.add_sample(name, dict(pairs), value)
        return told


def _relabelled(labels: Mapping[str, str], figure: Renamed) -> dict[str, str] | None:
    if figure.label is None:
        return dict(labels)
    (value,) = labels.values()
    return {figure.label: figure.values[value]} if value in figure.values else None
