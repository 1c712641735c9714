"""A server that runs a full model, as the engine needs it, and what the tests of it ask."""

from speculation.engines.base import Chunk
from speculation.engines.random import RandomEngine
from speculation.engines.remote import RemoteServer, connect

VOCABULARY, CONTEXT, SLOTS = 64, 40, 4
VLLM = ["vllm", "vllm-prefixes"]


class FullModel:
    """What the engine needs to know of a model's folder."""

    vocabulary_size, context_length = VOCABULARY, CONTEXT


def a_model(**changes):
    return type("Changed", (FullModel,), changes)()


def connected(url, route, name=None, model=None, **given):
    return connect(model or a_model(), RemoteServer(url, route, name, **given), SLOTS)


def rows_of(engine, tokens, count=None):
    cache = engine.open()
    logits = engine.extend([Chunk(cache, tokens, len(tokens) if count is None else count)])
    engine.close(cache)
    return logits


def whole(tokens):
    """The rows themselves, by an engine like that behind the server."""
    return rows_of(RandomEngine(VOCABULARY, CONTEXT, seed=3), tokens)


def last_row(answer):
    choices = answer.get("choices")
    return answer["meta_info"]["output_top_logprobs"] if choices is None else choices[-1]["logprobs"]["top_logprobs"]
