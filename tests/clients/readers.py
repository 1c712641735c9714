"""How each client, unmodified, reads a stream: every piece is handed to ``said`` as it comes; what is raised is its own.

A reader that is not installed is left out: ``openai`` belongs to every run of the tests, the others to ``outrider[clients]``.
"""

from __future__ import annotations

import asyncio
import importlib.util

MODEL, LIMIT_S = "full", 60
QUIET = {"max_retries": 0, "timeout": LIMIT_S}


def _said(prompt):
    return [{"role": "user", "content": prompt}]


def openai_completion(url, said, prompt, max_tokens, seed, **more):
    import openai

    with openai.OpenAI(base_url=url, api_key="none", **QUIET) as client:
        asked = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "seed": seed}
        for chunk in client.completions.create(**asked, stream=True, **more):
            said(chunk.choices[0].text)


def openai_chat(url, said, prompt, max_tokens, seed, **more):
    import openai

    with openai.OpenAI(base_url=url, api_key="none", **QUIET) as client:
        asked = {"model": MODEL, "messages": _said(prompt), "max_tokens": max_tokens, "seed": seed}
        for chunk in client.chat.completions.create(**asked, stream=True, **more):
            said(chunk.choices[0].delta.content or "")


def openai_helper(url, said, prompt, max_tokens, seed, **more):
    import openai

    with openai.OpenAI(base_url=url, api_key="none", **QUIET) as client:
        asked = {"model": MODEL, "messages": _said(prompt), "max_completion_tokens": max_tokens, "seed": seed}
        with client.chat.completions.stream(**asked, **more) as stream:
            for event in stream:
                said(event.delta if event.type == "content.delta" else "")
            stream.get_final_completion()


def openai_async(url, said, prompt, max_tokens, seed, **more):
    import openai

    async def read():
        async with openai.AsyncOpenAI(base_url=url, api_key="none", **QUIET) as client:
            asked = {"model": MODEL, "messages": _said(prompt), "max_tokens": max_tokens, "seed": seed}
            async for chunk in await client.chat.completions.create(**asked, stream=True, **more):
                said(chunk.choices[0].delta.content or "")

    asyncio.run(read())


def openai_whole(url, said, prompt, max_tokens, seed, **more):
    """Nothing to see before the end: the answer is there, or an error."""
    import openai

    with openai.OpenAI(base_url=url, api_key="none", **QUIET) as client:
        asked = {"model": MODEL, "messages": _said(prompt), "max_tokens": max_tokens, "seed": seed}
        said(client.chat.completions.create(**asked, **more).choices[0].message.content)


def _by_litellm(url, prompt, max_tokens, seed, more):
    asked = {"model": f"openai/{MODEL}", "messages": _said(prompt), "max_tokens": max_tokens, "seed": seed, "stream": True}
    return {"api_base": url, "api_key": "none", "num_retries": 0} | QUIET | asked | more


def litellm_sync(url, said, prompt, max_tokens, seed, **more):
    import litellm

    for chunk in litellm.completion(**_by_litellm(url, prompt, max_tokens, seed, more)):
        said(chunk.choices[0].delta.content or "" if chunk.choices else "")


def litellm_async(url, said, prompt, max_tokens, seed, **more):
    import litellm

    async def read():
        async for chunk in await litellm.acompletion(**_by_litellm(url, prompt, max_tokens, seed, more)):
            said(chunk.choices[0].delta.content or "" if chunk.choices else "")

    asyncio.run(read())


def _langchain(url, max_tokens, seed, more):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=MODEL, base_url=url, api_key="none", max_tokens=max_tokens, seed=seed, **QUIET, **more)


def langchain_sync(url, said, prompt, max_tokens, seed, **more):
    for chunk in _langchain(url, max_tokens, seed, more).stream(prompt):
        said(chunk.text)


def langchain_async(url, said, prompt, max_tokens, seed, **more):
    async def read():
        async for chunk in _langchain(url, max_tokens, seed, more).astream(prompt):
            said(chunk.text)

    asyncio.run(read())


def llm_chat(url, said, prompt, max_tokens, seed, **more):
    from llm.default_plugins.openai_models import Chat

    model = Chat(MODEL, model_name=MODEL, api_base=url)
    model.key = "none"
    for piece in model.prompt(prompt, stream=True, max_tokens=max_tokens, seed=seed, **more):
        said(piece)


def instructor_object(url, said, prompt, max_tokens, seed):
    """Nothing to see before the end, and no object in the text of the bundled pair."""
    import instructor
    import openai
    from pydantic import BaseModel

    class Found(BaseModel):
        name: str

    with openai.OpenAI(base_url=url, api_key="none", **QUIET) as client:
        room = max_tokens // 2  # it puts the shape of the object before the prompt
        asked = {"model": MODEL, "messages": _said(prompt), "max_tokens": room, "seed": seed, "max_retries": 1}
        reader = instructor.from_openai(client, mode=instructor.Mode.MD_JSON)
        said(reader.chat.completions.create(response_model=Found, **asked).name)


READERS = {
    "openai": [openai_completion, openai_chat, openai_helper, openai_async, openai_whole],
    "litellm": [litellm_sync, litellm_async],
    "langchain_openai": [langchain_sync, langchain_async],
    "llm": [llm_chat],
}
OF_OBJECTS = {"instructor": [instructor_object]}
"""By the package that they need."""


def installed(readers=READERS):
    """Readers by name. Packages are loaded here, by one thread: some do not bear it from several at once."""
    packages = [package for package in readers if importlib.util.find_spec(package)]
    for package in packages:
        importlib.import_module(package)
    return {reader.__name__: reader for package in packages for reader in readers[package]}
