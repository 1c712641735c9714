"""What of a store may go where. Pure: ``docs/retrieval.md`` has it as a table.

The verifier sees the prompt and every draft. So text of a private document goes into neither, unless the device's owner has
said that drafts may leave: then it may be seen piece by piece, where it was guessed, and no prompt holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from device_agent.privacy import Privacy
from device_agent.request import Mode, Reveal, StreamRequest
from device_agent.retrieval.asking import Into, Private, Retrieve
from device_agent.retrieval.documents import Label
from speculation.errors import PrivateTextError

ALL, SHARED, NONE = frozenset(Label), frozenset({Label.SHARED}), frozenset[Label]()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who writes, whether anything of the request may leave from here on, and the documents of which labels go before the
    prompt and into the drafts."""

    mode: Mode
    privacy: Privacy
    prompt: frozenset[Label]
    drafts: frozenset[Label]


def judge(request: StreamRequest, asked: Retrieve, finds_private: bool, drafts_may_leave: bool) -> Verdict:
    """What is done with what was found. Raises ``PrivateTextError`` where it would take private text off the device.

    A request that gets private text before its prompt is labelled ``device_only``, as its client could have labelled it.
    """
    mode, reveal = request.mode, request.reveal
    if mode is Mode.DEVICE or request.is_private:
        return Verdict(mode, Privacy.DEVICE_ONLY if finds_private else request.privacy, ALL, NONE)
    before, quoted = SHARED if asked.into is Into.PROMPT else NONE, NONE if mode is Mode.CLOUD else SHARED
    shared = Verdict(mode, request.privacy, before, quoted)
    if not finds_private or asked.private is Private.WITHHOLD:
        return shared
    if asked.private is Private.DRAFTS:
        return _with_private_drafts(shared, drafts_may_leave)
    if mode is Mode.CLOUD or reveal is Reveal.FINAL:
        why = "mode cloud" if mode is Mode.CLOUD else "reveal final"
        raise PrivateTextError(
            f"what answers best is private, and {why} needs the verifier: ask in mode device (reveal all or stable), or set"
            ' retrieve.private to "withhold"',
            "retrieve",
        )
    return Verdict(Mode.DEVICE, Privacy.DEVICE_ONLY, ALL, NONE)


def _with_private_drafts(shared: Verdict, drafts_may_leave: bool) -> Verdict:
    if not drafts_may_leave:
        raise PrivateTextError(
            "drafts from private documents would be seen by the verifier, and this agent keeps them: set rag_drafts_may_leave"
            ' there, or set retrieve.private to "device" or "withhold"',
            "retrieve",
        )
    if shared.mode is Mode.CLOUD:
        raise PrivateTextError('mode cloud drafts nothing: set retrieve.private to "withhold"', "retrieve")
    return replace(shared, drafts=ALL)
