"""What documents on the device do for an answer: its drafts, and how much of it is in them.

    python -m benchmarks.retrieval [--quick] [--json FILE] [--fill PAGE]

The bundled pair on an emulated phone, network and cloud, agent and verifier in production form under the virtual clock, with
the published embedding model (extra ``rag``; without it nothing is measured, and that is said). Documents are docstrings of
Python's standard library, some of which the pair has learned from and some not (``retrieval_questions.py``).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Self

from rich.progress import Progress, track

from benchmarks.report import Grid, add_arguments, publish_blocks
from benchmarks.retrieval_agreement import COLUMNS, Agreement, agreement, paths
from benchmarks.retrieval_questions import Page, Question, pages
from benchmarks.virtual import Bench, Setting
from device_agent.events import DoneEvent
from device_agent.request import Mode, StreamRequest
from device_agent.retrieval.applying import Retrieval, Retrieved, Room
from device_agent.retrieval.asking import DEFAULT_CHUNKS, Into, Retrieve
from device_agent.retrieval.documents import Cut, Label
from device_agent.retrieval.embedder import Embedder, model_folder
from device_agent.retrieval.indexing import Tell, add
from device_agent.retrieval.store import Store
from speculation.engines.package import load_pair
from speculation.errors import ConfigurationError

BLOCK, AGREEMENT_BLOCK = "retrieval", "retrieval-agreement"
ANSWERS, AGREEMENT = "answers", "agreement"
NEW, LEARNED = "new to the pair", "learned from"
MAX_TOKENS, GRAM, SEED = 64, 4, 1
RANKS = (1, 2, 4, 8)
ANSWER_COLUMNS = (
    "documents are",
    "temperature",
    "they go",
    "acceptance",
    "passes a token",
    "tokens/s",
    f"{GRAM}-grams in the document",
    "longest run in it, tokens",
)


@dataclass(frozen=True, slots=True)
class Way:
    """How a question is answered; ``share`` is the documents' weight in the drafts."""

    name: str
    retrieve: Retrieve | None = None
    share: float = 0.0
    mode: Mode = Mode.COLLABORATE


WAYS = (
    Way("nowhere"),
    Way("into the drafts", Retrieve(into=Into.DRAFTS), 0.2),
    Way("into the prompt", Retrieve()),
    Way("into the prompt and the drafts", Retrieve(), 0.2),
    Way("nowhere; device alone", mode=Mode.DEVICE),
    Way("into the prompt; device alone", Retrieve(), mode=Mode.DEVICE),
)


@dataclass(frozen=True, slots=True)
class Part:
    """How much is run: all, or, to see that it works, little."""

    temperatures: tuple[float, ...] = (0.0, 0.8)
    ways: tuple[Way, ...] = WAYS
    num_questions: int = 24
    shares: tuple[float, ...] = (0.0, 0.05, 0.2, 0.4)
    num_pages: int = 20
    num_others: int = 60


LITTLE = Part((0.0,), (WAYS[0], WAYS[3]), num_questions=2, shares=(0.0, 0.2), num_pages=2, num_others=0)


@dataclass(frozen=True, slots=True)
class Answered:
    """One way at one temperature, over all questions of a kind; figures of drafts are None where nobody verified."""

    kind: str
    temperature: float
    way: str
    num_questions: int
    acceptance: float | None
    passes_per_token: float | None
    tokens_per_s: float
    overlap: float
    longest_run: float

    def cells(self) -> list[str]:
        drafts = [_or_none(self.acceptance, ".3f"), _or_none(self.passes_per_token, ".3f")]
        return [
            self.kind,
            f"{self.temperature:g}",
            self.way,
            *drafts,
            f"{self.tokens_per_s:.1f}",
            f"{self.overlap:.2f}",
            f"{self.longest_run:.1f}",
        ]


class Inline(Retrieval):
    """Retrieval that takes no time of the virtual clock, and outlives its agents."""

    async def retrieve(self, request: StreamRequest, asked: Retrieve, room: Room) -> Retrieved:
        return self.found_for(request, asked, room)

    def shutdown(self) -> None:
        """Its store is used again."""


