"""schemathesis over the agent's OpenAPI document: ``pip install -e .[fuzz]``, then ``python -m pytest tests/fuzz -m fuzz``.

Every route of the document, with what it allows and with what it forbids, is asked of an agent that is well, of one with keys,
and of agents whose verifier is away, lost, full, older or of another pair; the events of a stream are followed to their end.
``--hypothesis-profile=fuzz`` asks thirty times as much.

Not in the suite: the tool is a plugin that every run of pytest would load. ``tests/device_agent/test_hostile_requests.py`` is.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent import schema
from device_agent.api import build_app
from device_agent.schema import graphs
from device_agent.server import serve
from speculation.errors import CapacityError, FingerprintError, LinkError, MalformedMessageError, PairError
from speculation.links.memory import MemoryConnector
from speculation.tenants import bearer
from tests.device_agent.doubles import VOCABULARY, WatchedConnector, agent_of, config, feed, verifier
from tests.device_agent.openai.scene import talking
from tests.device_agent.replay import Replay
from tests.device_agent.test_logprobs import Older
from tests.support.keys import ALICE, key_file

schemathesis = pytest.importorskip("schemathesis", reason="the extra outrider[fuzz]")
requests = pytest.importorskip("requests", reason="schemathesis brings it")
pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(3600)]

OF_THE_DOCUMENT = [schemathesis.checks.status_code_conformance, schemathesis.checks.content_type_conformance]
OF_JSON = [schemathesis.checks.response_schema_conformance]
"""Not whether all that the document allows is served: it cannot say how long a prompt a model bears."""
MODES = (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE)
PATHS = {
    ("get", "/health"),
    ("get", "/metrics"),
    ("post", "/v1/stream"),
    ("get", "/v1/stream/{session_id}"),
    ("delete", "/v1/stream/{session_id}"),
    ("get", "/v1/stream/{session_id}/timeline"),
    ("post", "/v1/stream/{session_id}/pause"),
    ("post", "/v1/stream/{session_id}/resume"),
    ("post", "/v1/tasks"),
    ("get", "/v1/tasks/{graph_id}"),
    ("delete", "/v1/tasks/{graph_id}"),
    ("post", "/v1/tasks/{graph_id}/pause"),
    ("post", "/v1/tasks/{graph_id}/resume"),
    ("get", "/v1/tasks/{graph_id}/timeline.svg"),
    ("get", "/v1/emulation"),
    ("patch", "/v1/emulation"),
    ("get", "/v1/prompts"),
    ("post", "/v1/completions"),
    ("post", "/v1/chat/completions"),
    ("post", "/tokenize"),
    ("post", "/detokenize"),
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("get", "/version"),
}
SHORT = {"prompt": "the prompt", "max_tokens": 3}
GRAPH = {"tasks": {"first": SHORT, "second": {"prompt": "{{ first }}", "max_tokens": 2}}}
SERVED = {"model": "full", "tokens": [1, 2], **SHORT, **GRAPH}
"""With these in their places the rest of a body is what a request is served or refused for."""
TROUBLE = {
    "away": LinkError("nobody answers"),
    "full": CapacityError("there is no room", 0.5),
    "of another pair": PairError("this pair is not served here", 1, (2,)),
    "of other arithmetic": FingerprintError("its arithmetic differs"),
    "broken": MalformedMessageError("a verdict means nothing"),
}


def ids_of(text):
    return [ord(letter) % VOCABULARY for letter in text]


READS_ALL = talking(encode=ids_of, chat=lambda messages: ids_of(" ".join(message["content"] for message in messages)))


def connector_of(made, kind):
    """The way to a verifier of some kind."""
    match kind:
        case "lost":
            return WatchedConnector(MemoryConnector(made), limit=3)
        case "older":
            return MemoryConnector(Older(made))
        case "well" | "stopping":
            return MemoryConnector(made)
    return WatchedConnector(failure=TROUBLE[kind])


class Served(threading.Thread):
    """An agent with a verifier behind it, on a loop of its own."""

    def __init__(self, kind="well", **changes):
        super().__init__()
        self._kind, self._changes, self._ready, self._loop = kind, changes, threading.Event(), None
        self.url = self.document = ""

    def run(self):
        asyncio.run(self._serve())

    async def _serve(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with verifier() as made:
            agent = agent_of(connector_of(made, self._kind), pair=READS_ALL, **self._changes)
            async with serve(config(**self._changes), agent=agent) as running:
                self.url, self.document = running.url, build_app(agent).openapi()
                if self._kind == "stopping":
                    await agent.drain(0)
                self._ready.set()
                await self._over.wait()

    def __enter__(self):
        self.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self.join()


def operations(served):
    """Those of the document, every one."""
    document = schemathesis.openapi.from_dict(served.document)
    found = [operation.ok() for operation in document.get_all_operations()]
    assert {(operation.method, operation.path) for operation in found} == PATHS
    return sorted(found, key=lambda operation: operation.method == "patch")  # what makes the agent slow comes last


def known(name, served, headers):
    """What is there: the model, and an answer that can be read on, new each time, for few are kept."""
    if name == "model":
        return "full"
    path, body = {"session_id": ("/v1/stream", SHORT | {"timeline": True}), "graph_id": ("/v1/tasks", GRAPH)}[name]
    text = requests.post(served.url + path, json=body, headers=headers, timeout=60).text
    return text.partition(f'"{name}":"')[2].partition('"')[0] or "gone"


def ask_all(served, share, wanted, headers=None):
    """Ask each operation as often as the profile says, over ``share``; the statuses that came, by operation."""
    headers = headers or {}

    def ask(case, is_known):
        if is_known and isinstance(case.body, dict):
            case.body |= {key: value for key, value in SERVED.items() if key in case.body}
        if is_known:
            case.path_parameters = {name: known(name, served, headers) for name in case.path_parameters or {}}
        # By hand: the tool itself reads no stream to its end.
        response = requests.request(**case.as_transport_kwargs(base_url=served.url, headers=headers), timeout=60)
        kind = response.headers.get("content-type", "")
        case.validate_response(response, checks=[*OF_THE_DOCUMENT, *(OF_JSON if kind == "application/json" else ()), *wanted])
        assert response.status_code != 500
        if kind.startswith("text/event-stream"):
            follow(case.operation.path, response.text)
        return response.status_code

    num_examples = max(20, settings.default.max_examples // share)
    came = {}
    for one in operations(served):
        came[one.method, one.path] = counts = statuses(one, ask, num_examples)
        print(f"{one.method} {one.path}: {dict(sorted(counts.items()))}", flush=True)
    return came


def follow(path, text):
    """A stream holds what its page says, and ends as it says."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    if path.endswith("/timeline"):
        for one in data:
            jsonschema.validate(json.loads(one), schema.timeline_schema())
        return
    if path.startswith("/v1/tasks"):
        for one in data:
            jsonschema.validate(json.loads(one), graphs.events_schema())
        assert json.loads(data[-1])["event"] == "done"
        return
    if path.startswith("/v1/stream"):
        events = [json.loads(one) for one in data]
        replay = Replay()
        for event in events if events[0]["seq"] == 0 else ():
            feed(replay, event)
        assert events[-1]["event"] in ("done", "error")
        return
    *chunks, last = data
    if last != "[DONE]":
        assert set(json.loads(last)) == {"error"}
    reasons = [choice["finish_reason"] for chunk in map(json.loads, chunks) for choice in chunk["choices"]]
    assert any(reasons) == (last == "[DONE]")


