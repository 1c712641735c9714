"""How often the draft guesses the next token of an answer as the documents have it, with and without looking there.

Along the documents' own text, as a full model would write it that quotes what it was given; so this is what documents in the
drafts can do at best, whatever the full model at hand makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.retrieval_questions import Question
from device_agent.build import DRAFT_VARIANT
from device_agent.drafting.quotes import Quotes
from device_agent.retrieval.embedder import Embedder
from device_agent.retrieval.passages import passages_of, text_of
from device_agent.retrieval.store import Store
from speculation.engines.base import Chunk
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Pair

COLUMNS = ("documents are", "weight of the documents", "first choice is right", "tokens in a row that are right, mean")


@dataclass(frozen=True, slots=True)
class Agreement:
    """One kind of document at one weight; 0 looks nowhere. ``in_a_row`` counts from each wrong token to the next."""

    kind: str
    share: float
    num_tokens: int
    agreement: float
    in_a_row: float

    def cells(self) -> list[str]:
        return [self.kind, f"{self.share:g}", f"{self.agreement:.3f}", f"{self.in_a_row:.1f}"]


@dataclass(frozen=True, slots=True)
class Path:
    """A prompt, the answer as its document has it, and what was found for the prompt; all in the pair's tokens."""

    prompt: Sequence[int]
    answer: Sequence[int]
    found: Sequence[int]


def paths(
    pair: Pair, store: Store, embedder: Embedder, questions: Sequence[Question], texts: Sequence[str], k: int, max_tokens: int
) -> list[Path]:
    """One a question; ``texts`` are its documents' texts."""
    encode = pair.draft.tokenizer.encode
    made = []
    for question, text in zip(questions, texts, strict=True):
        entry = encode(text[question.start : question.end].rstrip()).ids
        prompt = encode(question.prompt).ids
        found = text_of(passages_of(store.search(embedder.embed(question.prompt), k)))
        made.append(Path(prompt, entry[len(prompt) : len(prompt) + max_tokens], encode(found).ids))
    return made


def agreement(pair: Pair, kind: str, share: float, ways: Sequence[Path]) -> Agreement:
    """The draft model as the phone runs it, a token at a time, along every path."""
    engine, hits = OnnxEngine(pair.draft, DRAFT_VARIANT, num_slots=1), list[bool]()
    for path in ways:
        quotes = Quotes(path.found, share) if share else None
        cache, text, fed = engine.open(), list(path.prompt), list(path.prompt)
        for token in path.answer:
            row = engine.extend([Chunk(cache, fed, 1)])[0]
            if quotes is not None:
                quotes.blend(row, text)
            hits.append(int(row.argmax()) == token)
            text.append(token)
            fed = [token]
        engine.close(cache)
    num_wrong = hits.count(False)
    return Agreement(kind, share, len(hits), float(np.mean(hits)), (len(hits) - num_wrong) / (num_wrong + 1))
