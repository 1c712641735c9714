"""Slow tests first; and what tests say in pytest's summary: ``record_property("summary", "one line")``, in any process.

``--hypothesis-profile=fuzz`` draws thirty times as many examples where a test leaves their number open.
"""

from __future__ import annotations

import gc

import pytest
from hypothesis import settings

import speculation.engines  # noqa: F401  # before a test loads ONNX Runtime by itself, which would tell its maker

# A machine that is busy for a moment is no fault of what is tested.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
settings.register_profile("fuzz", max_examples=3000, deadline=None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begun last, a test of two minutes is all that runs in the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    """What was collected stays to the end: no later search for garbage looks through thousands of tests again."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    lines = [str(value) for report in reports for name, value in report.user_properties if name == "summary"]
    if lines:
        terminalreporter.section("what tests say")
    for line in lines:
        terminalreporter.write_line(line)
