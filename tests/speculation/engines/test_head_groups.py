"""Query heads of a group as rows of one head: which sessions have them, where everything stands, and that no bit changes."""

import numpy as np
import onnx
import pytest

from speculation.engines import bindings, self_test
from speculation.engines import onnx as onnx_engine
from speculation.engines.base import Chunk
from speculation.engines.convert import Conversion, convert
from speculation.engines.files import read_graph
from speculation.engines.grouping import group_heads, groups_of
from speculation.engines.head_groups import TOKENS_BOUND, HeadGroups, rows_of
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, load_pair
from speculation.engines.packing import pack
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint
from tests.speculation.engines.test_graph import FLOAT32_TOLERANCE, relative_difference
from tests.speculation.engines.tiny import OneRowEngine, convolve_all, group_all, reference_logits, tiny_package, token_ids

SLOTS, CONTEXT, PASSES = 4, 200, 60
SHAPES = [(4, 2), (3, 1), (8, 2), (7, 1), (6, 2), (5, 1)]


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    group_all(monkeypatch)


def package_of(path, heads, kv_heads, **overrides):
    shape = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "max_position_embeddings": CONTEXT}
    return tiny_package(path, **(shape | overrides))


def alike(package, variant="fp32", **options):
    """Two engines of a package, of which the second groups no heads."""
    grouping, plain = (OnnxEngine(package, variant, **{"num_slots": SLOTS, **options}) for _ in range(2))
    plain.group_heads(False)
    assert (grouping.is_grouping, plain.is_grouping) == (True, False)
    return grouping, plain


def walk(engines, seed, passes=PASSES):
    """The logits of passes in which sessions come, go on by few tokens or many, roll back, fork and end."""
    rng = np.random.default_rng(seed)
    caches = [[engine.open() for engine in engines] for _ in range(SLOTS - 1)]
    for _ in range(passes):
        chunks = [[] for _ in engines]
        for lane in caches:
            if rng.random() < 0.3:
                for engine, cache in zip(engines, lane, strict=True):
                    engine.truncate(cache, engine.length(cache) * 2 // 3)
            room = CONTEXT - engines[0].length(lane[0])
            count = min(int(rng.choice([1, 1, 1, 2, 3, 4, 5, 9, 40])), room)
            if count and rng.random() < 0.8:
                tokens, wanted = token_ids(count, int(rng.integers(1 << 30))), int(rng.integers(0, count + 1))
                for found, cache in zip(chunks, lane, strict=True):
                    found.append(Chunk(cache, tokens, wanted))
        yield [engine.extend(found) for engine, found in zip(engines, chunks, strict=True)]
        if rng.random() < 0.2:
            lane = caches.pop(int(rng.integers(len(caches))))
            caches.append([engine.fork(cache) for engine, cache in zip(engines, lane, strict=True)])
            for engine, cache in zip(engines, lane, strict=True):
                engine.close(cache)


@pytest.mark.parametrize("variant", ["fp32", "q4", "i8"])
@pytest.mark.parametrize(("heads", "kv_heads"), SHAPES)
def test_rows_come_out_the_same_bit_for_bit(tmp_path, heads, kv_heads, variant):
    engines = alike(package_of(tmp_path, heads, kv_heads, variants=("fp32", "q4", "i8")), variant)
    packings = set()
    for found, wanted in walk(engines, seed=heads):
        np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))
        packings.add(engines[0]._last._packing)
    grouped = [packing for packing in packings if packing is not None and packing.grouped.shares]
    assert len(grouped) > PASSES / 3
    assert any(any(packing.rows) for packing in grouped), "in some passes both nodes have rows"


def test_rows_of_convolved_models_come_out_the_same(tmp_path, monkeypatch):
    convolve_all(monkeypatch)
    engines = alike(package_of(tmp_path, 4, 2))
    assert all(engine.is_convolved for engine in engines)
    for found, wanted in walk(engines, seed=1):
        np.testing.assert_array_equal(found, wanted)


def test_rows_come_out_the_same_where_linear_layers_get_pairs(tmp_path):
    engines = alike(package_of(tmp_path, 4, 2))
    for engine in engines:
        engine.pair_rows(True)
    for found, wanted in walk(engines, seed=2):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("heads", "kv_heads"), SHAPES)
def test_logits_are_those_of_a_plain_forward(tmp_path, heads, kv_heads):
    package = package_of(tmp_path, heads, kv_heads)
    engine, tokens = OnnxEngine(package, num_slots=1), token_ids(CONTEXT)
    cache, found = engine.open(), []
    for start in range(0, CONTEXT, 2):
        found.append(engine.extend([Chunk(cache, tokens[start : start + 2], 2)]))
    assert engine._last._packing.grouped.shares
    assert relative_difference(np.concatenate(found), reference_logits(package, tokens)) < FLOAT32_TOLERANCE


def test_heads_are_grouped_where_few_tokens_stand_behind_many():
    groups = HeadGroups(2, 3)
    assert [groups.pays(length, 1) for length in (0, 2, 3)] == [False, False, True]
    assert [groups.pays(length, 4) for length in (47, 48)] == [False, True]
    assert groups.pays(100_000, TOKENS_BOUND)
    assert not groups.pays(100_000, TOKENS_BOUND + 1)


