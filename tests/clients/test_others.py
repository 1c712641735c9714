"""Clients that people put before OpenAI's, unmodified: litellm, langchain-openai, llm, instructor; each where it is installed.

What they do with an answer is theirs; that it is the full model's, and that a broken one is an error, is ours.
"""

from __future__ import annotations

import pytest

from tests.clients.served import SCRIPTED, ScriptedEngine, running
from tests.device_agent.openai.scene import ANSWER, PROMPT

WHY = "the extra outrider[clients]"
SAID = [{"role": "user", "content": PROMPT}]
# Others' warnings are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def litellm(monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it calls home when it is imported
    return pytest.importorskip("litellm", reason=WHY)


def by_litellm(url, **changes):
    asked = {"model": "openai/full", "messages": SAID, "max_tokens": 30, "seed": 3, "num_retries": 0, "max_retries": 0}
    return {"api_base": url, "api_key": "none"} | asked | changes


def texts_of(chunks):
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_litellm_gets_the_full_models_text(litellm, url):
    assert litellm.completion(**by_litellm(url)).choices[0].message.content == ANSWER
    assert texts_of(litellm.completion(**by_litellm(url, stream=True))) == ANSWER
    asked = by_litellm(url, model="text-completion-openai/full", prompt=PROMPT)
    del asked["messages"]
    assert litellm.text_completion(**asked).choices[0].text == ANSWER


async def test_litellm_gets_it_asynchronously_too(litellm, url):
    stream = await litellm.acompletion(**by_litellm(url, stream=True))
    assert texts_of([chunk async for chunk in stream]) == ANSWER


def test_litellm_raises_what_was_refused_and_what_broke_off(litellm, url, lost_url):
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**by_litellm(url, n=2))
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**by_litellm(url, model="openai/gpt-0"))
    with pytest.raises(Exception, match="broke"):
        list(litellm.completion(**by_litellm(lost_url, stream=True)))


def langchain(url, **changes):
    module = pytest.importorskip("langchain_openai", reason=WHY)
    given = {"model": "full", "base_url": url, "api_key": "none", "max_retries": 0, "max_tokens": 30, "seed": 3}
    return module.ChatOpenAI(**given | changes)


def test_langchain_gets_the_full_models_text(url):
    model = langchain(url)
    assert model.invoke(PROMPT).content == ANSWER
    assert "".join(chunk.text for chunk in model.stream(PROMPT)) == ANSWER


async def test_langchain_gets_it_asynchronously_too(url):
    assert "".join([chunk.text async for chunk in langchain(url).astream(PROMPT)]) == ANSWER


def test_langchain_raises_what_was_refused_and_what_broke_off(url, lost_url):
    openai = pytest.importorskip("openai", reason=WHY)
    with pytest.raises(openai.BadRequestError):
        langchain(url, n=2).invoke(PROMPT)
    with pytest.raises(openai.NotFoundError):
        langchain(url, model="gpt-0").invoke(PROMPT)
    with pytest.raises(openai.APIError, match="broke"):
        list(langchain(lost_url).stream(PROMPT))


def by_llm(url, tmp_path, monkeypatch, name="full"):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))  # it keeps a database
    pytest.importorskip("llm", reason=WHY)
    from llm.default_plugins.openai_models import Chat

    model = Chat(name, model_name=name, api_base=url)
    model.key = "none"
    return model


def test_llm_gets_the_full_models_text(url, tmp_path, monkeypatch):
    model = by_llm(url, tmp_path, monkeypatch)
    for is_stream in (True, False):
        assert model.prompt(PROMPT, stream=is_stream, max_tokens=30, seed=3).text() == ANSWER


def test_llm_raises_what_was_refused_and_what_broke_off(url, lost_url, tmp_path, monkeypatch):
    with pytest.raises(Exception, match="top_p must be over 0"):
        by_llm(url, tmp_path, monkeypatch).prompt(PROMPT, stream=False, top_p=0).text()
    with pytest.raises(Exception, match="does not exist here"):
        by_llm(url, tmp_path, monkeypatch, "gpt-0").prompt(PROMPT, stream=False).text()
    with pytest.raises(Exception, match="broke"):
        by_llm(lost_url, tmp_path, monkeypatch).prompt(PROMPT, stream=True, max_tokens=30, seed=3).text()


def test_instructor_reads_an_object_out_of_the_text_of_a_model_that_can_write_one():
    """Its modes that need tools or a response format are refused; the one that reads a block of JSON in Markdown works."""
    instructor = pytest.importorskip("instructor", reason=WHY)
    from openai import OpenAI
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    asked = {"model": "full", "response_model": Person, "messages": [{"role": "user", "content": "Who?"}], "max_retries": 1}
    with (
        running(ScriptedEngine(), ScriptedEngine(), SCRIPTED) as url,
        OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        found = instructor.from_openai(client, mode=instructor.Mode.MD_JSON).chat.completions.create(**asked)
        assert (found.name, found.age) == ("Ada", 36)
        with pytest.raises(Exception, match="tools is not implemented"):
            instructor.from_openai(client, mode=instructor.Mode.TOOLS).chat.completions.create(**asked)
