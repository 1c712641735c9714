"""The page that app developers read says what is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from device_agent import schema
from device_agent.request import KNOWN_KEYS
from tests.device_agent.doubles import feed
from tests.device_agent.replay import Replay

PAGE = Path(__file__).parents[2] / "docs" / "stream.md"


@pytest.fixture
def page():
    return PAGE.read_text("utf-8")


def test_the_example_session_keeps_every_rule(page):
    session = re.search(r"```text\n(id: 0.*?)```", page, re.DOTALL)[1]
    client = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    namespace, shown, replay = {}, [], Replay()
    exec(client, namespace)
    for block in session.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        event = json.loads(fields["data"])
        assert (fields["id"], fields["event"]) == (str(event["seq"]), event["event"])
        feed(replay, event)
        namespace["follow"](event, shown)
    assert "".join(shown) == replay.last["text"]


def test_every_key_and_every_event_is_on_the_page(page):
    for key in KNOWN_KEYS:
        assert f"`{key}`" in page
    for definition in schema.stream_schema()["$defs"].values():
        for key in definition.get("properties", {}):
            assert key in ("event", "tokens", "code_points") or f"`{key}`" in page or key in page


@pytest.mark.parametrize("event", ["revoke", "state", "done"])
def test_every_reason_is_on_the_page(page, event):
    properties = schema.stream_schema()["$defs"][event]["properties"]
    for reason in properties.get("reason", properties.get("finish_reason"))["enum"]:
        assert f"`{reason}`" in page
