"""`outrider serve`: both services in one process, as a person starts and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import sys
from types import SimpleNamespace

import httpx

from cloud_verifier.patience import NEVER
from outrider import cli, serving
from outrider.local import BUNDLED, Emulation, local_services
from speculation.tenants import bearer
from tests.support.keys import ALICE, key_file

LIMIT_S = 100
LINES = {"accept": "application/x-ndjson"}
COMMAND = (sys.executable, "-m", "outrider", "serve", "--port", "0")
PARTS = ("phone", "network", "cloud", "patience")


@contextlib.asynccontextmanager
async def started():
    """The process once it has told its address, a client of that, and what was said."""
    process = await asyncio.create_subprocess_exec(*COMMAND, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(LIMIT_S):
            said = [""]
            while not (found := re.search(r"open (http://\S+)/ in a browser", said[-1])):
                said.append((await process.stderr.readline()).decode())
                assert said[-1], said
            async with httpx.AsyncClient(base_url=found[1], timeout=30) as client:
                yield process, client, said[1:]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def written(client) -> tuple[dict, dict, set[str]]:
    """The first and the last event of an answer, and the kinds of what its timeline tells."""
    body = {"prompt": "The module provides", "max_tokens": 12, "seed": 1, "timeline": True}
    answer = await client.post("/v1/stream", json=body, headers=LINES)
    first, *_, done = map(json.loads, answer.text.splitlines())
    timeline = await client.get(f"/v1/stream/{first['session_id']}/timeline", headers=LINES)
    return first, done, {json.loads(line)["kind"] for line in timeline.text.splitlines()}


async def test_both_services_answer_and_all_they_play_can_be_changed_and_ctrl_c_ends_them_in_order():
    async with started() as (process, client, said):
        played = [line.replace(":", "").split()[:2] for line in said[1:4]]
        assert played == [["phone", "dimensity-9300"], ["network", "5g-nsa-low"], ["cloud", "mi300x"]]
        assert (await client.get("/v1/emulation")).json()["can_change"] == dict.fromkeys(PARTS, True)
        texts = []
        # Where nothing is slow, a verifier without patience may overtake every draft.
        for change in ({"cloud": "b200"}, {"phone": None, "network": None, "cloud": None, "patience": NEVER}):
            changed = (await client.patch("/v1/emulation", json=change)).json()
            assert {key: changed[key] for key in change} == change
            first, done, kinds = await written(client)
            assert (first["phone"], first["network"]) == (changed["phone"], changed["network"])
            assert kinds >= {"draft", "up", "pass", "verdict", "link"}
            assert done["verified_count"] == 12
            texts.append(done["token_ids"])
        assert texts[0] == texts[1]
        process.send_signal(signal.SIGINT)
        assert (await process.stderr.read()).decode() == "ending ...\n"
        assert await process.wait() == 0


async def test_a_key_is_wanted_where_keys_are_given(tmp_path):
    async with (
        asyncio.timeout(LIMIT_S),
        local_services(Emulation(), BUNDLED, port=0, keys=key_file(tmp_path)) as running,
        httpx.AsyncClient(base_url=running.url, timeout=30) as client,
    ):
        assert (await client.get("/v1/emulation")).status_code == 401
        assert (await client.get("/v1/emulation", headers={"authorization": bearer(ALICE)})).status_code == 200


def test_an_address_that_others_reach_wants_keys_before_a_model_is_loaded(monkeypatch, capsys):
    def load(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("cloud_verifier.server.build_engine", load)
    assert cli.run(lambda: cli.app(["serve", "--host", "0.0.0.0"], standalone_mode=False)) == 2
    assert "keys" in capsys.readouterr().err


async def test_what_it_has_loaded_is_out_of_the_garbage_collectors_sight_before_anybody_is_told_the_port(monkeypatch):
    done, stop = [], asyncio.Event()
    stop.set()

    async def stream(_request):
        done.append("first answer")
        yield None

    @contextlib.asynccontextmanager
    async def services(*_, **__):
        done.append("loaded")
        yield SimpleNamespace(agent=SimpleNamespace(stream=stream), url="http://127.0.0.1:1", port=1)

    monkeypatch.setattr(serving, "local_services", services)
    monkeypatch.setattr(serving, "stop_on_signal", lambda: stop)
    monkeypatch.setattr(serving, "freeze_heap", lambda: done.append("frozen"))
    await serving.run(Emulation(), BUNDLED, {}, lambda port: done.append(f"port {port}"))
    assert done == ["loaded", "first answer", "frozen", "port 1"]


async def test_a_signal_during_the_warm_up_ends_it_at_its_next_event():
    """Before, that was left to asyncio, which cancels: the answers of others broke off."""
    stop, seen, is_closed = asyncio.Event(), [], []

    class Agent:
        async def stream(self, request):
            try:
                for number in range(3):
                    seen.append(number)
                    stop.set()
                    yield number
            finally:
                is_closed.append(True)

    await serving._warm_up(Agent(), stop)
    assert (seen, is_closed) == ([0], [True])
