"""Laws of the engine seam (``speculation/engines/base.py``), for every engine there is. All comparisons are of bits, but where
ONNX Runtime's own 4-bit product does not keep them on the processor at hand: there the 4-bit graph has a tolerance."""

import numpy as np
import pytest

from speculation.engines.base import Chunk, Forkable
from speculation.engines.blended import BlendedEngine
from speculation.engines.exports import ExportFolder
from speculation.engines.fitted import fitted
from speculation.engines.handover import HandOver
from speculation.engines.lookup import LookupEngine
from speculation.engines.onnx import OnnxEngine
from speculation.engines.random import RandomEngine
from speculation.engines.remote import ALL_LOGPROBS, RemoteEngine, RemoteServer, connect
from speculation.engines.remote_routes import ROUTES
from speculation.engines.stock import StockEngine
from speculation.errors import CacheClosedError, CapacityError, InvalidRequestError
from tests.speculation.engines.stock_graphs import HALF, export_folder, genai_folder, split_graphs
from tests.speculation.engines.tiny import TINY, convolve_all, group_all, tiny_package, token_ids
from tests.support.processor import gives_rows_alike
from tests.support.served_model import ServedModel, serving

CONTEXT, VOCABULARY, SLOTS = TINY["max_position_embeddings"], TINY["vocab_size"], 4
TOKENS = token_ids(CONTEXT, seed=5)
REMOTE = tuple(f"remote {route}" for route in ROUTES)
EXPORTED = ("plain", "older", "half", "gqa half", "turned", "gqa", "gqa alone", "genai", "single", "single gqa", "split", "one")
GROUPED = ("grouped fp32", "grouped q4", "grouped i8", "grouped fp32_kv16")
CONVOLVED = ("convolved", "convolved plain", "convolved gqa", "convolved genai")
COMPUTING = (*GROUPED, *CONVOLVED, "fp32", "fp32_kv16", "q4", "i8", "random", "fitted", "blended", *EXPORTED, *REMOTE)
ROUNDING = 0.1
"""Of a few activations to a neighbouring 8-bit level."""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Exports of the package's weights, by what is particular about them."""
    folder = tmp_path_factory.mktemp("exports")
    graphs = {"model.onnx": {}, "model_gqa.onnx": {"attention": "gqa"}, "model_half.onnx": {"cache": HALF}}
    graphs |= {
        "model_gqa_half.onnx": {"attention": "gqa", "cache": HALF},
        "model_turned.onnx": {"attention": "gqa of turned rows"},
        "decoder_model_merged_older.onnx": {},
        **split_graphs("_split"),
        **split_graphs("_one", num_tokens=1),
    }
    return ExportFolder(export_folder(folder / "hub", graphs=graphs)), ExportFolder(genai_folder(folder / "genai"))


def of_export(kind, exports):
    hub, genai = exports
    if kind == "genai":
        return genai.engine("genai", SLOTS, 1)
    own = {"plain": "fp32", "older": "older", "half": "half", "single": "half", "gqa half": "gqa_half"}
    own |= {kind: kind for kind in ("turned", "split", "one")}
    variant = own.get(kind, "gqa")
    engine = hub.engine(variant, SLOTS, 1)
    if kind == "gqa alone":
        engine = StockEngine(hub.graph(variant), engine.description)
    if kind.startswith("single"):
        engine.run_singly()
    return engine


@pytest.fixture(scope="module")
def served():
    """The address of a server that gives all log-probabilities; it takes a token less than its context holds."""
    with serving(ServedModel(RandomEngine(VOCABULARY, CONTEXT + 1, seed=3), CONTEXT + 1, max_logprobs=-1)) as url:
        yield url


