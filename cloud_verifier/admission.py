"""What an ``Open`` must fulfil before a session is made of it. Pure."""

from __future__ import annotations

from speculation.engines.base import EngineDescription
from speculation.errors import FingerprintError, HandshakeError, InvalidRequestError
from speculation.logprobs import MAX_LOGPROBS
from speculation.protocol.messages import CHOICE_RULE, Open, PairIdentity


def check_identity(message: Open, identity: PairIdentity) -> None:
    """Raises ``HandshakeError`` where the two ends run other models; both sides' digests are named."""
    for name in ("tokenizer_digest", "pair_digest", "full_digest"):
        theirs, ours = getattr(message.identity, name), getattr(identity, name)
        if theirs != ours:
            what = name.removesuffix("_digest")
            raise HandshakeError(f"the device's {what} digest is {theirs}, the verifier's {ours}: both must run the same pair")


def check_handshake(message: Open, identity: PairIdentity, fingerprint: str) -> None:
    """Raises ``HandshakeError`` when the two ends would not choose the same tokens; what both sides have is named."""
    check_identity(message, identity)
    if message.choice_rule != CHOICE_RULE:
        raise HandshakeError(f"the device chooses by {message.choice_rule!r}, the verifier by {CHOICE_RULE!r}")
    if message.fingerprint and message.fingerprint != fingerprint:
        raise FingerprintError(
            f"the session began on a verifier with fingerprint {message.fingerprint}, this one has {fingerprint}:"
            " its arithmetic differs, so the text might"
        )


def check_request(message: Open, description: EngineDescription) -> None:
    """Raises ``InvalidRequestError`` when this model cannot serve the request."""
    if message.logprobs is not None:
        _check_logprobs(message.logprobs, description)
    context = description.context_length
    if message.generation_start >= context:
        raise InvalidRequestError(
            f"the prompt has {message.generation_start} tokens and leaves no room in a context of {context}", "prompt"
        )
    if message.limit > context:
        raise InvalidRequestError(
            f"a prompt of {message.generation_start} tokens and max_tokens {message.max_tokens} make {message.limit}:"
            f" the context length is {context}, so max_tokens may be at most {context - message.generation_start}",
            "max_tokens",
        )
    if len(message.prefix) > message.limit:
        raise InvalidRequestError(
            f"{len(message.prefix)} tokens of prefix are over their own limit of {message.limit}", "prefix"
        )
    unknown = next((token for token in message.prefix if token >= description.vocabulary_size), None)
    if unknown is not None:
        raise InvalidRequestError(f"there is no token id {unknown}: the vocabulary has {description.vocabulary_size}", "prefix")


def _check_logprobs(count: int, description: EngineDescription) -> None:
    if not 0 <= count <= MAX_LOGPROBS:
        raise InvalidRequestError(f"logprobs must be from 0 to {MAX_LOGPROBS}, not {count}", "logprobs")
    if not description.has_whole_rows:
        raise InvalidRequestError(
            "this verifier's full model is run by another server, which tells its likeliest tokens alone: leave logprobs out,"
            " or let it tell all of them (full_logprobs)",
            "logprobs",
        )
