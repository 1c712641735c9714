"""llama.cpp's server as a peer: how it is started, what its clients ask and count, and that it ends with its block."""

import asyncio
import itertools
import json
import os
import sys
from enum import Enum
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from benchmarks.processes import llama_server
from benchmarks.processes.devices import Script
from benchmarks.processes.llama_server import Counted, answer, flags, request, server
from benchmarks.rivals import llama
from benchmarks.trace_file import Proposals, Trace

TEXT = [10, 11, 12, 13]
SAID = Proposals(np.zeros((4, 2), int), np.zeros((4, 2)))
SCRIPT = Script([1, 2], Trace("p", 2, 0.8, 7, np.array(TEXT), SAID, np.zeros((4, 2)), []))


def event(tokens, num_predicted):
    return f"data: {json.dumps({'tokens': tokens, 'tokens_predicted': num_predicted})}\n\n"


async def counted(*events, done=0):
    """What a client counts of one answer."""
    content = "".join(events).encode()
    transport = httpx.MockTransport(lambda asked: httpx.Response(200, content=content))
    found = Counted()
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as http:
        await answer(http, SCRIPT, done, found)
    return found


async def test_a_client_counts_a_token_that_came_without_an_event_of_its_own():
    found = await counted(event([10], 1), event([12], 3), event([13], 4), event([], 4))
    assert (found.tokens, found.texts, found.same_texts) == (4, 1, 0)


async def test_a_text_is_the_recorded_one_only_from_where_it_was_gone_on_with():
    assert (await counted(event([12], 1), event([13], 2), event([], 2), done=2)).same_texts == 1
    assert (await counted(event([12], 1), event([99], 2), event([], 2), done=2)).same_texts == 0


async def test_what_is_counted_begins_later_and_lasts_longer_the_more_clients_there_are(monkeypatch):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)

    async def client(number, http, texts, counted):
        pass

    monkeypatch.setattr(llama_server, "client", client)
    monkeypatch.setattr(llama_server, "asyncio", SimpleNamespace(sleep=sleep, TaskGroup=asyncio.TaskGroup))
    for count in (1, 101):
        await llama_server.measure("http://server", [SCRIPT], count, 5.0)
    assert [later - sooner for later, sooner in zip(slept[2:], slept[:2], strict=True)] == pytest.approx([15.0, 25.0])


async def test_a_server_that_refuses_is_not_counted_as_one_that_answered():
    transport = httpx.MockTransport(lambda asked: httpx.Response(503))
    async with httpx.AsyncClient(base_url="http://server", transport=transport) as http:
        with pytest.raises(httpx.HTTPStatusError):
            await answer(http, SCRIPT, 0, Counted())


def test_a_request_is_what_a_replay_device_asks_for_and_draws_without_a_filter():
    asked = request(SCRIPT, 1)
    assert (asked["prompt"], asked["n_predict"]) == ([1, 2, 10], 3)
    assert (asked["temperature"], asked["seed"], asked["samplers"]) == (0.8, 7, ["temperature"])
    assert asked["cache_prompt"] is False


def test_every_client_has_a_slot_and_a_whole_context_and_the_server_one_thread(tmp_path):
    given = flags(tmp_path / "model.gguf", 16, 512)
    named = dict(itertools.pairwise(given))
    assert (named["--parallel"], named["--ctx-size"]) == ("16", "8192")
    assert (named["--threads"], named["--threads-batch"]) == ("1", "1")


STANDS = "import os, time; print('I listening on http://127.0.0.1:%d' % os.getpid(), flush=True); time.sleep(100)"


async def test_a_server_is_there_for_its_block_and_no_longer():
    async with server([sys.executable, "-c", STANDS]) as url:
        pid = int(url.removeprefix("http://127.0.0.1:"))
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_server_that_does_not_start_says_why():
    with pytest.raises(RuntimeError, match="no such model"):
        async with server([sys.executable, "-c", "print('no such model')"]):
            pass


def test_a_vocabulary_is_in_the_order_of_its_ids_and_the_end_token_is_no_text(monkeypatch):
    kinds = Enum("kinds", ["NORMAL", "CONTROL"])
    monkeypatch.setitem(sys.modules, "gguf", SimpleNamespace(TokenType=kinds))
    written = {}
    names = ("tokenizer_model", "tokenizer_pre", "token_list", "token_types", "token_merges", "eos_token_id", "add_bos_token")
    writer = SimpleNamespace(**{f"add_{name}": lambda value, name=name: written.update({name: value}) for name in names})
    ends = [{"content": "<|end|>", "id": 0, "special": True}]
    model = {"vocab": {"b": 2, "a": 1, "ab": 3}, "merges": [["a", "b"]]}
    llama._add_vocabulary(writer, {"added_tokens": ends, "model": model}, 0)
    assert written["token_list"] == ["<|end|>", "a", "b", "ab"]
    assert written["token_types"] == [kinds.CONTROL, kinds.NORMAL, kinds.NORMAL, kinds.NORMAL]
    assert (written["token_merges"], written["eos_token_id"]) == (["a b"], 0)