@pytest.fixture(
    params=["fp32", "fp32_kv16", "q4", "i8", "random", "lookup", "blended", "fitted", *GROUPED, *CONVOLVED, *EXPORTED, *REMOTE]
)
def engine(request, package, exports, monkeypatch):
    if request.param in REMOTE:
        server = RemoteServer(request.getfixturevalue("served"), request.param.split()[1], num_logprobs=ALL_LOGPROBS)
        return connect(package, server, SLOTS)
    if request.param in EXPORTED:
        return of_export(request.param, exports)
    if request.param == "fitted":
        return fitted(RandomEngine(VOCABULARY + 8, CONTEXT, seed=3, num_slots=SLOTS), VOCABULARY)
    if request.param in ("q4", "grouped q4") and not gives_rows_alike():
        monkeypatch.setitem(globals(), "same", close)
    if request.param == "random":
        return RandomEngine(VOCABULARY, CONTEXT, seed=3, num_slots=SLOTS)
    if request.param == "lookup":
        return LookupEngine(VOCABULARY, CONTEXT, num_slots=SLOTS)
    if request.param == "blended":
        return BlendedEngine(OnnxEngine(package, "fp32", num_slots=SLOTS), share=0.5)
    if request.param in GROUPED:
        group_all(monkeypatch)
        engine = OnnxEngine(package, request.param.partition(" ")[2], num_slots=SLOTS)
        assert engine.is_grouping
        return engine
    if request.param in CONVOLVED:
        convolve_all(monkeypatch)
        kind = request.param.partition(" ")[2]
        engine = of_export(kind, exports) if kind else OnnxEngine(package, "fp32", num_slots=SLOTS)
        assert engine.is_convolved
        return engine
    return OnnxEngine(package, request.param, num_slots=SLOTS)


def extend(engine, cache, tokens, num_logits=None):
    return engine.extend([Chunk(cache, tokens, len(tokens) if num_logits is None else num_logits)])


def fresh(engine, tokens):
    """Logits of all tokens at once, from a cache of their own."""
    cache = engine.open()
    logits = extend(engine, cache, tokens)
    engine.close(cache)
    return logits


def same(left, right):
    return left.shape == right.shape and left.tobytes() == right.tobytes()


def close(left, right):
    """Other tokens' logits are further apart than that by far."""
    return left.shape == right.shape and (np.abs(left - right) < ROUNDING).all()


@pytest.mark.parametrize(
    "cuts", [[1], [2], [31, 32, 33], [1, 34], [65], [95], list(range(1, CONTEXT)), list(range(0, CONTEXT, 7))]
)
def test_tokens_in_pieces_give_the_logits_of_tokens_at_once(engine, cuts):
    whole, cache = fresh(engine, TOKENS), engine.open()
    pieces = [extend(engine, cache, TOKENS[a:b]) for a, b in zip([0, *cuts], [*cuts, CONTEXT], strict=True) if a < b]
    assert same(np.concatenate(pieces), whole)


@pytest.mark.parametrize(("filled", "length", "again"), [(40, 20, 30), (33, 0, 33), (66, 65, 1), (7, 6, 3), (96, 31, 65)])
def test_truncate_then_extend_equals_fresh(engine, filled, length, again):
    cache = engine.open()
    extend(engine, cache, TOKENS[:length] + token_ids(filled - length, seed=9), 0)
    engine.truncate(cache, length)
    assert engine.length(cache) == length
    logits = extend(engine, cache, TOKENS[length : length + again])
    assert same(logits, fresh(engine, TOKENS[: length + again])[length:])


def test_a_session_in_a_batch_equals_the_session_alone(engine):
    lanes = [token_ids(n, seed=n) for n in (33, 1, 12)]
    alone = [fresh(engine, tokens) for tokens in lanes]
    caches = [engine.open() for _ in lanes]
    together = engine.extend([Chunk(c, tokens, len(tokens)) for c, tokens in zip(caches, lanes, strict=True)])
    assert same(together, np.concatenate(alone))


def test_the_order_of_chunks_is_the_order_of_the_logits(engine):
    caches = [engine.open() for _ in range(3)]
    chunks = [Chunk(caches[2], TOKENS[:5], 2), Chunk(caches[0], TOKENS[5:8], 0), Chunk(caches[1], TOKENS[8:9], 1)]
    logits = engine.extend(chunks)
    wanted = [fresh(engine, TOKENS[:5])[3:], fresh(engine, TOKENS[8:9])]
    assert same(logits, np.concatenate(wanted))


