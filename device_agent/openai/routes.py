"""The routes that clients of OpenAI's API call, and those of vLLM's that they know: models, version, tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from device_agent.agent import DeviceAgent
from device_agent.beginning import begin, body_of
from device_agent.openai import answers, document, tokens
from device_agent.openai.chunks import Chunks
from device_agent.openai.names import Names
from device_agent.openai.requests import Asked, as_object, chat, completion
from device_agent.openai.shapes import CHAT, COMPLETION, Shape
from speculation.errors import InvalidRequestError


def add_to(app: FastAPI) -> None:
    """Adds them to the agent's application, behind whatever door it has."""
    agent: DeviceAgent = app.state.agent
    app.state.names = Names(agent.pair, agent.config.served_names, _now_s())
    posts = {
        "/v1/completions": (_completions, document.completions()),
        "/v1/chat/completions": (_chat_completions, document.chat_completions()),
        "/tokenize": (_tokenize, document.tokenize()),
        "/detokenize": (_detokenize, document.detokenize()),
    }
    gets = {
        "/v1/models": (_models, document.models()),
        "/v1/models/{model:path}": (_model, document.model()),
        "/version": (_version, document.version()),
    }
    for method, routes in (("POST", posts), ("GET", gets)):
        for path, (route, operation) in routes.items():
            app.add_api_route(path, route, methods=[method], response_class=Response, openapi_extra=operation)


async def _completions(request: Request) -> Response:
    """Go on from a prompt, as OpenAI's older route does. ``docs/openai.md`` tells what is served and what is refused."""
    return await _answer(request, completion, COMPLETION)


async def _chat_completions(request: Request) -> Response:
    """Answer a conversation, written as the full model's own template says. ``docs/openai.md`` tells what is refused."""
    _require_template(request.app.state.agent)
    return await _answer(request, chat, CHAT)


async def _answer(request: Request, read: Callable[[Any], Asked], shape: Shape) -> Response:
    def judge(body: Any) -> Asked:
        _check_model(request, as_object(body))
        return read(body)

    stream, asked = await begin(request, judge, lambda judged: judged.request)
    created = _now_s()
    if asked.is_stream:
        return await answers.streamed(request, stream, Chunks(shape, asked, created))
    return await answers.whole(request, stream, shape, created)


async def _tokenize(request: Request) -> Response:
    """The tokens of a prompt or a conversation, as vLLM's route tells them."""
    agent: DeviceAgent = request.app.state.agent
    given = as_object(await body_of(request))
    _check_model(request, given)
    if "messages" in given:
        _require_template(agent)
    return JSONResponse(await tokens.tokenized(agent, given))


async def _detokenize(request: Request) -> Response:
    """The text of tokens, as vLLM's route tells it."""
    given = as_object(await body_of(request))
    _check_model(request, given)
    return JSONResponse(await tokens.detokenized(request.app.state.agent, given))


async def _models(request: Request) -> Response:
    """The names under which the pair answers."""
    return JSONResponse(_names_of(request).all())


async def _model(request: Request) -> Response:
    """What is known of one name."""
    return JSONResponse(_names_of(request).one(request.path_params["model"]))


async def _version(request: Request) -> Response:
    """The program's version."""
    return JSONResponse({"version": metadata.version("outrider")})


def _names_of(request: Request) -> Names:
    names: Names = request.app.state.names
    return names


def _check_model(request: Request, given: Mapping[str, Any]) -> None:
    _names_of(request).check(given.get("model"))


def _require_template(agent: DeviceAgent) -> None:
    if agent.pair.chat is None:
        name = agent.pair.full
        raise InvalidRequestError(f"{name} has no chat template, so it takes no messages: use /v1/completions", "messages")


def _now_s() -> int:
    """Seconds since 1970."""
    return int(datetime.now(UTC).timestamp())