def store_of(folder: Path, embedder: Embedder, written: Sequence[Page]) -> Store:
    """A shared store of some pages."""
    texts = folder / "docs"
    texts.mkdir()
    for page in written:
        (texts / page.name).write_text(page.text, "utf-8")
    store = Store.create(folder / "store.db", embedder.digest, embedder.dimension, Cut())
    with track_files(len(written)) as tell:
        add(store, embedder, [texts], Label.SHARED, tell)
    return store


def recalls(store: Store, embedder: Embedder, questions: Sequence[Question]) -> dict[int, float]:
    """By number of chunks: the share of questions that find a chunk of their own entry among so many."""
    places = [_place(store, embedder, question) for question in questions]
    return {rank: mean(place is not None and place < rank for place in places) for rank in RANKS}


def _place(store: Store, embedder: Embedder, question: Question) -> int | None:
    hits = store.search(embedder.embed(question.prompt), max(RANKS))
    for place, hit in enumerate(hits):
        is_own = hit.document == f"docs/{question.name}"
        if is_own and hit.span.start < question.end and question.start < hit.span.end:
            return place
    return None


@dataclass(frozen=True, slots=True)
class Asked:
    """Questions of one kind, and the texts of their documents by name."""

    kind: str
    questions: Sequence[Question]
    texts: Mapping[str, str]

    @classmethod
    def of(cls, kind: str, written: Sequence[Page], count: int) -> Self:
        questions = [question for page in written for question in page.questions][:count]
        return cls(kind, questions, {page.name: page.text for page in written})


def answered(bench: Bench, way: Way, temperature: float, asked: Asked) -> Answered:
    """One row."""
    questions, texts = asked.questions, asked.texts
    requests = [
        StreamRequest(question.prompt, MAX_TOKENS, temperature, seed=SEED, mode=way.mode, retrieve=way.retrieve)
        for question in questions
    ]
    answers = bench.run(Setting(agent={"rag_draft_share": way.share}), requests)
    tokenizer = bench.pair.full.tokenizer
    grown = [overlap(done.token_ids, tokenizer.encode(texts[q.name]).ids) for done, q in zip(answers, questions, strict=True)]
    is_verified = way.mode is not Mode.DEVICE
    passes = sum(done.usage["passes"] for done in answers) / sum(len(done.token_ids) for done in answers)
    return Answered(
        asked.kind,
        temperature,
        way.name,
        len(questions),
        _figure(answers, "acceptance") if is_verified else None,
        passes if is_verified else None,
        _figure(answers, "tokens_per_s") or 0.0,
        mean(share for share, _ in grown),
        mean(longest for _, longest in grown),
    )


def overlap(answer: Sequence[int], document: Sequence[int]) -> tuple[float, int]:
    """The share of an answer's 4-grams that are in a document, and its longest run of tokens that is."""
    grams = [tuple(answer[i : i + GRAM]) for i in range(len(answer) - GRAM + 1)]
    known = {tuple(document[i : i + GRAM]) for i in range(len(document) - GRAM + 1)}
    return (sum(gram in known for gram in grams) / len(grams) if grams else 0.0), _longest_run(answer, document)


def _longest_run(answer: Sequence[int], document: Sequence[int]) -> int:
    longest, row = 0, [0] * (len(document) + 1)
    for token in answer:
        row = [0, *(row[i] + 1 if token == other else 0 for i, other in enumerate(document))]
        longest = max(longest, *row)
    return longest


def _figure(answers: Sequence[DoneEvent], name: str) -> float | None:
    values = [done.figures[name]["value"] for done in answers if done.figures[name]["value"] is not None]
    return mean(values) if values else None


