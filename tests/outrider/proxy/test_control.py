"""The control over HTTP: toxiproxy's routes, fields and errors, and what they do to connections."""

import asyncio
from contextlib import asynccontextmanager

import httpx

from outrider.proxy.control import build_app
from tests.outrider.proxy.ends import LOOPBACK, connected, echo, listening, proxied


@asynccontextmanager
async def controlled(**settings):
    async with (
        proxied(control=LOOPBACK, **settings) as running,
        httpx.AsyncClient(base_url=f"http://{running.control}") as client,
    ):
        yield running, client


async def test_the_version_is_told():
    async with controlled() as (_, client):
        answer = await client.get("/version")
    assert list(answer.json()) == ["version"]


async def test_the_proxy_of_the_command_line_is_there():
    async with controlled() as (running, client):
        proxies = (await client.get("/proxies")).json()
        assert list(proxies) == ["outrider"]
        assert proxies["outrider"] == (await client.get("/proxies/outrider")).json()
        assert proxies["outrider"]["listen"] == str(running.proxy.listen)
        assert proxies["outrider"]["enabled"] is True
        assert proxies["outrider"]["toxics"] == []


async def test_a_toxic_comes_changes_and_goes():
    async with controlled() as (running, client):
        body = {"type": "latency", "attributes": {"latency": 50, "jitter": 5}}
        added = await client.post("/proxies/outrider/toxics", json=body)
        expected = {"name": "latency_downstream", "type": "latency", "stream": "downstream", "toxicity": 1.0}
        assert added.status_code == 200
        assert added.json() == expected | {"attributes": {"latency": 50, "jitter": 5}}
        path = "/proxies/outrider/toxics/latency_downstream"
        changed = await client.post(path, json={"attributes": {"latency": 10}})
        assert changed.json()["attributes"] == {"latency": 10, "jitter": 5}
        assert (await client.patch(path, json={"toxicity": 0.5})).json()["toxicity"] == 0.5
        assert (await client.get(path)).json() == (await client.get("/proxies/outrider/toxics")).json()[0]
        assert len(running.proxy.toxics) == 1
        assert (await client.delete(path)).status_code == 204
        assert (await client.get("/proxies/outrider/toxics")).json() == []


async def test_a_toxic_acts_on_a_connection_that_is_there():
    async with controlled() as (running, client), connected(running) as (reader, writer):
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        await client.post("/proxies/outrider/toxics", json={"type": "limit_data", "attributes": {"bytes": 3}})
        writer.write(b"abcdef")
        assert await reader.read() == b"abc"


async def test_a_disabled_proxy_is_down_and_a_reset_brings_it_up_without_toxics():
    async with controlled() as (running, client):
        await client.post("/proxies/outrider/toxics", json={"type": "timeout"})
        down = await client.post("/proxies/outrider", json={"enabled": False})
        assert down.json()["enabled"] is False
        assert (await client.post("/reset")).status_code == 204
        assert running.proxy.is_enabled
        async with connected(running) as (reader, writer):
            writer.write(b"x")
            assert await reader.read(1) == b"x"


async def test_a_proxy_is_made_moved_and_removed():
    async with controlled() as (running, client), listening(echo) as other:
        open_one = await client.post("/proxies", json={"name": "open", "listen": None, "upstream": "127.0.0.1:1"})
        assert open_one.json()["listen"].startswith("127.0.0.1:")
        await client.delete("/proxies/open")
        body = {"name": "second", "listen": "127.0.0.1:0", "upstream": str(running.proxy.listen), "network": "wifi"}
        made = await client.post("/proxies", json=body)
        assert made.status_code == 201
        assert made.json()["network"] == "wifi"
        moved = await client.post("/proxies/second", json={"upstream": str(other)})
        assert (moved.json()["upstream"], moved.json()["listen"]) == (str(other), made.json()["listen"])
        assert (await client.delete("/proxies/second")).status_code == 204
        assert list((await client.get("/proxies")).json()) == ["outrider"]


async def test_a_proxy_that_is_removed_while_a_body_comes_is_changed_no_more():
    """It would listen again, and no route would find it to end it."""
    async with controlled() as (running, client), httpx.AsyncClient(base_url=client.base_url) as other:
        proxy, statuses = running.proxy, []
        await client.post("/proxies/outrider/toxics", json={"name": "slow", "type": "latency"})

        async def slowly(body):
            yield body[:5]
            await other.delete("/proxies/outrider")
            yield body[5:]

        for path, body in (
            ("", b'{"enabled": true}'),
            ("/toxics", b'{"type": "latency"}'),
            ("/toxics/slow", b'{"toxicity": 0.5}'),
        ):
            running.all.by_name["outrider"] = proxy
            statuses.append((await client.post(f"/proxies/outrider{path}", content=slowly(body))).status_code)
            assert not proxy.is_enabled
        assert statuses == [404, 404, 404]
        assert [toxic.toxicity for toxic in proxy.toxics] == [1.0]


