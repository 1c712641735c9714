"""Products as pointwise convolutions: which, in what memory, and where not. What they give is held by the conformance suite."""

import logging
import platform

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from outrider.local import Models
from speculation.engines import pointwise
from speculation.engines.base import Chunk
from speculation.engines.convert import Conversion, convert
from speculation.engines.exports import ExportFolder
from speculation.engines.files import read_graph
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package, load_pair
from speculation.engines.pointwise import can_convolve, convolved
from speculation.errors import CapacityError, PackageError
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint
from tests.speculation.engines.stock_graphs import export_folder
from tests.speculation.engines.test_graph import FLOAT32_TOLERANCE, relative_difference
from tests.speculation.engines.tiny import convolve_all, reference_logits, tiny_package, token_ids
from tests.support.both_ways import both_ways_of, check_same_text

TOKENS = token_ids(40)
LIMIT_S = 60


@pytest.fixture
def unasked():
    """The runtime is asked again, before the test and behind it."""
    can_convolve.cache_clear()
    yield
    can_convolve.cache_clear()


def graph_of(package, variant="fp32"):
    path = package.graph(variant)
    return path, read_graph(path)


def operators(graph):
    found = onnx.load_model_from_string(graph).graph.node
    return [node.op_type for node in found]


def logits_of(package):
    engine = OnnxEngine(package, num_slots=1)
    return engine.is_convolved, engine.extend([Chunk(engine.open(), TOKENS, len(TOKENS))])


@pytest.mark.parametrize("is_tied", [True, False])
def test_every_product_of_a_large_model_is_a_convolution_and_nothing_is_kept_twice(tmp_path, monkeypatch, is_tied):
    convolve_all(monkeypatch)
    package = tiny_package(tmp_path, tie_word_embeddings=is_tied)
    path, model = graph_of(package)
    num_products = operators(path.read_bytes()).count("MatMul")
    made = convolved(path, model)
    found = operators(made.graph)
    assert (found.count("MatMul"), found.count("Conv"), len(made.values)) == (0, num_products, num_products)
    kept = {tensor.name for tensor in onnx.load_model_from_string(made.graph).graph.initializer} - {*made.values}
    matrices = {name for name in kept if "_proj" in name or "head" in name or "embed" in name}
    assert matrices == {"model.embed_tokens.weight"}, "rows of it are read where tokens are embedded"
    assert "Transpose" not in found


def test_between_the_products_of_a_feed_forward_layer_nothing_is_reordered(tmp_path, monkeypatch):
    convolve_all(monkeypatch)
    package = tiny_package(tmp_path, num_hidden_layers=1)
    found = operators(convolved(*graph_of(package)).graph)
    assert [found.count(name) for name in ("Conv", "ReorderInput", "ReorderOutput")] == [6, 4, 4]


def test_logits_are_those_of_a_plain_forward(tmp_path, monkeypatch, caplog):
    convolve_all(monkeypatch)
    caplog.set_level(logging.INFO)
    package = tiny_package(tmp_path)
    is_convolved, found = logits_of(package)
    assert is_convolved
    assert "model.onnx: 11 products with 0 MB are made as convolutions" in caplog.text
    assert relative_difference(found, reference_logits(package, TOKENS)) < FLOAT32_TOLERANCE


def test_the_runtime_computes_with_the_very_memory_that_it_is_given(tmp_path, monkeypatch):
    """A copy would be a second model in memory."""
    convolve_all(monkeypatch)
    engine = OnnxEngine(tiny_package(tmp_path), num_slots=1)
    for value in engine._matrices.values.values():
        value.numpy()[:] = 0
    assert not engine.extend([Chunk(engine.open(), TOKENS, 1)]).any()


def test_weights_in_a_file_of_their_own_are_read_from_there(tmp_path, monkeypatch):
    convolve_all(monkeypatch)
    config = config_of("llama")
    write_checkpoint(tmp_path / "checkpoint", config, weights_of(config))
    logits = {}
    for name, external_bytes in (("inside", 1 << 30), ("beside", 0)):
        convert(Conversion(tmp_path / "checkpoint", tmp_path / name, external_bytes=external_bytes))
        is_convolved, logits[name] = logits_of(Package(tmp_path / name))
        assert is_convolved
    np.testing.assert_array_equal(logits["inside"], logits["beside"])


def test_a_matrix_of_no_whole_blocks_stays_one(tmp_path, monkeypatch):
    convolve_all(monkeypatch)
    package = tiny_package(tmp_path, intermediate_size=24)
    found = operators(convolved(*graph_of(package)).graph)
    num_layers = package.architecture.num_layers
    assert (found.count("MatMul"), found.count("Conv")) == (3 * num_layers, 2 * num_layers + 1)
    assert relative_difference(logits_of(package)[1], reference_logits(package, TOKENS)) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("variant", ["q4", "i8"])
def test_quantised_matrices_stay_as_they_are(tmp_path, monkeypatch, variant):
    convolve_all(monkeypatch)
    assert not OnnxEngine(tiny_package(tmp_path), variant, num_slots=1).is_convolved


def test_a_model_that_lies_in_the_processors_caches_stays_as_it_is():
    pair = load_pair()
    assert not any(OnnxEngine(package, num_slots=1).is_convolved for package in (pair.draft, pair.full))


