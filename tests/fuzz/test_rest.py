"""schemathesis over the agent's OpenAPI document: ``pip install -e .[fuzz]``, then ``python -m pytest tests/fuzz -m fuzz``.

Not in the suite: the tool is a plugin that every run of pytest would load. ``tests/device_agent/test_hostile_requests.py`` is.
"""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.api import build_app
from device_agent.server import serve
from speculation.links.memory import MemoryConnector
from speculation.tenants import bearer
from tests.device_agent.doubles import VOCABULARY, agent_of, config, facts, verifier
from tests.support.keys import ALICE, key_file

schemathesis = pytest.importorskip("schemathesis", reason="the extra outrider[fuzz]")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")
pytestmark = pytest.mark.fuzz

CHECKS = [schemathesis.checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance]
"""Not whether all that the document allows is served: it cannot say how long a prompt a model bears."""

READS_ALL = facts(encode=lambda text: [ord(letter) % VOCABULARY for letter in text])


class Served(threading.Thread):
    """An agent with a verifier behind it, on a loop of its own."""

    def __init__(self, **changes):
        super().__init__()
        self._changes, self._ready, self._loop = changes, threading.Event(), None
        self.url = self.document = ""

    def run(self):
        asyncio.run(self._serve())

    async def _serve(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with verifier() as made:
            agent = agent_of(MemoryConnector(made), pair=READS_ALL, **self._changes)
            async with serve(config(**self._changes), agent=agent) as running:
                self.url, self.document = running.url, build_app(agent).openapi()
                self._ready.set()
                await self._over.wait()

    def __enter__(self):
        self.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self.join()


@pytest.mark.parametrize("has_key", [False, True])
def test_no_answer_is_a_failure_or_one_that_the_document_does_not_tell(has_key, tmp_path):
    headers = {"authorization": bearer(ALICE)} if has_key else {}
    with Served(**{"keys": key_file(tmp_path)} if has_key else {}) as served:
        schema = schemathesis.openapi.from_dict(served.document)
        cases = st.one_of([operation.ok().as_strategy() for operation in schema.get_all_operations()])

        @settings(max_examples=settings.default.max_examples, deadline=None, suppress_health_check=list(HealthCheck))
        @given(cases)
        def ask(case):
            response = case.call(base_url=served.url, headers=headers)
            case.validate_response(response, checks=CHECKS)

        ask()