def statuses(operation, ask, num_examples):
    """What ``ask`` says of cases of one operation, counted."""
    counts = Counter()
    cases = st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes_of(operation)])

    @settings(max_examples=num_examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(cases, st.booleans())
    def ask_of(case, is_known):
        counts[ask(case, is_known)] += 1

    ask_of()
    return counts


def modes_of(operation):
    """Nothing is forbidden where nothing can be said."""
    has_input = operation.body or operation.query or operation.headers or operation.path_parameters
    return MODES if has_input else MODES[:1]


@pytest.mark.parametrize("has_key", [False, True])
def test_an_agent_that_is_well_fails_at_nothing_and_says_nothing_that_its_document_does_not_tell(has_key, tmp_path):
    headers = {"authorization": bearer(ALICE)} if has_key else {}
    with Served(**{"keys": key_file(tmp_path)} if has_key else {}) as served:
        came = ask_all(served, 1, [schemathesis.checks.not_a_server_error], headers)
    # Each route was served and, where it takes something that can be wrong, refused.
    assert [path for path, counts in came.items() if not any(status < 300 for status in counts)] == []
    with_body = [path for path in came if path[0] == "post" and "{" not in path[1]]
    assert [path for path in with_body if not came[path][400]] == []


def test_without_a_key_every_answer_is_a_refusal_that_the_document_tells(tmp_path):
    with Served(keys=key_file(tmp_path)) as served:
        came = ask_all(served, 5, [])
    assert [path for path, counts in came.items() if set(counts) != {200 if path[1] == "/health" else 401}] == []


@pytest.mark.parametrize("kind", ["stopping", "lost", "older", *TROUBLE])
def test_trouble_is_told_by_a_status_that_the_document_tells(kind):
    """Of the agent, or of its verifier. Any model will do, so that more requests come as far as that."""
    with Served(kind, served_names=("*",)) as served:
        ask_all(served, 2, [])
