"""OpenAI's routes: shapes, statuses, what ends an answer early; over real HTTP where a client goes away."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import threading

import httpx
import jsonschema
import pytest

from device_agent.api import build_app
from device_agent.openai import answers
from device_agent.prompts import SHORT_PROMPT_TOKENS
from speculation.errors import CapacityError, InvalidRequestError, LinkError
from speculation.links.memory import MemoryConnector
from speculation.protocol.messages import Cancel
from tests.device_agent.doubles import (
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedConnector,
    agent_of,
    decode,
    encode,
    facts,
    verifier,
    wait_until,
)
from tests.device_agent.openai.scene import ANSWER, PROMPT, calling, served, talking, verified
from tests.support.keys import ALICE, key_file
from tests.support.likelihoods import likelihoods

COMPLETION = {"prompt": PROMPT, "max_tokens": 30, "seed": 3}
CHAT = {"messages": [{"role": "user", "content": PROMPT}], "max_completion_tokens": 30, "seed": 3}
ROUTES = [("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)]


def text_of(choice):
    return choice["text"] if "text" in choice else choice.get("message", choice.get("delta")).get("content", "")


def chunks_of(text):
    data = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [json.loads(one) for one in data if one != "[DONE]"], data[-1] == "[DONE]"


async def test_an_answer_is_the_full_models_text_whole_and_in_chunks():
    async with verified() as client:
        for path, body in ROUTES:
            whole = (await client.post(path, json=body)).json()
            assert text_of(whole["choices"][0]) == ANSWER
            assert whole["choices"][0]["finish_reason"] == "length"
            assert whole["usage"]["completion_tokens"] == 30
            assert whole["usage"]["prompt_tokens"] == len(PROMPT)
            response = await client.post(path, json=body | {"stream": True})
            assert response.headers["content-type"].startswith("text/event-stream")
            chunks, is_done = chunks_of(response.text)
            assert "".join(text_of(chunk["choices"][0]) for chunk in chunks) == ANSWER
            assert is_done


def joined(choices):
    """The log probabilities of several chunks, as those of one choice."""
    told = [choice["logprobs"] for choice in choices if choice["logprobs"] is not None]
    return {key: [entry for some in told for entry in some[key] or ()] for key in told[0]}


async def test_log_probabilities_are_those_of_the_answer_whole_and_in_chunks():
    truth = likelihoods(FullEngine(), encode(PROMPT + ANSWER), len(PROMPT), 2)
    async with verified() as client:
        for path, body, asked in ((*ROUTES[0], {"logprobs": 2}), (*ROUTES[1], {"logprobs": True, "top_logprobs": 2})):
            (choice,) = (await client.post(path, json=body | asked)).json()["choices"]
            response = await client.post(path, json=body | asked | {"stream": True})
            pieces = [chunk["choices"][0] for chunk in chunks_of(response.text)[0]]
            told = choice["logprobs"]
            assert joined(pieces) == told | ({"refusal": []} if "refusal" in told else {})
            if "content" in told:
                assert [entry["logprob"] for entry in told["content"]] == [one.logprob for one in truth]
                assert "".join(entry["token"] for entry in told["content"]) == ANSWER
                assert [bytes(entry["bytes"]).decode() for entry in told["content"]] == list(ANSWER)
                tops = [[(other["token"], other["logprob"]) for other in entry["top_logprobs"]] for entry in told["content"]]
            else:
                assert (told["token_logprobs"], told["tokens"]) == ([one.logprob for one in truth], list(ANSWER))
                assert told["text_offset"] == list(range(len(ANSWER)))
                assert all(
                    named[token] == value
                    for named, token, value in zip(told["top_logprobs"], ANSWER, told["token_logprobs"], strict=True)
                )
                tops = [list(named.items())[:2] for named in told["top_logprobs"]]
            assert tops == [[(decode([token_id]), value) for token_id, value in one.top] for one in truth]


async def test_usage_tells_of_drafts_that_were_accepted_and_rejected():
    async with verified(SlowEngine(0.005)) as client:
        usage = (await client.post("/v1/completions", json=COMPLETION)).json()["usage"]
    assert 0 < usage["completion_tokens_details"]["accepted_prediction_tokens"] <= 30
    assert usage["completion_tokens_details"]["rejected_prediction_tokens"] > 0


async def test_tokens_stops_and_seeds_are_what_they_are_in_our_own_stream():
    stop = ANSWER[10:12]
    async with verified() as client:

        async def ask(**changes):
            response = await client.post("/v1/completions", json=COMPLETION | changes)
            return response.json()

        assert (await ask(prompt=encode(PROMPT)))["choices"][0]["text"] == ANSWER
        stopped = (await ask(stop=stop))["choices"][0]
        assert (stopped["text"], stopped["finish_reason"]) == (ANSWER[: ANSWER.index(stop)], "stop")
        drawn = await ask(seed=None, temperature=1, max_tokens=9)
        again = await ask(**drawn["outrider"], temperature=1, max_tokens=9)
        assert drawn["choices"] == again["choices"]


REFUSED = [
    ({"max_tokens": 0, "max_completion_tokens": 0}, 400, "max_tokens", "invalid_request"),
    ({"n": 2}, 400, "n", "invalid_request"),
    ({"logprobs": "yes"}, 400, "logprobs", "invalid_request"),
    ({"top_logprobs": 3}, 400, "top_logprobs", "invalid_request"),
    ({"model": "gpt-0"}, 404, None, "model_not_found"),
    ({"model": 3}, 400, "model", "invalid_request"),
]


async def test_refusals_are_openai_errors_with_their_status():
    async with verified() as client:
        for (path, body), (change, status, parameter, code) in itertools.product(ROUTES, REFUSED):
            response = await client.post(path, json=body | change)
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert (response.status_code, error["param"], error["code"]) == (status, parameter, code)
        for tokens in ([64], [-1], [10**30]):
            assert (await client.post("/v1/completions", json=COMPLETION | {"prompt": tokens})).status_code == 400
            assert (await client.post("/detokenize", json={"tokens": tokens})).status_code == 400


async def test_what_the_template_refuses_is_a_bad_request():
    def refuse(messages):
        raise InvalidRequestError("the model's chat template refuses these messages: no system", "messages")

    async with verified(pair=talking(chat=refuse)) as client:
        response = await client.post("/v1/chat/completions", json=CHAT)
        assert (response.status_code, response.json()["error"]["param"]) == (400, "messages")


async def test_without_a_template_a_chat_is_refused_and_told_where_to_go():
    async with verified(pair=facts()) as client:
        for path in ("/v1/chat/completions", "/tokenize"):
            response = await client.post(path, json=CHAT)
            assert response.status_code == 400
            assert "use /v1/completions" in response.json()["error"]["message"]
        assert (await client.post("/tokenize", json={"prompt": [1]})).status_code == 400


async def test_a_name_of_ones_own_is_served_and_a_star_is_any():
    async with verified(served_names=("mine", "org/mine")) as named:
        assert [one["id"] for one in (await named.get("/v1/models")).json()["data"]] == ["full", "mine", "org/mine"]
        assert (await named.get("/v1/models/nobody")).status_code == 404
        assert (await named.get("/v1/models/org/mine")).json()["root"] == "full"
        assert (await named.post("/v1/completions", json=COMPLETION | {"model": "mine"})).json()["model"] == "full"
    async with verified(served_names=("*",)) as any_name:
        assert [one["id"] for one in (await any_name.get("/v1/models")).json()["data"]] == ["full"]
        assert (await any_name.post("/v1/completions", json=COMPLETION | {"model": "gpt-0"})).status_code == 200


async def test_tokens_go_and_come_back_and_the_version_is_told():
    tokens = encode(PROMPT)
    async with verified() as client:
        told = (await client.post("/tokenize", json={"prompt": PROMPT, "return_token_strs": True})).json()
        assert told == {"count": 10, "max_model_len": 256, "tokens": tokens, "token_strs": list(PROMPT)}
        chat = (await client.post("/tokenize", json={"messages": CHAT["messages"]})).json()
        assert (chat["tokens"], chat["token_strs"]) == (tokens, None)
        assert (await client.post("/detokenize", json={"tokens": tokens})).json() == {"prompt": PROMPT}
        assert (await client.post("/detokenize", json={"tokens": "ab"})).status_code == 400
        assert re.fullmatch(r"\d+\.\d+\.\d+.*", (await client.get("/version")).json()["version"])


@pytest.mark.parametrize(("num_bytes", "is_taken"), [(64 * 1024 - 2, True), (64 * 1024 - 1, False)])
async def test_what_a_template_makes_of_long_roles_is_bounded_and_made_elsewhere_too(num_bytes, is_taken):
    threads = []

    def with_roles(messages):
        threads.append(threading.get_ident())
        return encode("".join(message["role"] + message["content"] for message in messages))

    async with verified(pair=talking(chat=with_roles)) as client:
        answer = await client.post("/tokenize", json={"messages": [{"role": "x" * num_bytes, "content": "ab"}]})
    assert answer.status_code == (200 if is_taken else 400)
    assert is_taken or "at most 65536" in answer.json()["error"]["message"]
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(("count", "is_here"), [(SHORT_PROMPT_TOKENS, True), (SHORT_PROMPT_TOKENS + 1, False)])
async def test_the_texts_of_many_tokens_are_not_spelled_on_the_event_loop(count, is_here):
    threads = set()

    def watched(token_ids):
        threads.add(threading.get_ident())
        return decode(token_ids)

    async with verified(pair=talking(decode=watched)) as client:
        told = (await client.post("/tokenize", json={"prompt": [5] * count, "return_token_strs": True})).json()
    assert told["token_strs"] == [decode([5])] * count
    assert (threads == {threading.get_ident()}) is is_here


async def test_what_fails_before_the_first_text_has_a_status_of_its_own():
    async with calling(WatchedConnector(failure=LinkError("nobody answers"))) as (client, _):
        for is_stream in (False, True):
            response = await client.post("/v1/completions", json=COMPLETION | {"stream": is_stream})
            assert (response.status_code, response.json()["error"]["code"]) == (503, "link")


@pytest.mark.parametrize(("retry_after_s", "told"), [(2.5, ("3", "2500")), (None, (None, None))])
async def test_a_verifier_without_room_is_told_with_its_own_word_when_to_come_again(retry_after_s, told):
    async with calling(WatchedConnector(failure=CapacityError("all sessions are taken", retry_after_s))) as (client, _):
        for path, body in ROUTES:
            for is_stream in (False, True):
                response = await client.post(path, json=body | {"stream": is_stream})
                assert (response.status_code, response.json()["error"]["code"]) == (429, "capacity")
                assert (response.headers.get("retry-after"), response.headers.get("retry-after-ms")) == told


async def test_a_verifier_that_is_lost_in_mid_stream_is_an_error_object_without_done():
    async with verifier() as made, calling(WatchedConnector(MemoryConnector(made), limit=4)) as (client, _):
        response = await client.post("/v1/completions", json=COMPLETION | {"stream": True})
        assert response.status_code == 200
        chunks, is_done = chunks_of(response.text)
        text = "".join(text_of(chunk["choices"][0]) for chunk in chunks[:-1])
        assert (is_done, chunks[-1]["error"]["code"]) == (False, "link")
        assert text
        assert ANSWER.startswith(text)
        assert not any(chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1])
        whole = await client.post("/v1/completions", json=COMPLETION)
        assert whole.status_code == 503


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_client_that_goes_away_cancels_the_answer(is_stream):
    draft = DraftEngine(step_s=0.02)
    async with verifier(SlowEngine(0.02)) as made:
        connector = WatchedConnector(MemoryConnector(made))
        async with (
            served(connector, draft) as (url, agent),
            httpx.AsyncClient(base_url=url, timeout=30) as client,
            asyncio.TaskGroup() as tasks,
        ):
            body, began = COMPLETION | {"max_tokens": 200, "stream": is_stream}, asyncio.Event()

            async def read():
                async with client.stream("POST", "/v1/completions", json=body) as response:
                    await anext(response.aiter_bytes())
                    began.set()
                    await asyncio.Event().wait()

            reading = tasks.create_task(read())
            await wait_until(lambda: made.num_sessions == 1 and (began.is_set() or not is_stream))
            reading.cancel()
            await wait_until(lambda: agent.num_streams == 0)
            assert not draft.open_caches
        assert isinstance(connector.links[0].sent[-1][1], Cancel)


async def test_silence_is_filled_with_comments_and_headers_do_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(answers, "KEEP_ALIVE_S", 0.01)
    async with verified(SlowEngine(0.05)) as client:
        response = await client.post("/v1/completions", json=COMPLETION | {"max_tokens": 2, "stream": True, "mode": "cloud"})
        assert ": keep-alive\n\n" in response.text
        chunks, is_done = chunks_of(response.text)
        assert is_done
        assert "".join(text_of(chunk["choices"][0]) for chunk in chunks) == ANSWER[:2]


async def test_a_tenants_limits_hold_for_these_routes_too(tmp_path):
    keys = key_file(tmp_path, tokens_per_s=1, burst_s=1)
    async with verified(keys=keys) as client:
        assert (await client.post("/v1/completions", json=COMPLETION)).status_code == 401
        client.headers["authorization"] = f"Bearer {ALICE}"
        assert (await client.post("/v1/completions", json=COMPLETION)).status_code == 200
        for path, body in [*ROUTES, ("/tokenize", {"prompt": PROMPT})]:
            refused = await client.post(path, json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "capacity")
            assert int(refused.headers["retry-after-ms"]) > 0


async def test_the_openapi_document_tells_every_route_with_examples_that_fit():
    async with agent_of(None, pair=talking()) as agent:
        paths = build_app(agent).openapi()["paths"]
    for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
        operation = paths[path]["post"]
        asked = operation["requestBody"]["content"]["application/json"]
        jsonschema.validate(asked["example"], asked["schema"])
        assert {"200", "400", "401", "403", "404", "413", "429"} <= set(operation["responses"])
    for path in ("/v1/models", "/v1/models/{model}", "/version"):
        assert {"200", "401", "403"} <= set(paths[path]["get"]["responses"])
    for content in [
        response["content"]["application/json"]
        for operations in paths.values()
        for operation in operations.values()
        for response in operation["responses"].values()
        if "example" in response.get("content", {}).get("application/json", {})
    ]:
        jsonschema.validate(content["example"], content["schema"])
