"""Keeps what the fault scenes expect out of pytest's log."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _lost_verifiers_are_no_news(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "device_agent")
    caplog.set_level(logging.CRITICAL, "cloud_verifier")
