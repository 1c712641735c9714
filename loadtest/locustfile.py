"""Users who each stream one answer after another from a running agent; see README.md beside this file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from locust import HttpUser, constant, events, task

# Locust loads this file by its path, so the folder is no package.
sys.path.insert(0, str(Path(__file__).resolve().parent))
from streaming import StreamTimes

PROMPTS = (
    "This module provides classes for",
    "The following functions are defined:\n\n",
    "Changed in version 3.8:",
    "def main():\n    parser = argparse.ArgumentParser(",
    "Return a new iterator over",
    "Note that this function raises",
)
MAX_TOKENS = 64


@events.init_command_line_parser.add_listener
def _add_flags(parser: Any) -> None:
    parser.add_argument("--key-file", default="", metavar="FILE", help="A file with the key that the agent wants.")


class Reader(HttpUser):
    """Asks, reads to the end, asks again. Seeds differ per request, so no two answers need be the same."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.asked = 0
        file = self.environment.parsed_options.key_file
        if file:
            self.client.headers["authorization"] = f"Bearer {Path(file).read_text('utf-8').strip()}"

    @task
    def read_an_answer(self) -> None:
        self.asked += 1
        prompt = PROMPTS[self.asked % len(PROMPTS)]
        body = {"prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0.8, "seed": self.asked}
        times = StreamTimes(time.monotonic())
        with self.client.post("/v1/stream", json=body, stream=True, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}: {response.text[:200]}")
                return
            for line in response.iter_lines(chunk_size=1, decode_unicode=True):
                times.feed(line, time.monotonic())
            if times.failure or not times.is_done:
                response.failure(times.failure or "the stream ended before the answer was done")
                return
        self._report(times, time.monotonic() - times.began_s)

    def _report(self, times: StreamTimes, total_s: float) -> None:
        self._fire("first visible token", times.first_visible_s)
        self._fire("first final token", times.first_final_s)
        for gap_s in times.gaps_s:
            self._fire("inter-token", gap_s)
        self._fire("whole answer", total_s, times.num_tokens)

    def _fire(self, name: str, seconds: float | None, length: int = 0) -> None:
        if seconds is None:
            return
        times: dict[str, Any] = {"response_time": seconds * 1000, "response_length": length}
        self.environment.events.request.fire(request_type="stream", name=name, exception=None, context={}, **times)