def test_a_small_matrix_of_a_large_model_stays_as_it_is(tmp_path, monkeypatch):
    convolve_all(monkeypatch)
    monkeypatch.setattr(pointwise, "MATRIX_LEAST_BYTES", 4 * 32 * 272)
    found = operators(convolved(*graph_of(tiny_package(tmp_path))).graph)
    assert found.count("Conv") == 1  # the head


def test_a_runtime_with_blocks_of_another_size_is_found_out(unasked, monkeypatch):
    if not can_convolve():
        pytest.skip("this processor, or this ONNX Runtime, has no convolutions in blocks of 16")
    can_convolve.cache_clear()
    monkeypatch.setattr(pointwise, "BLOCK", 8)
    assert not can_convolve()


def test_a_wrong_product_is_found_out(unasked, monkeypatch):
    if not can_convolve():
        pytest.skip("this processor, or this ONNX Runtime, has no convolutions in blocks of 16")
    can_convolve.cache_clear()
    monkeypatch.setattr(pointwise._Matrix, "write", lambda matrix, folder, target: target.fill(1))
    assert not can_convolve()


def test_a_runtime_without_such_nodes_is_found_out(unasked, monkeypatch):
    monkeypatch.setattr(pointwise, "DOMAIN", "com.example.none")
    assert not can_convolve()


def test_processors_on_which_nothing_was_measured_are_not_asked(unasked, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not can_convolve()


def test_where_the_runtime_cannot_a_model_runs_as_it_is(tmp_path, monkeypatch):
    for limit in ("MODEL_LEAST_BYTES", "MATRIX_LEAST_BYTES"):
        monkeypatch.setattr(pointwise, limit, 0)
    monkeypatch.setattr(pointwise, "can_convolve", lambda: False)
    package = tiny_package(tmp_path)
    is_convolved, found = logits_of(package)
    assert not is_convolved
    assert relative_difference(found, reference_logits(package, TOKENS)) < FLOAT32_TOLERANCE


@pytest.mark.parametrize("attention", ["plain", "gqa"])
def test_an_export_whose_rows_have_another_form_runs_as_it_is(tmp_path, monkeypatch, attention):
    convolve_all(monkeypatch)
    folder = export_folder(tmp_path, graphs={"model.onnx": {"attention": attention}})
    engine = ExportFolder(folder).engine("fp32", 1, 1)
    assert engine.is_convolved
    wanted = engine.extend([Chunk(engine.open(), TOKENS, len(TOKENS))])
    model = onnx.load(folder / "onnx/model.onnx")
    flatten_rows_of_head(model.graph)
    onnx.save(model, folder / "onnx/model.onnx")
    engine = ExportFolder(folder).engine("fp32", 1, 1)
    assert not engine.is_convolved
    found = engine.extend([Chunk(engine.open(), TOKENS, len(TOKENS))])
    assert relative_difference(found, wanted) < FLOAT32_TOLERANCE


def flatten_rows_of_head(graph):
    """Rows of the last product as [rows, numbers], though those of all others are [sessions, tokens, numbers]."""
    (head,) = (node for node in graph.node if "logits" in node.output)
    before = helper.make_node("Flatten", [head.input[0]], ["flat"], axis=2)
    shape = helper.make_node("Shape", ["input_ids"], ["shape"])
    whole = helper.make_node("Concat", ["shape", "any_size"], ["whole"], axis=0)
    after = helper.make_node("Reshape", ["flat_logits", "whole"], ["logits"])
    head.input[0], head.output[0] = "flat", "flat_logits"
    place = list(graph.node).index(head)
    for node in (before, shape, whole):
        graph.node.insert(place, node)
    graph.node.insert(list(graph.node).index(head) + 1, after)
    graph.initializer.append(numpy_helper.from_array(np.array([-1], np.int64), "any_size"))


def test_weights_that_are_not_what_the_graph_says_are_refused_by_name(tmp_path, monkeypatch):
    convolve_all(monkeypatch)
    path, model = graph_of(tiny_package(tmp_path))
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name.endswith("0.mlp.up_proj.weight"))
    tensor.raw_data = tensor.raw_data[:-4]
    with pytest.raises(PackageError, match=r"model.onnx: the weights model.layers.0.mlp.up_proj.weight of shape \[32, 48\]"):
        convolved(path, model)


def test_without_memory_for_the_weights_it_is_said_what_would_be_needed(tmp_path, monkeypatch):
    convolve_all(monkeypatch)
    path, model = graph_of(tiny_package(tmp_path))
    monkeypatch.setattr("mmap.mmap", no_memory)
    with pytest.raises(CapacityError, match=r"does not grant \d+ bytes for the weights of .*model.onnx"):
        convolved(path, model)


def no_memory(*arguments, **options):
    raise OSError("Cannot allocate memory")


@pytest.mark.parametrize("parameters", [{}, {"temperature": 0.8, "top_p": 0.95}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("full", ["package", "gqa", "plain"])
async def test_the_text_is_the_clouds_own_whoever_multiplies_as_convolutions(tmp_path, monkeypatch, full, parameters):
    convolve_all(monkeypatch)
    draft = tiny_package(tmp_path / "draft", seed=1, num_hidden_layers=1)
    if full == "package":
        tiny_package(tmp_path / full, seed=2)
    else:
        export_folder(tmp_path / full, seed=2, graphs={"model.onnx": {"attention": full}})
    together, alone = await both_ways_of(Models(draft.path, tmp_path / full), LIMIT_S, **parameters)
    check_same_text(together, alone)
