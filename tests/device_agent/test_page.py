"""The page's files over HTTP: these and no others, as what they are, under a strict policy; and its prompts."""

from __future__ import annotations

import re
from importlib import resources

import httpx
import pytest

from device_agent import page
from device_agent.api import build_app
from speculation.tenants import bearer
from tests.device_agent.doubles import agent_of, facts
from tests.support.keys import ALICE, key_file

EXAMPLES = ({"source": "somewhere#1", "title": "Lock objects", "text": "A lock"},)


@pytest.fixture
async def client():
    async with agent_of(None, pair=facts(examples=EXAMPLES)) as agent:
        transport = httpx.ASGITransport(app=build_app(agent))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
            yield made


def test_every_file_in_the_folder_is_served_and_every_link_of_one_leads_to_another():
    folder = resources.files("device_agent") / "static"
    assert sorted(page.FILES) == sorted(file.name for file in folder.iterdir())
    for name in page.FILES:
        text = (folder / name).read_text("utf-8")
        linked = re.findall(r'(?:from "\./|(?:src|href)="page/)([^"]+)"', text)
        assert [other for other in linked if other not in page.FILES] == [], name


async def test_each_file_comes_as_what_it_is_under_a_policy_that_allows_the_agents_own_alone(client):
    kinds = {"html": "text/html", "css": "text/css", "svg": "image/svg+xml", "mjs": "text/javascript"}
    for path, name in page.PATHS.items():
        response = await client.get(path)
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] == kinds[name.partition(".")[2]]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-cache"
        policy = dict(rule.split(" ", 1) for rule in response.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert {policy[kind] for kind in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert (policy["base-uri"], policy["form-action"], policy["frame-ancestors"]) == ("'none'", "'none'", "'none'")


def test_nothing_of_a_third_party_is_asked_for():
    for name in page.FILES:
        text = (resources.files("device_agent") / "static" / name).read_text("utf-8")
        asked = re.findall(r"""(?:src|href|url|import|fetch)\s*[=(]?\s*["'(]\s*((?:https?:)?//[^"')]+)""", text)
        assert asked == [], name


async def test_a_file_that_did_not_change_is_not_sent_again_and_a_head_has_no_body(client):
    first = await client.get("/page/page.mjs")
    again = await client.get("/page/page.mjs", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = await client.head("/")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 1000


@pytest.mark.parametrize(
    "path", ["/page", "/page/", "/page/../api.py", "/page/%2e%2e/api.py", "/index.html", "/page/index.html"]
)
async def test_nothing_beside_the_files_is_served(client, path):
    assert (await client.get(path)).status_code == 404
    assert (await client.post("/")).status_code == 405


async def test_the_prompts_are_those_that_come_with_the_pair(client):
    assert (await client.get("/v1/prompts")).json() == {"prompts": list(EXAMPLES)}


async def test_with_keys_the_files_are_open_and_the_prompts_are_not(tmp_path):
    async with agent_of(None, pair=facts(examples=EXAMPLES), keys=key_file(tmp_path)) as agent:
        transport = httpx.ASGITransport(app=build_app(agent))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/")).status_code == 200
            assert (await client.get("/v1/prompts")).status_code == 401
            allowed = await client.get("/v1/prompts", headers={"authorization": bearer(ALICE)})
            assert allowed.json()["prompts"] == list(EXAMPLES)
