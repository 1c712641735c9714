"""Caches in 16 bits: half the memory, logits that are near, rows that are as exact as before, and who has them."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from outrider.local import Models
from speculation.engines import loading, self_test
from speculation.engines.base import Chunk
from speculation.engines.exports import ExportFolder
from speculation.engines.files import read_graph
from speculation.engines.half_caches import halve_caches
from speculation.engines.model import chosen_variant
from speculation.engines.onnx import OnnxEngine
from speculation.errors import CapacityError, InvalidRequestError, PackageError, UnknownNameError
from tests.speculation.engines.stock_graphs import export_folder
from tests.speculation.engines.test_graph import relative_difference
from tests.speculation.engines.test_head_groups import alike, package_of, walk
from tests.speculation.engines.tiny import convolve_all, group_all, reference_logits, tiny_package, token_ids
from tests.support.both_ways import both_ways_of, check_same_text
from tests.support.processor import gives_rows_alike

TOKENS = token_ids(60)
HALF_TOLERANCE = 0.01
"""Of the largest logit; float16 has 11 bits, and random layers forgive nothing."""
LIMIT_S = 60


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("tiny"))


def logits_of(package, variant):
    engine = OnnxEngine(package, variant, num_slots=1)
    cache = engine.open()
    pieces = [engine.extend([Chunk(cache, TOKENS[start : start + 3], 3)]) for start in range(0, len(TOKENS), 3)]
    return np.concatenate(pieces)


def test_logits_are_near_those_of_a_plain_forward(package):
    found, wanted = logits_of(package, "fp32_kv16"), reference_logits(package, TOKENS)
    assert 1e-6 < relative_difference(found, wanted) < HALF_TOLERANCE


def test_a_cache_takes_half_of_the_memory(package):
    whole, half = (OnnxEngine(package, variant, num_slots=2) for variant in ("fp32", "fp32_kv16"))
    assert (whole._memory.dtype, half._memory.dtype) == (np.float32, np.float16)
    assert half._memory.nbytes == whole._memory.nbytes / 2
    assert half.description.kv_bytes_per_token == whole.description.kv_bytes_per_token / 2
    assert package.kv_bytes_per_token("fp32_kv16") == package.kv_bytes_per_token("fp32") / 2
    assert package.weight_bytes("fp32_kv16") == package.weight_bytes("fp32")
    assert half.description.name == f"{package.name}:fp32_kv16"
    long = 10_000
    assert half.cache_bytes(long) < 0.6 * whole.cache_bytes(long)


def test_nothing_but_what_attention_takes_is_rounded(package):
    model = read_graph(package.graph("fp32"))
    assert halve_caches(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    halves = {name for name, kind in kinds.items() if kind == TensorProto.FLOAT16}
    names = [f"{n}.{kind}" for n in range(package.architecture.num_layers) for kind in ("key", "value")]
    assert halves == {f"{end}.{name}" for end in ("past_key_values", "present") for name in names}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 2 + 2 * package.architecture.num_layers  # cosines and sines; into each attention, and out


@pytest.mark.parametrize("variant", ["fp32_kv16", "q4_kv16", "i8_kv16"])
def test_the_engine_is_exact(package, variant):
    found = self_test.run(OnnxEngine(package, variant, num_slots=4))
    assert found.is_exact is (variant != "q4_kv16" or gives_rows_alike()), found.details
    assert found.fingerprint != self_test.run(OnnxEngine(package, variant.removesuffix("_kv16"), num_slots=4)).fingerprint


@pytest.mark.parametrize("is_convolved", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (7, 1)])
def test_rows_of_grouped_heads_come_out_the_same(tmp_path, monkeypatch, heads, kv_heads, is_convolved):
    group_all(monkeypatch)
    if is_convolved:
        convolve_all(monkeypatch)
    engines = alike(package_of(tmp_path, heads, kv_heads), "fp32_kv16")
    assert all(engine.is_convolved is is_convolved for engine in engines)
    for found, wanted in walk(engines, seed=heads):
        np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


def test_long_chunks_have_passes_of_their_own(package):
    """Else the scores of a padded batch would be there all at once."""
    together, apart = (OnnxEngine(package, "fp32_kv16", num_slots=4) for _ in range(2))
    caches = [(together.open(), apart.open()) for _ in range(4)]
    counts, wanted = (3, 40, 1, 17), (2, 0, 1, 17)
    sizes, run = [], together._slots.of
    together._slots.of = lambda chunks: sizes.append([len(chunk.token_ids) for chunk in chunks]) or run(chunks)
    chunks = [Chunk(cache, TOKENS[:count], num) for (cache, _), count, num in zip(caches, counts, wanted, strict=True)]
    found = together.extend(chunks)
    assert sizes == [[3, 40, 1, 17], [40], [17], [3, 1]]
    alone = [
        apart.extend([Chunk(cache, TOKENS[:count], num)]) for (_, cache), count, num in zip(caches, counts, wanted, strict=True)
    ]
    np.testing.assert_array_equal(found, np.concatenate(alone))
    assert [together.length(cache) for cache, _ in caches] == list(counts)


@pytest.mark.parametrize("num_logits", [0, 2])
def test_chunks_may_all_be_long(package, num_logits):
    engine = OnnxEngine(package, "fp32_kv16", num_slots=3)
    caches = [engine.open() for _ in range(3)]
    found = engine.extend([Chunk(cache, TOKENS[:20], num_logits) for cache in caches])
    assert [engine.length(cache) for cache in caches] == [20] * 3
    assert found.shape == (3 * num_logits, engine.description.vocabulary_size)
    assert not num_logits or (found[:2] == found[2:4]).all()


@pytest.mark.parametrize("bad", [[300], [5] * 96])
def test_a_bad_chunk_beside_a_long_one_changes_no_cache(package, bad):
    engine = OnnxEngine(package, "fp32_kv16", num_slots=2)
    caches = [engine.open() for _ in range(2)]
    engine.extend([Chunk(cache, [5], 0) for cache in caches])
    with pytest.raises((InvalidRequestError, CapacityError)):
        engine.extend([Chunk(caches[0], TOKENS[:30], 1), Chunk(caches[1], bad, 1)])
    assert [engine.length(cache) for cache in caches] == [1, 1]


def test_models_without_groups_have_them_too(tmp_path):
    package = tiny_package(tmp_path, num_key_value_heads=4)
    assert relative_difference(logits_of(package, "fp32_kv16"), reference_logits(package, TOKENS)) < HALF_TOLERANCE


def never_attended(graph):
    graph.node.extend([onnx.helper.make_node("Identity", ["model.layers.0.self_attn.out"], ["kept"])])
    (flat,) = (node for node in graph.node if node.name == "model.layers.0.self_attn.flat")
    flat.input[0] = "kept"


def no_layers(graph):
    del graph.node[1:]


def a_node_without_inputs(graph):
    graph.node.insert(0, onnx.helper.make_node("Gather", [], ["nothing"]))


@pytest.mark.parametrize("change", [never_attended, no_layers, a_node_without_inputs])
def test_a_graph_of_another_form_is_left_as_it_is(package, change):
    model = read_graph(package.graph("fp32"))
    change(model.graph)
    before = model.SerializeToString()
    assert not halve_caches(model)
    assert model.SerializeToString() == before


def test_they_are_asked_for_by_the_name_of_the_variant(package):
    assert chosen_variant(package, "q4_kv16", "fp32") == "q4_kv16"
    for wrong in ("kv16", "_kv16", "q5_kv16", "fp32_kv8", "fp32_kv16_kv16"):
        with pytest.raises(UnknownNameError, match=rf"unknown variant of tiny '{wrong}'; known: .*fp32"):
            chosen_variant(package, wrong, "fp32")
    with pytest.raises(UnknownNameError, match="torch_kv16"):
        package.engine("torch_kv16", 1, 1)


def test_an_export_says_that_it_has_none(tmp_path):
    hub = ExportFolder(export_folder(tmp_path))
    with pytest.raises(UnknownNameError, match=r"unknown variant of .* 'fp32_kv16'; known: fp32"):
        hub.engine(chosen_variant(hub, "fp32_kv16", "fp32"), 1, 1)


@pytest.mark.parametrize("parameters", [{}, {"temperature": 0.8, "top_p": 0.95}], ids=["greedy", "sampled"])
async def test_the_text_is_the_clouds_own(tmp_path, parameters):
    for name, seed in (("draft", 1), ("full", 2)):
        tiny_package(tmp_path / name, seed=seed, num_hidden_layers=seed)
    models = Models(tmp_path / "draft", tmp_path / "full", "fp32_kv16", "fp32_kv16")
    check_same_text(*await both_ways_of(models, LIMIT_S, **parameters))


def test_where_a_graph_does_not_allow_it_that_is_said(package, monkeypatch):
    monkeypatch.setattr(loading, "halve_caches", lambda model: False)
    with pytest.raises(PackageError, match=r"model\.onnx is not a packed graph, so its caches cannot be in 16 bits"):
        OnnxEngine(package, "fp32_kv16", num_slots=1)
