"""How OpenAPI tells of these routes: what goes in, what comes out, every status, and an example of each."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
Operation = dict[str, Any]

_TEXT, _WHOLE, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_REFUSALS = {
    "400": "The request cannot be served as it is",
    "401": "The agent has keys, and none that it knows was sent",
    "403": "Not from this machine",
    "404": "No such model is served here",
    "409": "The device and the verifier do not fit each other",
    "413": "The body is too long",
    "429": "Too many answers are being written, or the tenant is over a limit; see Retry-After",
    "500": "A model could not be run",
    "502": "The verifier broke the protocol",
    "503": "The verifier cannot be reached, or went away",
    "504": "The verifier had no time left",
}
_READING = ("400", "401", "403", "404", "413", "429")
_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": _TEXT},
        }
    },
}
_ERROR_EXAMPLE = {
    "error": {
        "message": "max_tokens must be at least 1, not 0",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "invalid_request",
    }
}
_USAGE = {
    "prompt_tokens": 4,
    "completion_tokens": 3,
    "total_tokens": 7,
    "completion_tokens_details": {"accepted_prediction_tokens": 2, "rejected_prediction_tokens": 1},
}
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
    text = {"index": 0, "text": " functions for", "logprobs": None}
    head = {"id": "cmpl-0123", "object": "text_completion"} | _HEAD
    example = {"model": "pydoc-full", "prompt": "The module provides", "max_tokens": 3}
    return _generation(
        _object({"prompt": _PROMPT} | _SAMPLING, "prompt"),
        example,
        head | {"choices": [text | {"finish_reason": "length"}], "usage": _USAGE, "outrider": {"seed": 7}},
        head | {"choices": [text | {"finish_reason": None}]},
    )


def chat_completions() -> Operation:
    """``POST /v1/chat/completions``."""
    message = {"role": "assistant", "content": " functions for", "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
    delta = {"index": 0, "delta": {"content": " functions for"}, "logprobs": None, "finish_reason": None}
    asked = {"messages": [{"role": "user", "content": "The module provides"}], "max_completion_tokens": 3}
    properties = {"messages": _MESSAGES, "max_completion_tokens": {"type": "integer", "minimum": 1}} | _SAMPLING
    head = {"id": "chatcmpl-0123"} | _HEAD
    return _generation(
        _object(properties, "messages"),
        asked,
        head | {"object": "chat.completion", "choices": [choice], "usage": _USAGE, "outrider": {"seed": 7}},
        head | {"object": "chat.completion.chunk", "choices": [delta]},
    )


def models() -> Operation:
    """``GET /v1/models``."""
    schema = _object({"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}}, "object", "data")
    return {"responses": _answered(schema, {"object": "list", "data": [_MODEL_EXAMPLE]}) | _refused("401", "403")}


def model() -> Operation:
    """``GET /v1/models/{model}``."""
    parameter = {"name": "model", "in": "path", "required": True, "schema": _TEXT}
    return {"parameters": [parameter], "responses": _answered(_MODEL, _MODEL_EXAMPLE) | _refused("401", "403", "404")}


def version() -> Operation:
    """``GET /version``."""
    return {"responses": _answered(_object({"version": _TEXT}, "version"), {"version": "0.1.0"}) | _refused("401", "403")}


def tokenize() -> Operation:
    """``POST /tokenize``."""
    asked = _object({"prompt": _PROMPT, "messages": _MESSAGES, "model": _TEXT, "return_token_strs": _FLAG})
    strings = {"type": ["array", "null"], "items": _TEXT}
    told = _object({"count": _WHOLE, "max_model_len": _WHOLE, "tokens": _TOKENS, "token_strs": strings}, "count", "tokens")
    example = {"count": 2, "max_model_len": 512, "tokens": [748, 552], "token_strs": None}
    return _exchange(asked, {"prompt": "The module"}, told, example)


def detokenize() -> Operation:
    """``POST /detokenize``."""
    asked = _object({"tokens": _TOKENS, "model": _TEXT}, "tokens")
    return _exchange(asked, {"tokens": [748, 552]}, _object({"prompt": _TEXT}, "prompt"), {"prompt": "The module"})


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


def _generation(asked: Schema, example: Schema, whole: Schema, chunk: Schema) -> Operation:
    operation = _exchange(asked, example, _object({"choices": {"type": "array"}}, "id", "object", "choices"), whole)
    events = {"schema": _TEXT, "example": f"data: {chunk}\n\ndata: [DONE]\n\n".replace("'", '"').replace("None", "null")}
    operation["responses"]["200"]["content"]["text/event-stream"] = events
    operation["responses"] |= _refused("409", "500", "502", "503", "504")
    return operation


def _exchange(asked: Schema, example: Schema, told: Schema, told_example: Schema) -> Operation:
    body = {"required": True, "content": {"application/json": {"schema": asked, "example": example}}}
    return {"requestBody": body, "responses": _answered(told, told_example) | _refused(*_READING)}


def _answered(schema: Schema, example: Schema) -> Schema:
    return {"200": {"description": "The answer", "content": {"application/json": {"schema": schema, "example": example}}}}


def _refused(*statuses: str) -> Schema:
    content = {"application/json": {"schema": _ERROR, "example": _ERROR_EXAMPLE}}
    return {status: {"description": _REFUSALS[status], "content": content} for status in statuses}
