"""How a service writes its log: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from speculation.telemetry.choices import LogFormat

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
HEARD_IN_JSON = ("cloud_verifier", "device_agent", "outrider")
"""Loggers that are heard from INFO on where a program reads: there each session and each answer leaves its line."""
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as JSON: ``time`` (UTC), ``level``, ``logger``, ``message``, the fields given as ``extra``, ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def start_log(log_format: LogFormat, told: Iterable[str] = ()) -> None:
    """Warnings to standard error, and from INFO on what the loggers ``told`` say, in this format."""
    handler = logging.StreamHandler()
    is_json = log_format is LogFormat.JSON
    handler.setFormatter(JsonFormatter() if is_json else logging.Formatter(TEXT_FORMAT))
    logging.basicConfig(handlers=[handler])
    for name in (*told, *(HEARD_IN_JSON if is_json else ())):
        logging.getLogger(name).setLevel(logging.INFO)
