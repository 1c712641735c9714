"""OpenAI's own client, unmodified: sync and async, whole and streamed, refused, and with the verifier lost in mid-stream."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.device_agent.doubles import FullEngine, encode
from tests.device_agent.openai.scene import ANSWER, PROMPT
from tests.support.likelihoods import likelihoods

openai = pytest.importorskip("openai", reason="the extra outrider[clients]")

PAGE = Path(__file__).parents[2] / "docs" / "openai.md"
SAID = [{"role": "user", "content": PROMPT}]
PROMPTED = {"model": "full", "prompt": PROMPT, "max_tokens": 30, "seed": 3}
ASKED = {"model": "full", "messages": SAID, "max_completion_tokens": 30, "seed": 3}
USAGE = {"include_usage": True}


@contextlib.contextmanager
def client_of(url):
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@contextlib.asynccontextmanager
async def async_client_of(url):
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def joined(chunks):
    """The text of a chat, and why it ended; the usage chunk has no choice."""
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason


def test_whole_answers_are_the_full_models_text(url):
    with client_of(url) as client:
        completion = client.completions.create(**PROMPTED)
        assert (completion.choices[0].text, completion.choices[0].finish_reason) == (ANSWER, "length")
        chat = client.chat.completions.create(**ASKED)
        assert (chat.choices[0].message.role, chat.choices[0].message.content) == ("assistant", ANSWER)
        assert chat.usage.completion_tokens == 30
        assert chat.usage.completion_tokens_details.rejected_prediction_tokens >= 0
        assert chat.model_extra["outrider"] == {"seed": 3}


def test_streams_are_the_same_text_and_say_why_they_end(url):
    with client_of(url) as client:
        pieces = list(client.completions.create(**PROMPTED, stream=True))
        assert "".join(piece.choices[0].text for piece in pieces) == ANSWER
        assert pieces[-1].choices[0].finish_reason == "length"
        chunks = list(client.chat.completions.create(**ASKED, stream=True, stream_options=USAGE))
        assert joined(chunks) == (ANSWER, "length")
        assert chunks[0].choices[0].delta.role == "assistant"
        assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 40)


def test_the_helper_that_accumulates_a_stream_has_the_whole_answer(url):
    """It takes an answer that is cut off for an error, so this one ends by itself."""
    stop = ANSWER[20:23]
    with client_of(url) as client, client.chat.completions.stream(**ASKED, stop=stop) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == ANSWER[: ANSWER.index(stop)]


async def test_the_asynchronous_client_gets_the_same(url):
    async with async_client_of(url) as client:
        assert (await client.completions.create(**PROMPTED)).choices[0].text == ANSWER
        stream = await client.chat.completions.create(**ASKED, stream=True)
        assert joined([chunk async for chunk in stream]) == (ANSWER, "length")


def test_log_probabilities_are_read_by_the_client_whole_and_streamed(url):
    truth = likelihoods(FullEngine(), encode(PROMPT + ANSWER), len(PROMPT), 2)
    asked = {**ASKED, "logprobs": True, "top_logprobs": 2}
    with client_of(url) as client:
        whole = client.chat.completions.create(**asked).choices[0].logprobs.content
        chunks = list(client.chat.completions.create(**asked, stream=True))
        with client.chat.completions.stream(**asked, stop=ANSWER[20:23]) as stream:
            accumulated = stream.get_final_completion().choices[0]
        completion = client.completions.create(**PROMPTED, logprobs=2).choices[0]
        pieces = list(client.completions.create(**PROMPTED, logprobs=2, stream=True))
    assert [one.logprob for one in whole] == [one.logprob for one in truth]
    assert [[other.logprob for other in one.top_logprobs] for one in whole] == [[v for _, v in one.top] for one in truth]
    for chunk in chunks:
        if (told := chunk.choices[0].logprobs) is not None:
            assert "".join(one.token for one in told.content) == chunk.choices[0].delta.content
    assert [one for chunk in chunks if chunk.choices[0].logprobs for one in chunk.choices[0].logprobs.content] == whole
    assert accumulated.logprobs.content == whole[: len(accumulated.message.content)]
    assert completion.logprobs.token_logprobs == [one.logprob for one in truth]
    assert [value for piece in pieces if piece.choices[0].logprobs for value in piece.choices[0].logprobs.token_logprobs] == (
        completion.logprobs.token_logprobs
    )
    assert "".join(completion.logprobs.tokens) == ANSWER == completion.text


def test_models_are_listed_and_an_unknown_one_is_not_found(url):
    with client_of(url) as client:
        assert [model.id for model in client.models.list()] == ["full"]
        assert client.models.retrieve("full").owned_by == "outrider"
        with pytest.raises(openai.NotFoundError) as refusal:
            client.chat.completions.create(**ASKED | {"model": "gpt-0"})
        assert refusal.value.code == "model_not_found"


def test_a_bad_parameter_is_a_bad_request(url):
    with client_of(url) as client:
        for wrong in ({"n": 2}, {"logprobs": "yes"}, {"top_logprobs": 21}, {"temperature": -1}):
            with pytest.raises(openai.BadRequestError) as refusal:
                client.chat.completions.create(**ASKED, **wrong)
            assert refusal.value.param == next(iter(wrong))


def test_a_verifier_that_is_lost_in_mid_stream_is_an_error(lost_url):
    with client_of(lost_url) as client:
        for begin, asked in ((client.completions.create, PROMPTED), (client.chat.completions.create, ASKED)):
            chunks = []
            with pytest.raises(openai.APIError, match="broke"):
                chunks.extend(begin(**asked, stream=True))
            with pytest.raises(openai.InternalServerError):
                begin(**asked)
        with pytest.raises(openai.APIError, match="broke"), client.chat.completions.stream(**ASKED) as stream:
            stream.until_done()


async def test_a_verifier_that_is_lost_is_an_error_for_the_asynchronous_client_too(lost_url):
    chunks = []

    async def read():
        async for chunk in await client.chat.completions.create(**ASKED, stream=True):
            chunks.append(chunk)

    async with async_client_of(lost_url) as client:
        with pytest.raises(openai.APIError, match="broke"):
            await read()
    assert chunks
    assert not any(chunk.choices[0].finish_reason for chunk in chunks)


def test_the_example_of_the_page_runs(url):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        names = {}
        exec(code.replace("http://127.0.0.1:8080/v1", url).replace("The module provides", PROMPT), names)
        names["client"].close()
    assert said.getvalue().startswith(names["whole"].choices[0].text + " ")
    assert len(said.getvalue()) > len(names["whole"].choices[0].text)
