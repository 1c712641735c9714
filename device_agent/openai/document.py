"""How OpenAPI tells of these routes: what goes in, what comes out, every status, and an example of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from device_agent.schema.examples import answered
from device_agent.schema.refusals import refused
from speculation.logprobs import MAX_LOGPROBS

Schema = dict[str, Any]
Operation = dict[str, Any]

_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_READING = ("400", "401", "403", "404", "413", "429", "503")
_USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 3,
    "total_tokens": 6,
    "completion_tokens_details": {"accepted_prediction_tokens": 2, "rejected_prediction_tokens": 1},
}
_WRITTEN = " a convenient"
_RUNS, _ENDS = {"finish_reason": None}, {"finish_reason": "length"}
_HEAD = {"created": 1790000000, "model": "pydoc-full", "system_fingerprint": "fp_6ae4810f579d3ecb"}
_SAMPLING: Schema = {
    "model": _TEXT | {"description": "The full model's name, or one of served_names; the pair's where left out"},
    "stream": _FLAG,
    "stream_options": {"type": "object", "properties": {"include_usage": _FLAG, "continuous_usage_stats": _FLAG}},
    "max_tokens": {"type": "integer", "minimum": 1},
    "temperature": {"type": "number", "minimum": 0, "maximum": 100},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"type": "integer", "minimum": -1},
    "min_p": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
    "stop": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 4}]},
    "n": {"enum": [1]},
    "mode": {"enum": ["collaborate", "cloud", "auto"]},
    "deadline_ms": {"type": "integer", "minimum": 1},
    "retrieve": {"anyOf": [{"type": "boolean"}, {"type": "object"}]},
}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_LOGPROBS}
_PROMPT: Schema = {"anyOf": [_TEXT, _TOKENS, {"type": "array", "items": {"anyOf": [_TEXT, _TOKENS]}, "maxItems": 1}]}
_PART: Schema = {"type": "object", "required": ["type", "text"], "properties": {"type": {"const": "text"}, "text": _TEXT}}
_MESSAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": _TEXT, "content": {"anyOf": [_TEXT, {"type": "array", "items": _PART, "minItems": 1}]}},
    },
}


def completions() -> Operation:
    """``POST /v1/completions``."""
    text = {"index": 0, "text": _WRITTEN, "logprobs": None}
    head = {"id": "cmpl-0123", "object": "text_completion"} | _HEAD
    example = {"model": "pydoc-full", "prompt": "The module provides", "max_tokens": 3}
    return {"summary": "Go on from a prompt, as OpenAI's older route does"} | _generation(
        _object({"prompt": _PROMPT, "logprobs": _COUNT} | _SAMPLING, "prompt"),
        example,
        head | {"choices": [text | _ENDS], "usage": _USAGE, "outrider": {"seed": 7}},
        [head | {"choices": [choice]} for choice in (text | _RUNS, text | {"text": ""} | _ENDS)],
    )


def chat_completions() -> Operation:
    """``POST /v1/chat/completions``."""
    message = {"role": "assistant", "content": _WRITTEN, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None} | _ENDS
    delta = {"index": 0, "delta": {"role": "assistant", "content": _WRITTEN}, "logprobs": None}
    asked = {"messages": [{"role": "user", "content": "The module provides"}], "max_completion_tokens": 3}
    newer = {"max_completion_tokens": {"type": "integer", "minimum": 1}, "logprobs": _FLAG, "top_logprobs": _COUNT}
    properties = {"messages": _MESSAGES} | newer | _SAMPLING
    head = {"id": "chatcmpl-0123"} | _HEAD
    return {"summary": "Answer a conversation, as OpenAI's route does"} | _generation(
        _object(properties, "messages"),
        asked,
        head | {"object": "chat.completion", "choices": [choice], "usage": _USAGE, "outrider": {"seed": 7}},
        [head | {"object": "chat.completion.chunk", "choices": [c]} for c in (delta | _RUNS, delta | {"delta": {}} | _ENDS)],
    )


def models() -> Operation:
    """``GET /v1/models``."""
    schema = _object({"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}}, "object", "data")
    told = answered(schema, {"object": "list", "data": [_MODEL_EXAMPLE]})
    return {"summary": "Under which names the pair answers", "responses": told | refused("401", "403")}


def model() -> Operation:
    """``GET /v1/models/{model}``."""
    parameter = {"name": "model", "in": "path", "required": True, "schema": _TEXT, "example": "pydoc-full"}
    told = answered(_MODEL, _MODEL_EXAMPLE) | refused("401", "403", "404")
    return {"summary": "What is known of one name", "parameters": [parameter], "responses": told}


def version() -> Operation:
    """``GET /version``."""
    told = answered(_object({"version": _TEXT}, "version"), {"version": "0.1.0"})
    return {"summary": "The program's version", "responses": told | refused("401", "403")}


def tokenize() -> Operation:
    """``POST /tokenize``."""
    asked = _object({"prompt": _PROMPT, "messages": _MESSAGES, "model": _TEXT, "return_token_strs": _FLAG})
    strings = {"type": ["array", "null"], "items": _TEXT}
    told = _object({"count": _WHOLE, "max_model_len": _WHOLE, "tokens": _TOKENS, "token_strs": strings}, "count", "tokens")
    example = {"count": 2, "max_model_len": 512, "tokens": [748, 552], "token_strs": None}
    return {"summary": "The tokens of a text"} | _exchange(asked, {"prompt": "The module"}, told, example)


def detokenize() -> Operation:
    """``POST /detokenize``."""
    asked = _object({"tokens": _TOKENS, "model": _TEXT}, "tokens")
    told = _object({"prompt": _TEXT}, "prompt")
    return {"summary": "The text of tokens"} | _exchange(asked, {"tokens": [748, 552]}, told, {"prompt": "The module"})


def _object(properties: Schema, *required: str) -> Schema:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


_MODEL = _object({"id": _TEXT, "object": {"const": "model"}, "created": _WHOLE, "owned_by": _TEXT}, "id", "object")
_MODEL_EXAMPLE = {
    "id": "pydoc-full",
    "object": "model",
    "created": 1790000000,
    "owned_by": "outrider",
    "root": "pydoc-full",
    "max_model_len": 512,
}


def _generation(asked: Schema, example: Schema, whole: Schema, chunks: Sequence[Schema]) -> Operation:
    operation = _exchange(asked, example, _object({"choices": {"type": "array"}}, "id", "object", "choices"), whole)
    lines = [*(json.dumps(chunk, separators=(",", ":")) for chunk in chunks), "[DONE]"]
    streamed = {"schema": _TEXT, "example": "".join(f"data: {line}\n\n" for line in lines)}
    operation["responses"]["200"]["content"]["text/event-stream"] = streamed
    operation["responses"] |= refused("409", "500", "502", "504")
    return operation


def _exchange(asked: Schema, example: Schema, told: Schema, told_example: Schema) -> Operation:
    body = {"required": True, "content": {"application/json": {"schema": asked, "example": example}}}
    return {"requestBody": body, "responses": answered(told, told_example) | refused(*_READING)}