async def test_what_is_told_of_a_proxy_may_be_sent_back_with_a_change():
    async with controlled() as (_, client):
        told = (await client.get("/proxies/outrider")).json()
        down = await client.post("/proxies/outrider", json=told | {"enabled": False})
        assert (down.status_code, down.json()) == (200, told | {"enabled": False})
        empty = await client.post("/proxies/outrider", json=told | {"name": "", "network": None, "toxics": None})
        assert (empty.status_code, empty.json()) == (200, told)


async def test_a_list_of_proxies_is_made_once_and_made_anew_where_it_is_another():
    async with controlled() as (running, client):
        body = [{"name": "a", "upstream": "127.0.0.1:1"}, {"name": "b", "upstream": "127.0.0.1:2"}]
        first = await client.post("/populate", json=body)
        assert first.status_code == 201
        assert [proxy["name"] for proxy in first.json()["proxies"]] == ["a", "b"]
        kept = running.all.by_name["a"]
        body[1]["upstream"] = "127.0.0.1:3"
        again = (await client.post("/populate", json=body)).json()["proxies"]
        assert again[0] == first.json()["proxies"][0]
        assert again[1]["upstream"] == "127.0.0.1:3"
        assert running.all.by_name["a"] is kept
        assert (await client.post("/populate", json={"name": "a"})).status_code == 400


async def test_a_list_with_something_wrong_in_it_leaves_the_proxies_as_they_are():
    async with controlled() as (running, client):
        known = {"name": "outrider", "listen": "127.0.0.1:0", "upstream": "127.0.0.1:1"}
        wrong = [{"upstream": ""}, {"upstream": "nonsense"}, {"listen": "0.0.0.0:0"}, {"network": "abacus"}, {"seed": -1}]
        for change in wrong:
            answer = await client.post("/populate", json=[NOWHERE, known | change])
            assert answer.status_code == 400
            assert list(running.all.by_name) == ["outrider"], change
        async with connected(running) as (reader, writer):
            writer.write(b"x")
            assert await reader.read(1) == b"x"


NOWHERE = {"name": "n", "upstream": "127.0.0.1:1"}


REFUSALS = [
    ("GET", "/proxies/none", None, 404, "proxy not found"),
    ("GET", "/proxies/outrider/toxics/none", None, 404, "toxic not found"),
    ("DELETE", "/proxies/outrider/toxics/none", None, 404, "toxic not found"),
    ("POST", "/proxies", {"name": "outrider", "upstream": "a:1"}, 409, "proxy already exists"),
    ("POST", "/proxies", {"name": "n"}, 400, "missing required field: upstream"),
    ("POST", "/proxies", {"upstream": "a:1"}, 400, "missing required field: name"),
    ("POST", "/proxies", NOWHERE | {"listen": "0.0.0.0:0"}, 400, "set insecure"),
    ("POST", "/proxies", NOWHERE | {"listen": 80}, 400, "listen is a string"),
    ("POST", "/proxies", NOWHERE | {"listen": "nonsense"}, 400, "listen must be host:port"),
    ("POST", "/proxies", NOWHERE | {"network": "abacus"}, 400, "unknown network 'abacus'"),
    ("POST", "/proxies", NOWHERE | {"seed": -1}, 400, "seed is a whole number"),
    ("POST", "/proxies", NOWHERE | {"colour": 1}, 400, "unknown field 'colour'"),
    ("POST", "/proxies/outrider", {"enabled": "no"}, 400, "enabled is true or false"),
    ("POST", "/proxies/outrider", {"listen": "0.0.0.0:0"}, 400, "set insecure"),
    ("POST", "/proxies/outrider", {"network": "lte"}, 400, "network stays 'none'"),
    ("POST", "/proxies/outrider", {"seed": 7}, 400, "seed stays 0"),
    ("POST", "/proxies/outrider", {"name": "other"}, 400, "name stays 'outrider'"),
    ("POST", "/proxies/outrider/toxics", {"type": "fire"}, 400, "invalid toxic type 'fire'"),
    ("POST", "/proxies/outrider/toxics", {"type": "latency", "stream": "up"}, 400, "can be either upstream or downstream"),
    ("POST", "/proxies/outrider/toxics", {"type": "latency", "attributes": {"rate": 1}}, 400, "unknown field 'rate'"),
    ("POST", "/proxies/outrider/toxics", {"type": "latency", "attributes": {"latency": -1}}, 400, "a whole number from 0"),
    ("POST", "/proxies/outrider/toxics", {"type": "latency", "attributes": 7}, 400, "attributes is an object"),
    ("POST", "/proxies/outrider/toxics", {"type": "latency", "toxicity": 2}, 400, "a chance from 0 to 1"),
    (
        "POST",
        "/proxies/outrider/toxics",
        {"type": "slicer", "attributes": {"average_size": 0}},
        400,
        "less than average_size",
    ),
    ("POST", "/proxies/outrider/toxics", [1], 400, "bad request body"),
    ("GET", "/nowhere", None, 404, "Not Found"),
    ("PUT", "/proxies", {}, 405, "Method Not Allowed"),
]


