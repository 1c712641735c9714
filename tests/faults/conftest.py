"""Lets the fault runs say in pytest's summary what they came to, and keeps what they expect out of its log."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

_LINES: list[str] = []


@pytest.fixture(scope="session")
def summary() -> Callable[[str], None]:
    """A line for the summary at the end of the run."""
    return _LINES.append


@pytest.fixture(autouse=True)
def _lost_verifiers_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "device_agent")
    caplog.set_level(logging.CRITICAL, "cloud_verifier")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _LINES:
        terminalreporter.section("fault scenes")
    for line in _LINES:
        terminalreporter.write_line(line)
