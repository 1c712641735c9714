"""The page at ``/docs``, and the refusals in the document behind it: what they say is what the agent does."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from contextlib import asynccontextmanager

import httpx
import jsonschema
import pytest
from httpx_sse import aconnect_sse

from device_agent.api import build_app
from device_agent.events import code_of
from speculation.errors import STATUS
from tests.device_agent.doubles import DraftEngine, agent_of
from tests.device_agent.openai.scene import served, talking
from tests.support.keys import ALICE, key_file

LOCAL = "http://localhost"
WITHOUT_A_BODY = ("/pause", "/resume")
"""Ends of paths whose POST says everything."""


@asynccontextmanager
async def calling(headers=None, **settings):
    async with agent_of(None, pair=talking(full="pydoc-full"), **settings) as agent:
        transport = httpx.ASGITransport(build_app(agent))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, headers=headers) as client:
            yield client


async def test_the_page_shows_every_route_with_a_command_and_every_answer():
    async with calling() as client:
        page, document = (await client.get("/docs")).text, (await client.get("/openapi.json")).json()
    text = html.unescape(page)
    assert set(document["paths"]) >= {"/v1/stream", "/v1/stream/{session_id}", "/v1/completions", "/health", "/metrics"}
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            section = re.search(rf'<section id="{told["operationId"]}".*?</section>', text, re.DOTALL)[0]
            assert path in section
            assert told["summary"] in section
            assert re.search(rf"curl -N (-X {method.upper()} )?'?{LOCAL}/", section)
            assert (" -d '" in section) == (method in ("post", "patch") and not path.endswith(WITHOUT_A_BODY))
            assert all(f">{status}</b> {response['description']}" in section for status, response in told["responses"].items())


async def test_the_page_runs_no_script_and_takes_nothing_from_elsewhere():
    async with calling() as client:
        answer = await client.get("/docs")
    assert re.findall(r"<script|\son\w+=|javascript:|@import|url\(|<link|<img|<iframe", answer.text) == []
    assert {url for url in re.findall(r"https?://[\w.:]+", answer.text) if not url.startswith(LOCAL)} <= {"http://127.0.0.1"}
    policy = answer.headers["content-security-policy"]
    style = re.search(r"<style>(.*?)</style>", answer.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "unsafe" not in policy
    assert " style=" not in answer.text


async def test_what_looks_like_markup_stays_text():
    async with calling() as client:
        app = client._transport.app
        app.add_api_route("/added", lambda: None, summary="<b id=x>", description="``<i>`` and <u>")
        page = (await client.get("/docs", headers={"host": 'localhost:1"><b'})).text
    assert "&lt;b id=x&gt;" in page
    assert [tag for tag in ("<b id=x>", "<i>", "<u>", "<b<") if tag in page] == []


async def test_with_keys_the_page_wants_one_and_shows_where_a_key_goes_and_not_which(tmp_path):
    keys = key_file(tmp_path)
    async with calling(keys=keys) as client:
        assert (await client.get("/docs")).status_code == 401
    async with calling({"authorization": f"Bearer {ALICE}"}, keys=keys) as client:
        page = html.unescape((await client.get("/docs")).text)
    assert '-H "Authorization: Bearer $KEY"' in page
    assert ALICE not in page


@pytest.fixture
async def document():
    async with calling() as client:
        return (await client.get("/openapi.json")).json()


def operations(document):
    return [(path, method, told) for path, methods in document["paths"].items() for method, told in methods.items()]


def contents(document):
    """Every body that may come back: (path, method, status, kind, content)."""
    for path, method, told in operations(document):
        for status, response in told["responses"].items():
            for kind, content in response.get("content", {}).items():
                yield path, method, status, kind, content


def test_every_request_and_every_answer_has_an_example_that_fits(document):
    assert [where for *where, content in contents(document) if "example" not in content] == []
    for *_, kind, content in contents(document):
        if kind == "application/json":
            jsonschema.validate(content["example"], content["schema"])
    for path, _, told in operations(document):
        assert [p["name"] for p in told.get("parameters", ()) if p["in"] == "path" and "example" not in p] == [], path
        if "requestBody" in told:
            asked = told["requestBody"]["content"]["application/json"]
            jsonschema.validate(asked["example"], asked["schema"])


def test_whoever_sends_a_body_may_be_told_that_the_agent_shuts_down(document):
    """As it stops it waits for none to come."""
    with_a_body = [(path, told["responses"]) for path, _, told in operations(document) if "requestBody" in told]
    assert len(with_a_body) >= 6
    assert [path for path, responses in with_a_body if "503" not in responses] == []


def test_an_example_keeps_its_nulls(document):
    health = document["paths"]["/health"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    assert health["phone"] is None


def test_an_example_of_a_refusal_is_an_error_of_that_status(document):
    codes = {
        status: {code_of(leaf) for leaf in STATUS if str(STATUS[leaf].http) == status}
        for _, _, status, _, _ in contents(document)
    }
    codes["403"], codes["413"] = {"forbidden_origin"}, {"body_too_large"}
    for path, _, status, _, content in contents(document):
        if status != "200":
            assert content["example"]["error"]["code"] in codes[status], (path, status)


async def refusals(tmp_path):
    """Refusals that the agent gives: (status, what the document is asked for, the error)."""
    async with calling() as client:
        asked = [
            ("/v1/stream", {"json": {"prompt": "a", "max_tokens": 0}}),
            ("/v1/completions", {"json": {"prompt": "a", "max_tokens": 0}}),
            ("/v1/stream", {"json": {"prompt": "a"}, "headers": {"host": "evil.example"}}),
            ("/v1/completions", {"json": {"prompt": "a", "model": "gpt-4"}}),
            ("/v1/stream", {"content": b"x" * 500_000}),
        ]
        for path, options in asked:
            yield path, "post", await client.post(path, **options)
        yield "/v1/stream/{session_id}", "get", await client.get("/v1/stream/c015de3a43feb957")
    async with calling(keys=key_file(tmp_path)) as client:
        yield "/metrics", "get", await client.get("/metrics")


async def test_refusals_are_word_for_word_those_of_the_document(document, tmp_path):
    seen = set()
    async for path, method, answer in refusals(tmp_path):
        told = document["paths"][path][method]["responses"][str(answer.status_code)]
        assert answer.json() == told["content"]["application/json"]["example"]
        seen.add(answer.status_code)
    assert seen == {400, 401, 403, 404, 413}


async def test_too_many_answers_are_refused_as_the_document_says(document):
    """Of a number of its own."""
    told = document["paths"]["/v1/stream"]["post"]["responses"]["429"]["content"]["application/json"]["example"]
    body = {"prompt": "a", "mode": "device", "max_tokens": 200}
    async with (
        served(None, DraftEngine(step_s=0.05), max_streams=1, resume_grace_s=0) as (url, _),
        httpx.AsyncClient(base_url=url) as client,
        aconnect_sse(client, "POST", "/v1/stream", json=body),
    ):
        refused = (await client.post("/v1/stream", json=body)).json()
    assert refused["error"] == told["error"] | {"message": told["error"]["message"].replace("4", "1", 1)}