async def test_a_refusal_is_an_error_object_with_its_status():
    async with controlled() as (running, client):
        for method, path, body, status, said in REFUSALS:
            answer = await client.request(method, path, json=body)
            assert (answer.status_code, answer.json()["status"]) == (status, status), (path, body)
            assert said in answer.json()["error"], (path, body)
            assert running.proxy.is_enabled
            assert running.proxy.toxics == []


async def test_a_name_that_no_path_can_hold_is_refused():
    async with controlled() as (_, client):
        for name in (r"\ud800", "a/b"):
            for path, body in (("/proxies", '"upstream": "127.0.0.1:1"'), ("/proxies/outrider/toxics", '"type": "latency"')):
                answer = await client.post(path, content=f'{{"name": "{name}", {body}}}')
                assert (answer.status_code, "name" in answer.json()["error"]) == (400, True), (path, name)
        assert list((await client.get("/proxies")).json()) == ["outrider"]
        assert (await client.get("/proxies/outrider/toxics")).json() == []


async def test_a_toxicity_beyond_all_floats_is_refused():
    async with controlled() as (_, client):
        body = '{"type": "latency", "toxicity": 1' + "0" * 400 + "}"
        answer = await client.post("/proxies/outrider/toxics", content=body)
        assert (answer.status_code, answer.json()["error"]) == (400, "toxicity is a chance from 0 to 1, not inf")


async def test_a_toxic_that_is_there_is_not_added_twice():
    async with controlled() as (_, client):
        for status in (200, 409):
            answer = await client.post("/proxies/outrider/toxics", json={"type": "slow_close"})
            assert answer.status_code == status


async def test_bodies_that_are_no_json_or_too_long_are_refused():
    async with controlled() as (_, client):
        assert (await client.post("/proxies", content=b"{")).status_code == 400
        assert (await client.post("/proxies", content=b"\xff")).status_code == 400
        assert (await client.post("/proxies", content=b"[" * 3000)).status_code == 400
        assert (await client.post("/proxies", content=bytes(65 * 1024))).status_code == 413


async def test_pages_of_elsewhere_may_not_control_it():
    async with controlled() as (_, client):
        for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}):
            answer = await client.post("/reset", headers=headers)
            assert (answer.status_code, answer.json()["status"]) == (403, 403)


async def test_a_control_that_others_reach_heeds_the_hosts_that_are_named():
    async with proxied() as running:
        transport = httpx.ASGITransport(build_app(running.all, "0.0.0.0", ("radio",)))
        async with httpx.AsyncClient(transport=transport, base_url="http://radio:8474") as client:
            for host, status in (("radio:8474", 200), ("127.0.0.1", 200), ("evil.example", 403)):
                assert (await client.get("/version", headers={"host": host})).status_code == status


async def test_proxies_that_are_removed_while_all_are_reset_stay_removed():
    async with controlled() as (running, client):
        for number in range(20):
            await client.post("/proxies", json={"name": f"p{number}", "upstream": "127.0.0.1:9", "enabled": False})
        there = dict(running.all.by_name)
        removals = [client.delete(f"/proxies/p{number}") for number in range(10)]
        answers = await asyncio.gather(client.post("/reset"), *removals)
        assert [answer.status_code for answer in answers] == [204] * 11
        assert list(running.all.by_name) == ["outrider", *(f"p{number}" for number in range(10, 20))]
        assert [name for name, proxy in there.items() if proxy.is_enabled] == list(running.all.by_name)


async def test_an_upstream_that_no_resolver_can_be_asked_for_is_refused_and_the_proxy_goes_on():
    async with controlled() as (running, client):
        for host in ("a..b", "a" * 64, "a\0b"):
            refused = await client.post("/proxies", json={"name": "other", "upstream": f"{host}:80"})
            assert (refused.status_code, "upstream must be host:port" in refused.json()["error"]) == (400, True)
        async with connected(running) as (reader, writer):
            writer.write(b"x")
            assert await reader.read(1) == b"x"