@pytest.mark.parametrize(
    ("overrides", "is_grouping"),
    [
        ({}, True),
        ({"num_key_value_heads": 4}, False),
        ({"model_type": "mistral", "sliding_window": 16}, False),
        ({"model_type": "mistral", "sliding_window": 96}, True),
    ],
)
def test_groups_of_several_heads_are_found_where_no_layer_has_a_window(tmp_path, overrides, is_grouping):
    engine = OnnxEngine(tiny_package(tmp_path, **overrides), num_slots=1)
    engine.group_heads(True)
    assert engine.is_grouping is is_grouping


def test_models_that_would_save_little_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.undo()
    found = [package_of(tmp_path / str(size), 8, 4, head_dim=size) for size in (48, 64)]
    assert [OnnxEngine(package, num_slots=1).is_grouping for package in found] == [False, True]
    pair = load_pair()
    assert not any(OnnxEngine(package, num_slots=1).is_grouping for package in (pair.draft, pair.full))


def test_each_layer_has_a_second_node_over_the_same_caches(tmp_path):
    package = tiny_package(tmp_path, num_hidden_layers=3)
    model = read_graph(package.graph("fp32"))
    assert group_heads(model, groups_of(package.architecture), package.architecture.head_size)
    nodes = [node for node in model.graph.node if node.op_type == "GroupQueryAttention"]
    options = [[attribute.i for attribute in node.attribute if attribute.name.endswith("num_heads")] for node in nodes]
    assert options == [[2, 4], [2, 2]] * 3
    for number, (first, second) in enumerate(zip(nodes[::2], nodes[1::2], strict=True)):
        assert first.input[3:5] == second.input[3:5] == [f"past_key_values.{number}.{kind}" for kind in ("key", "value")]
        assert second.output[1:] == [f"grouped.{number}.{kind}" for kind in ("key", "value")]


def attention_never_unpacked(graph):
    (node,) = (node for node in graph.node if node.name == "model.layers.1.self_attn.flat")
    node.input[0] = "embedded"


def queries_from_elsewhere(graph):
    (node,) = (node for node in graph.node if node.name == "model.layers.1.self_attn.padded")
    node.input[1] = "unpad_idx"


def a_node_without_inputs(graph):
    graph.node.insert(0, onnx.helper.make_node("Gather", [], ["nothing"]))


def no_layer(graph):
    del graph.node[1:]


@pytest.mark.parametrize("change", [attention_never_unpacked, queries_from_elsewhere, a_node_without_inputs, no_layer])
def test_a_graph_of_another_form_is_left_as_it_is(tmp_path, change):
    package = tiny_package(tmp_path)
    model = read_graph(package.graph("fp32"))
    change(model.graph)
    before = model.SerializeToString()
    assert not group_heads(model, groups_of(package.architecture), package.architecture.head_size)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("variant", ["fp32", "q4"])
def test_weights_in_a_file_of_their_own_are_read_from_there(tmp_path, variant):
    config = config_of("llama")
    write_checkpoint(tmp_path / "checkpoint", config, weights_of(config))
    found = []
    for name, external_bytes in (("inside", 1 << 30), ("beside", 0)):
        convert(Conversion(tmp_path / "checkpoint", tmp_path / name, ("fp32", "q4"), external_bytes=external_bytes))
        engine = OnnxEngine(Package(tmp_path / name), variant, num_slots=1)
        assert engine.is_grouping
        found.append(engine.extend([Chunk(engine.open(), token_ids(20, vocabulary_size=200), 20)]))
    np.testing.assert_array_equal(*found)


def test_rows_of_a_group_and_what_they_must_not_see():
    rows = rows_of(HeadGroups(num_groups=1, heads_each=3), 1, 2)
    # Three query heads of one token, then the last row again: each sees the token's own key, which is the first behind the
    # cache, and none of the three behind it.
    assert rows.offsets == (0, 0, 0, 0)
    assert rows.hidden == ((1, 1, 1), (2, 1, 2), (3, 1, 3))
    assert rows.pieces.tolist() == [[0, 3, 4], [1, 3, 4], [2, 3, 4], [2, 3, 4]]
    assert rows.places.tolist() == [[0, 1, 2]]
    rows = rows_of(HeadGroups(num_groups=2, heads_each=2), 2, 2)
    assert rows.offsets == (0, 1, 0, 1)
    assert rows.hidden == ((2, 1, 2), (3, 2, 2))
    # Heads of a packed token: queries 0 to 3, of which 0 and 1 are the first group's, keys 4 and 5, values 6 and 7.
    assert rows.pieces[:, :2].tolist() == [[0, 2], [8, 10], [1, 3], [9, 11]]
    assert rows.pieces[:2, 2:].tolist() == [[4, 5, 6, 7], [12, 13, 14, 15]]
    assert rows.places.tolist() == [[0, 4, 1, 5], [2, 6, 3, 7]]


