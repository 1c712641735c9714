"""What tests say in pytest's summary: ``record_property("summary", "one line")``, in whichever process they ran."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    lines = [str(value) for report in reports for name, value in report.user_properties if name == "summary"]
    if lines:
        terminalreporter.section("what tests say")
    for line in lines:
        terminalreporter.write_line(line)