def _or_none(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


@contextmanager
def track_files(count: int) -> Iterator[Tell]:
    """A progress bar over files, as ``add`` tells it."""
    with Progress(transient=True) as progress:
        task = progress.add_task("documents", total=count)
        yield lambda name, done, total: progress.update(task, completed=done)


@dataclass(frozen=True, slots=True)
class Result:
    """All that was found; ``recall`` by kind of question."""

    rows: Sequence[Answered]
    agreements: Sequence[Agreement]
    recall: Mapping[str, Mapping[int, float]]
    num_chunks: int

    def blocks(self) -> dict[str, list[Grid]]:
        """The tables that were made, by the block of a page that they fill."""
        made = {BLOCK: self._grids() if self.rows else [], AGREEMENT_BLOCK: self._agreement() if self.agreements else []}
        return {block: grids for block, grids in made.items() if grids}

    def _agreement(self) -> list[Grid]:
        title = "Measured: the draft along the answers as the documents have them"
        counts = " and ".join(sorted({str(row.num_tokens) for row in self.agreements}))
        return [Grid(f"{title} ({counts} tokens)", COLUMNS, [row.cells() for row in self.agreements])]

    def _grids(self) -> list[Grid]:
        count = self.rows[0].num_questions
        title = f"Emulated: {count} questions a row whose answers are in the documents, {MAX_TOKENS} tokens each"
        answers = Grid(f"{title}, by the bundled pair", ANSWER_COLUMNS, [row.cells() for row in self.rows])
        recall = Grid(
            f"Measured: questions that find a chunk of their own entry among {self.num_chunks}",
            ["documents are", *(f"among the first {rank}" for rank in RANKS)],
            [[kind, *(f"{share:.2f}" for share in shares.values())] for kind, shares in self.recall.items()],
        )
        return [answers, recall]


def run(part: Part, tables: Sequence[str]) -> Result:
    """Raises ``ConfigurationError`` where the extra or the embedding model is not here."""
    embedder = Embedder(model_folder(None))
    held_out, others = pages(part.num_others)
    held_out = held_out[: part.num_pages]
    kinds = [Asked.of(NEW, held_out, part.num_questions), Asked.of(LEARNED, others, part.num_questions)]
    asked = [kind for kind in kinds if kind.questions]
    with tempfile.TemporaryDirectory() as folder, store_of(Path(folder), embedder, [*held_out, *others]) as store:
        rows = answers(part, asked, Inline(store, embedder)) if ANSWERS in tables else []
        agreements = agreements_of(part, asked, store, embedder) if AGREEMENT in tables else []
        num_chunks = sum(entry.num_chunks for entry in store.entries())
        recall = {kind.kind: recalls(store, embedder, kind.questions) for kind in asked}
        return Result(rows, agreements, recall, num_chunks)


def agreements_of(part: Part, asked: Sequence[Asked], store: Store, embedder: Embedder) -> list[Agreement]:
    """Every kind at every weight."""
    pair, rows = load_pair(), list[Agreement]()
    for kind in asked:
        texts = [kind.texts[question.name] for question in kind.questions]
        ways = paths(pair, store, embedder, kind.questions, texts, DEFAULT_CHUNKS, MAX_TOKENS)
        rows += [agreement(pair, kind.kind, share, ways) for share in track(part.shares, kind.kind, transient=True)]
    return rows


def answers(part: Part, asked: Sequence[Asked], documents: Retrieval) -> list[Answered]:
    """Every way, at every temperature, of every kind."""
    bench = Bench(Setting())
    bench.documents = documents
    cells = [
        (kind, temperature, way)
        for kind in asked
        for temperature in part.temperatures
        for way in part.ways
        if kind.kind == NEW or way.mode is Mode.COLLABORATE
    ]
    return [answered(bench, way, t, kind) for kind, t, way in track(cells, "ways", transient=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--table", choices=(ANSWERS, AGREEMENT), help="only this one of the two")
    arguments = parser.parse_args()
    tables = [arguments.table] if arguments.table else [ANSWERS, AGREEMENT]
    try:
        result = run(LITTLE if arguments.quick else Part(), tables)
    except ConfigurationError as missing:
        print(f"nothing is measured: {missing}")
        return
    publish_blocks(arguments, result.blocks(), asdict(result))


if __name__ == "__main__":
    main()