def test_idle_caches_between_those_of_a_pass_stay_as_they_are(engine):
    caches = [engine.open() for _ in range(3)]
    for cache in caches:
        extend(engine, cache, TOKENS[:9], 0)
    engine.extend([Chunk(caches[0], TOKENS[9:80], 0), Chunk(caches[2], TOKENS[9:10], 0)])
    assert [engine.length(cache) for cache in caches] == [80, 9, 10]
    assert same(extend(engine, caches[1], TOKENS[9:20]), fresh(engine, TOKENS[:20])[9:])


def test_a_long_prefill_shares_a_pass_with_a_session_near_its_end(engine):
    old, new = engine.open(), engine.open()
    extend(engine, old, TOKENS[: CONTEXT - 1], 0)
    logits = engine.extend([Chunk(old, TOKENS[-1:], 1), Chunk(new, TOKENS, 1)])
    last = fresh(engine, TOKENS)[-1:]
    assert same(logits, np.concatenate([last, last]))


@pytest.mark.parametrize("length", [None, 0, 1, 17])
def test_a_fork_equals_its_parent(engine, length):
    assert isinstance(engine, Forkable)
    parent = engine.open()
    extend(engine, parent, TOKENS[:18], 0)
    child = engine.fork(parent, length)
    start = 18 if length is None else length
    assert engine.length(child) == start
    assert same(extend(engine, child, TOKENS[start:40]), fresh(engine, TOKENS[:40])[start:])


def test_a_fork_and_its_parent_go_their_own_ways(engine):
    parent = engine.open()
    extend(engine, parent, TOKENS[:18], 0)
    child, other = engine.fork(parent), token_ids(5, seed=8)
    extend(engine, child, other, 0)
    extend(engine, parent, TOKENS[18:22], 0)
    assert same(extend(engine, child, TOKENS[:3]), fresh(engine, TOKENS[:18] + other + TOKENS[:3])[23:])
    assert same(extend(engine, parent, TOKENS[22:30]), fresh(engine, TOKENS[:30])[22:])


@pytest.mark.parametrize("count", [1, 20])
def test_logits_stay_as_they_were_when_the_engine_goes_on(engine, count):
    cache = engine.open()
    first = extend(engine, cache, TOKENS[:count])
    kept = first.copy()
    for start in range(count, 4 * count, count):
        extend(engine, cache, TOKENS[start : start + count])
    assert same(first, kept)


def test_a_used_place_leaves_no_trace(engine):
    wanted = fresh(engine, TOKENS[:30])
    caches = [engine.open() for _ in range(SLOTS)]
    for cache in caches:
        extend(engine, cache, token_ids(CONTEXT, seed=int(cache)), 0)
        engine.close(cache)
    assert same(fresh(engine, TOKENS[:30]), wanted)


def test_rows_that_nobody_wants_are_not_given(engine):
    cache = engine.open()
    assert extend(engine, cache, TOKENS[:7], 0).shape == (0, VOCABULARY)
    assert engine.extend([]).shape == (0, VOCABULARY)
    assert same(extend(engine, cache, TOKENS[7:12], 2), fresh(engine, TOKENS[:12])[10:])


def test_random_walks_equal_fresh_runs(engine):
    """Open, extend in batches, cut, fork and close at random; each row must be that of its prefix alone."""
    rng = np.random.default_rng(0)
    texts = {}
    # Every row of a remote engine is a few hundred entries of JSON.
    for _ in range(15 if isinstance(engine, RemoteEngine) else 60):
        if len(texts) < SLOTS - 1 and rng.random() < 0.4:
            parent = rng.choice(list(texts)) if texts and rng.random() < 0.5 else None
            texts[engine.open() if parent is None else engine.fork(parent)] = [] if parent is None else list(texts[parent])
        chunks = []
        for cache, text in texts.items():
            kept = int(rng.integers(0, len(text) + 1)) if rng.random() < 0.3 else len(text)
            engine.truncate(cache, kept)
            del text[kept:]
            count = min(int(rng.choice([0, 1, 2, 5, 33, 65])), CONTEXT - len(text))
            if count:
                chunks.append(
                    Chunk(cache, [int(t) for t in rng.integers(0, VOCABULARY, count)], int(rng.integers(0, count + 1)))
                )
        logits, rows = engine.extend(chunks), []
        for chunk in chunks:
            texts[chunk.cache] += chunk.token_ids
            rows.append(fresh(engine, texts[chunk.cache])[len(texts[chunk.cache]) - chunk.num_logits :])
        assert same(logits, np.concatenate(rows) if rows else logits)
        if texts and rng.random() < 0.2:
            closed = next(iter(texts))
            engine.close(closed)
            del texts[closed]


