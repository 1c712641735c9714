"""Logs for programs: one JSON object a line, with the fields that were given, whatever a message holds."""

import json
import logging
import sys

import pytest

from speculation.telemetry.choices import LogFormat
from speculation.telemetry.logs import HEARD_IN_JSON, JsonFormatter, start_log

TOLD = "tests.told"


def line(message, *arguments, **more):
    record = logging.LogRecord("a.logger", logging.WARNING, "file.py", 3, message, arguments, more.pop("exc_info", None))
    vars(record).update(more)
    return JsonFormatter().format(record)


def test_a_line_holds_time_level_logger_message_and_the_fields():
    told = json.loads(line("session %s ended", "x", session_id="x", tenant="alice", status="OK", duration_s=0.5))
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "WARNING",
        "logger": "a.logger",
        "message": "session x ended",
        "session_id": "x",
        "tenant": "alice",
        "status": "OK",
        "duration_s": 0.5,
    }


def test_an_exception_and_a_line_break_stay_on_the_line():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        text = line("it\nfailed", exc_info=sys.exc_info())
    assert "\n" not in text
    assert json.loads(text)["exception"].endswith("ValueError: two\nlines")


def test_a_field_that_is_no_json_is_told_as_text():
    assert json.loads(line("x", path=ValueError("odd")))["path"] == "odd"


@pytest.fixture
def levels_as_before():
    names = (TOLD, *HEARD_IN_JSON)
    levels = [logging.getLogger(name).level for name in names]
    yield
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize("log_format", LogFormat)
def test_where_a_program_reads_each_session_leaves_its_line_and_a_person_sees_warnings(
    log_format, levels_as_before, monkeypatch, capsys
):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a process that has set up none
    start_log(log_format, [TOLD])
    logging.getLogger(TOLD).info("how it is run")
    logging.getLogger("cloud_verifier.x").info("a session ended")
    logging.getLogger("device_agent.x").warning("it goes on alone")
    lines = capsys.readouterr().err.splitlines()
    if log_format is LogFormat.JSON:
        assert [json.loads(one)["message"] for one in lines] == ["how it is run", "a session ended", "it goes on alone"]
    else:
        assert [one.split(": ", 1)[1] for one in lines] == ["how it is run", "it goes on alone"]
