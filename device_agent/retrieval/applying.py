"""What requests ask of the documents: found, judged (``policy.py``) and put where it may go, on a thread of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from device_agent.pair import PairFacts
from device_agent.prompts import Prompts
from device_agent.request import Mode, StreamRequest, TokenRequest
from speculation.engines.runner import JobThread
from speculation.errors import InvalidRequestError

if TYPE_CHECKING:
    from device_agent.retrieval.asking import Retrieve
    from device_agent.retrieval.documents import Hit
    from device_agent.retrieval.embedder import Embedder
    from device_agent.retrieval.store import Store


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A request with what was found: its prompt may be longer, its mode another. ``quotes`` are tokens that drafts may quote,
    ``told`` is what the client is told."""

    request: StreamRequest
    quotes: Sequence[int] = ()
    told: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Room:
    """What bounds a prompt: the models' contexts, and how many tokens are to be generated behind it."""

    pair: PairFacts
    prompts: Prompts
    max_tokens: int

    def num_tokens(self, request: StreamRequest) -> int:
        return len(self.prompts.encode(request.prompt, request.messages))

    def tokens_for(self, request: StreamRequest) -> int:
        stays = request.mode is Mode.DEVICE or request.is_private
        context = self.pair.draft_context_length if stays else self.pair.context_length
        return context - self.max_tokens


class Retrieval:
    """A store and its embedding model. ``shutdown`` ends its thread."""

    def __init__(self, store: Store, embedder: Embedder, drafts_may_leave: bool = False) -> None:
        store.check_model(embedder.digest)
        self._store = store
        self._embedder = embedder
        self._drafts_may_leave = drafts_may_leave
        self._thread = JobThread("retrieval")

    @classmethod
    def of(cls, path: Path, model: Path | None, drafts_may_leave: bool) -> Self:
        """Opens and loads; takes seconds. Raises ``ConfigurationError`` (the extra, or the model, is missing),
        ``InvalidRequestError`` (no store is there), ``PackageError``, ``StoreError``."""
        from device_agent.retrieval.embedder import Embedder, model_folder
        from device_agent.retrieval.store import Store

        store = Store(path)
        try:
            return cls(store, Embedder(model_folder(model)), drafts_may_leave)
        except BaseException:
            store.close()
            raise

    def shutdown(self) -> None:
        self._thread.shutdown()
        self._store.close()

    async def retrieve(self, request: StreamRequest, asked: Retrieve, room: Room) -> Retrieved:
        """Raises ``PrivateTextError`` where the policy forbids it, ``StoreError``, ``EngineError``."""
        found: Retrieved = await self._thread.submit(partial(self.found_for, request, asked, room))
        return found

    def found_for(self, request: StreamRequest, asked: Retrieve, room: Room) -> Retrieved:
        """As ``retrieve``, computed here and now."""
        from device_agent.retrieval import passages, policy
        from device_agent.retrieval.documents import Label

        question = request.messages[-1].content if request.messages else request.prompt
        vector = self._embedder.embed(question)
        best = self._store.search(vector, asked.k)
        finds_private = any(hit.label is Label.PRIVATE for hit in best)
        verdict = policy.judge(request, asked, finds_private, self._drafts_may_leave)
        request = replace(request, mode=verdict.mode, privacy=verdict.privacy)
        before = self._store.search(vector, asked.k, verdict.prompt)
        quoted = self._store.search(vector, asked.k, verdict.drafts)
        room_bytes = room.prompts.max_bytes
        before = passages.that_fit(request, before, room.num_tokens, room.tokens_for(request), room_bytes)
        num_withheld = sum(hit.label not in verdict.prompt | verdict.drafts for hit in best)
        told = _told(before, quoted) | {"withheld": num_withheld}
        quotes = room.pair.encode(passages.text_of(passages.passages_of(quoted))) if quoted else ()
        return Retrieved(passages.with_passages(request, passages.passages_of(before)), quotes, told)


async def applied(
    documents: Retrieval | None, request: StreamRequest, pair: PairFacts, prompts: Prompts, default_max_tokens: int
) -> Retrieved:
    """What the request asks of the documents, done. Raises ``InvalidRequestError`` where the agent has none."""
    asked = request.retrieve
    if asked is None:
        return Retrieved(request)
    if documents is None:
        raise InvalidRequestError(
            "this agent has no documents: start it with a store (rag_store), or leave retrieve out", "retrieve"
        )
    if isinstance(request, TokenRequest):
        raise InvalidRequestError("documents are found for a text: give the prompt as one, or leave retrieve out", "retrieve")
    prompts.check_size(request)
    return await documents.retrieve(request, asked, Room(pair, prompts, request.max_tokens or default_max_tokens))


def _told(before: Sequence[Hit], quoted: Sequence[Hit]) -> dict[str, Any]:
    """Which chunks were used, and for what."""
    used = {(hit.document, hit.span): hit for hit in [*before, *quoted]}
    chunks = [
        {
            "document": hit.document,
            "label": hit.label.value,
            "start": hit.span.start,
            "end": hit.span.end,
            "score": hit.score,
            "in_prompt": hit in before,
            "in_drafts": hit in quoted,
        }
        for hit in used.values()
    ]
    return {"chunks": chunks}