def test_a_closed_cache_is_a_typed_error(engine):
    cache = engine.open()
    engine.close(cache)
    uses = [engine.length, engine.close, engine.fork, lambda c: engine.truncate(c, 0), lambda c: extend(engine, c, [1])]
    for use in uses:
        with pytest.raises(CacheClosedError, match=str(cache)):
            use(cache)


def test_a_cache_is_not_mistaken_for_the_one_that_took_its_place(engine):
    first = engine.open()
    engine.close(first)
    second = engine.open()
    assert first != second


def test_too_many_caches_are_refused(engine):
    caches = [engine.open() for _ in range(SLOTS)]
    with pytest.raises(CapacityError, match=str(SLOTS)):
        engine.open()
    with pytest.raises(CapacityError):
        engine.fork(caches[0])
    engine.close(caches[1])
    assert engine.length(engine.open()) == 0


@pytest.mark.parametrize("filled", [0, 1, 90, CONTEXT])
def test_a_chunk_that_does_not_fit_changes_no_cache(engine, filled):
    full, other = engine.open(), engine.open()
    if filled:
        extend(engine, full, TOKENS[:filled], 0)
    extend(engine, other, TOKENS[:4], 0)
    too_long = token_ids(CONTEXT - filled + 1)
    with pytest.raises(CapacityError, match=str(CONTEXT)):
        engine.extend([Chunk(other, TOKENS[4:6], 1), Chunk(full, too_long, 1)])
    assert [engine.length(full), engine.length(other)] == [filled, 4]
    assert same(extend(engine, other, TOKENS[4:9]), fresh(engine, TOKENS[:9])[4:])


@pytest.mark.parametrize(
    ("tokens", "num_logits"),
    [([], 0), ([1, 2], 3), ([1, 2], -1), ([VOCABULARY], 1), ([3, -1], 1)],
    ids=["empty", "too many rows", "fewer rows than none", "token beyond the vocabulary", "negative token"],
)
def test_a_chunk_that_means_nothing_is_refused_and_changes_no_cache(engine, tokens, num_logits):
    good, bad = engine.open(), engine.open()
    with pytest.raises(InvalidRequestError):
        engine.extend([Chunk(good, TOKENS[:3], 1), Chunk(bad, tokens, num_logits)])
    assert [engine.length(good), engine.length(bad)] == [0, 0]


def test_a_cache_stands_in_one_chunk_only(engine):
    cache = engine.open()
    with pytest.raises(InvalidRequestError, match="one chunk"):
        engine.extend([Chunk(cache, [1], 1), Chunk(cache, [2], 1)])
    assert engine.length(cache) == 0


@pytest.mark.parametrize("length", [-1, 6])
def test_a_cache_cannot_be_cut_to_what_it_has_not(engine, length):
    cache = engine.open()
    extend(engine, cache, TOKENS[:5], 0)
    with pytest.raises(InvalidRequestError, match="5"):
        engine.truncate(cache, length)
    with pytest.raises(InvalidRequestError, match="5"):
        engine.fork(cache, length)
    assert engine.length(cache) == 5


def test_whoever_waits_for_the_interpreter_is_told_when_the_engine_computes(engine, request):
    if request.node.callspec.params["engine"] not in COMPUTING:
        pytest.skip("a few microseconds of Python: there is nothing to compute beside")
    caches, hand_over = [engine.open() for _ in range(2)], HandOver()
    hand_over.take()
    engine.extend([Chunk(cache, TOKENS[:3], 1) for cache in caches])
    assert hand_over.is_over