def test_a_session_has_rows_in_one_node_and_the_heads_of_its_tokens_are_taken_from_there():
    groups = HeadGroups(num_groups=1, heads_each=2)
    packing = pack(((2, 1, 1, True), (0, 3, 3, False)), 3, 2, groups=groups)
    assert packing.pad_idx.tolist() == [[1, 2, 3, 3], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert packing.query_seqlens.tolist() == [4, 0, 0]
    assert packing.grouped.num_rows.tolist() == [0, 0, 2]
    assert packing.grouped.pieces.tolist() == [[[0, 0, 0]] * 2, [[0, 0, 0]] * 2, [[0, 2, 3], [1, 2, 3]]]
    first = 3 * 4 * 2  # heads that come out of the first node
    assert packing.unpad_idx.tolist() == [[first + 4, first + 5], [0, 1], [2, 3], [4, 5]]


def test_what_does_not_fit_the_bias_is_not_grouped(tmp_path, monkeypatch):
    package = package_of(tmp_path, 4, 2)
    monkeypatch.setattr(onnx_engine, "BIAS_BOUND", 2 * SLOTS * 64)
    monkeypatch.setattr(bindings, "BIAS_BOUND", 2 * SLOTS * 64)
    engines = alike(package)
    seen = []
    for found, wanted in walk(engines, seed=3):
        np.testing.assert_array_equal(found, wanted)
        seen.append(bool(engines[0]._last is not None and engines[0]._last._packing.grouped.shares))
    assert True in seen
    assert False in seen[PASSES // 2 :]


def test_nothing_is_written_behind_what_a_cache_is_said_to_take(tmp_path, monkeypatch):
    package = package_of(tmp_path, 7, 1)
    engine = OnnxEngine(package, num_slots=1)
    monkeypatch.setattr(engine._pages, "bytes_of", lambda num_positions: num_positions)
    cache = engine.open()
    for count in (30, 1, 2, 1, 40, 3, 1, 80):
        engine.extend([Chunk(cache, token_ids(count), 0)])
    for _ in range(CONTEXT - engine.length(cache)):
        engine.extend([Chunk(cache, token_ids(1), 0)])
        end = engine.cache_bytes(engine.length(cache))
        assert not engine._memory[:, 0, :, end:].any(), end


@pytest.mark.parametrize("length", [2, 3, 17, 60])
@pytest.mark.parametrize("groups", [HeadGroups(2, 2), HeadGroups(1, 7)])
def test_the_most_rows_are_those_of_the_widest_pass_that_may_come(groups, length):
    counts = [count for count in range(1, length + 1) if groups.pays(length - count, count)]
    assert groups.most_rows(length, 2) == max((groups.num_rows(count, 2) for count in counts), default=0)


class SeesAll(OnnxEngine):
    """Hides no keys from grouped rows."""

    def __init__(self, *given, **named):
        super().__init__(*given, **named)
        if self._bias is not None:
            self._bias.infinities = self._bias.zeros


def test_where_grouped_rows_differ_each_head_reads_keys_of_its_own(tmp_path, caplog):
    engine = SeesAll(tiny_package(tmp_path), num_slots=4)
    found = self_test.run(engine)
    assert not found.is_exact
    assert not any(line.startswith("few: 0 of") for line in found.details)
    assert self_test.make_exact(engine).is_exact
    assert not engine.is_grouping
    assert "so that each query head reads keys of its own" in caplog.text


def test_an_engine_that_groups_no_heads_is_not_made_to(tmp_path):
    engine = OneRowEngine(tiny_package(tmp_path), num_slots=4)
    engine.group_heads(False)
    assert not self_test.make_exact(engine).is_exact
    assert not engine.is_grouping


def test_the_self_test_sees_grouped_rows_of_nearly_every_number(tmp_path):
    engine = OnnxEngine(package_of(tmp_path, 4, 2, max_position_embeddings=600), num_slots=4)
    seen, plain = set(), engine._binding
    engine._binding = lambda low, high, packing: seen.update(packing.grouped.num_rows.tolist()) or plain(low, high, packing)
    assert self_test.run(engine).is_exact
    assert seen >= set(range(2, 2 * TOKENS_BOUND, 2))


def test_the_memory_of_the_bias_is_taken_with_what_passes_compute_with(tmp_path):
    engine = OnnxEngine(tiny_package(tmp_path), num_slots=2)
    caches = [engine.open() for _ in range(2)]
    for count in (20, 1):
        engine.extend([Chunk(cache, token_ids(count), 0) for cache in caches])
    assert np.isneginf(engine._bias._values).any()
    engine.reserve(8)
    assert not engine._bias._values.any()
    found = engine.extend([Chunk(caches[0], [5], 1)])
    other = OnnxEngine(tiny_package(tmp_path / "again"), num_slots=2)
    other.group_heads(False)
    cache = other.open()
    other.extend([Chunk(cache, [*token_ids(20), *token_ids(1)], 0)])
    np.testing.assert_array_equal(found, other.extend([Chunk(cache, [5], 1)]))
