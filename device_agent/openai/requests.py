"""What a client of OpenAI's API asks for, as a request of our own and how it is to be answered. Pure.

Keys that nobody knows are passed over, for clients send many. A key that is known, would change the answer and is not
implemented is refused, unless its value is one at which it changes nothing. ``docs/openai.md`` lists both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_agent.openai import logprobs
from device_agent.openai.messages import as_messages
from device_agent.request import NEUTRAL, Reveal, StreamRequest, TokenRequest, read_values
from speculation.errors import InvalidRequestError

SHARED_KEYS = ("temperature", "top_p", "top_k", "min_p", "seed", "stop", "mode", "deadline_ms", "privacy", "retrieve", *NEUTRAL)
"""Keys that mean here what they mean in ``/v1/stream``."""

OF_THE_ANSWER = "log probabilities are told of the answer's tokens alone"
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "prompt_logprobs": (),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "structured_outputs": ({},),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "modalities": (["text"],),
    "audio": (),
    "min_tokens": (0,),
    "stop_token_ids": ([],),
    "bad_words": ([],),
    "length_penalty": (1,),
    "use_beam_search": (False,),
    "include_stop_str_in_output": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
}
"""What OpenAI's or vLLM's servers can and this one cannot, with the values besides null that ask for nothing."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request. ``has_usage``: a stream ends with a chunk that tells it; ``has_running_usage``: every chunk does."""

    request: StreamRequest
    is_stream: bool = False
    has_usage: bool = False
    has_running_usage: bool = False


def completion(body: Any) -> Asked:
    """A body of ``POST /v1/completions``. Raises ``InvalidRequestError``."""
    given = as_object(body)
    return _asked(given, prompt_of(given.get("prompt")), given.get("max_tokens"), logprobs.of_completion(given))


def chat(body: Any) -> Asked:
    """A body of ``POST /v1/chat/completions``. Raises ``InvalidRequestError``."""
    given = as_object(body)
    newer = given.get("max_completion_tokens")
    max_tokens = given.get("max_tokens") if newer is None else newer
    return _asked(given, conversation_of(given.get("messages")), max_tokens, logprobs.of_chat(given))


def as_object(body: Any) -> Mapping[str, Any]:
    """A JSON object without the keys that are null. Raises ``InvalidRequestError``."""
    if not isinstance(body, Mapping):
        raise InvalidRequestError("the body must be a JSON object")
    return {key: value for key, value in body.items() if value is not None}


def prompt_of(prompt: Any) -> dict[str, Any]:
    """The fields of a request for a prompt: a text, tokens, or a list of one of them. Raises ``InvalidRequestError``."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return {"prompt": prompt}
    if isinstance(prompt, list) and prompt and all(map(_is_whole, prompt)):
        return {"prompt": "", "prompt_token_ids": tuple(prompt)}
    raise InvalidRequestError(
        "prompt must be a text, a list of tokens, or a list of one of these: an answer has one prompt", "prompt"
    )


def conversation_of(messages: Any) -> dict[str, Any]:
    """The fields of a request for a conversation. Raises ``InvalidRequestError``."""
    given = as_messages(messages)
    return read_values({"messages": given, "prompt": "\n\n".join([message["content"] for message in given])})


def request_of(fields: Mapping[str, Any]) -> StreamRequest:
    """A request for final text alone. Raises ``InvalidRequestError``."""
    kind = TokenRequest if "prompt_token_ids" in fields else StreamRequest
    return kind(**fields, reveal=Reveal.FINAL)


def _asked(given: Mapping[str, Any], text: Mapping[str, Any], max_tokens: Any, num_likeliest: int | None) -> Asked:
    _refuse_what_is_missing(given)
    ours = {"max_tokens": max_tokens, "logprobs": num_likeliest}
    shared = {key: given[key] for key in SHARED_KEYS if key in given} | ours
    if shared.get("top_k") == -1:  # vLLM's way to say that it is off
        shared["top_k"] = 0
    return Asked(request_of({**read_values(shared), **text}), _flag(given, "stream"), *_options(given))


def _options(given: Mapping[str, Any]) -> tuple[bool, bool]:
    options = given.get("stream_options", {})
    if not isinstance(options, Mapping):
        raise InvalidRequestError("stream_options must be an object", "stream_options")
    if options and not _flag(given, "stream"):
        raise InvalidRequestError("stream_options go with stream: true", "stream_options")
    return _flag(options, "include_usage"), _flag(options, "continuous_usage_stats")


def _flag(given: Mapping[str, Any], key: str) -> bool:
    value = given.get(key)
    if not (value is None or isinstance(value, bool)):
        raise InvalidRequestError(f"{key} must be true or false", key)
    return bool(value)


def _refuse_what_is_missing(given: Mapping[str, Any]) -> None:
    for key, neutral in WITHOUT_EFFECT.items():
        if key in given and not _is_among(given[key], neutral):
            why = OF_THE_ANSWER if key == "prompt_logprobs" else "it would change the answer"
            raise InvalidRequestError(f"{key} is not implemented ({why}): leave it out", key)


def _is_among(value: Any, neutral: Sequence[Any]) -> bool:
    """Whether it is one of them, where false is not 0."""
    return any(isinstance(value, bool) == isinstance(one, bool) and value == one for one in neutral)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
