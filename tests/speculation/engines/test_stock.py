"""Exported graphs on ONNX Runtime: the same model as the packed graph, exact, in the way that each graph allows."""

import json
import logging

import numpy as np
import onnx
import pytest

from speculation.engines import self_test
from speculation.engines.base import CanRunSingly, Chunk, Forkable
from speculation.engines.exports import ExportFolder
from speculation.engines.layouts import only_describes
from speculation.engines.onnx import OnnxEngine
from speculation.engines.pairs import load_model
from speculation.engines.ragged import RaggedEngine
from speculation.engines.stock import RUN_ROWS, StockEngine
from speculation.errors import CapacityError, PackageError
from tests.speculation.engines.stock_graphs import HALF, export_folder, genai_folder, split_graphs, transformers_folder
from tests.speculation.engines.tiny import TINY, reference_logits, tiny_package, token_ids

LENGTH = 70
TOKENS = token_ids(LENGTH, seed=4)
GRAPHS = {
    "model.onnx": {},
    "model_gqa.onnx": {"attention": "gqa"},
    "model_half.onnx": {"cache": HALF},
    "model_gqa_half.onnx": {"attention": "gqa", "cache": HALF},
    "model_turned.onnx": {"attention": "gqa of turned rows"},
    "decoder_model_merged_older.onnx": {},
    "model_quantized.onnx": {"shares_a_scale": True},
    "model_quantized_gqa.onnx": {"shares_a_scale": True, "attention": "gqa"},
    **split_graphs("_split"),
    **split_graphs("_split_gqa", attention="gqa"),
    **split_graphs("_one", num_tokens=1),
    **split_graphs("_one_gqa", num_tokens=1, attention="gqa"),
    **split_graphs("_ahead", sees_ahead=True),
}
LONG = {"max_position_embeddings": 600, "num_hidden_layers": 1}


class OneRowStock(StockEngine):
    """The engine without its even rows."""

    _rows_multiple = 1


class ManyRowsStock(StockEngine):
    """The engine without its look at what rows see."""

    def _one_row_since(self):
        return ""


class OneRowRagged(RaggedEngine):
    """The engine without its even rows."""

    _rows_multiple = 1


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return ExportFolder(export_folder(tmp_path_factory.mktemp("hub"), graphs=GRAPHS))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return tiny_package(tmp_path_factory.mktemp("package"), variants=("fp32",))


def logits_of(engine):
    cache = engine.open()
    logits = engine.extend([Chunk(cache, TOKENS, LENGTH)])
    engine.close(cache)
    return logits


def alone(hub, variant, kind=StockEngine, num_slots=4):
    graph = hub.graph(variant)
    return kind(graph, hub.engine("fp32", num_slots, 1).description)


@pytest.mark.parametrize(
    ("variant", "tolerance"),
    [
        ("fp32", 1e-4),
        ("gqa", 1e-4),
        ("turned", 1e-4),
        ("older", 1e-4),
        ("half", 0.02),
        ("gqa_half", 0.05),
        ("split", 1e-4),
        ("split_gqa", 1e-4),
        ("one", 1e-4),
        ("one_gqa", 1e-4),
        ("ahead", 1e-4),
    ],
)
def test_an_export_is_the_model_that_the_packed_graph_is(hub, package, variant, tolerance):
    found = logits_of(hub.engine(variant, 2, 1))
    assert np.abs(found - logits_of(OnnxEngine(package, num_slots=2))).max() < tolerance
    assert np.abs(found - reference_logits(package, TOKENS)).max() < tolerance


def test_the_slower_way_over_attention_nodes_is_the_model_too(hub, package):
    assert np.abs(logits_of(alone(hub, "gqa")) - reference_logits(package, TOKENS)).max() < 1e-4


@pytest.mark.parametrize(
    ("attention", "turns_by_positions"), [("plain", False), ("gqa", False), ("plain", True), ("gqa of turned rows", True)]
)
@pytest.mark.parametrize("length", [40, 41])
def test_no_run_reaches_over_the_length_from_which_a_graph_turns_positions_in_another_way(
    tmp_path, attention, turns_by_positions, length
):
    """Its rows, and its neighbours', would all be turned as those of a longer text. Real ones have that length beyond what the
    self-test runs."""
    graphs = {"model.onnx": {"attention": attention, "turning_length": length, "turns_by_positions": turns_by_positions}}
    model = ExportFolder(export_folder(tmp_path, graphs=graphs))
    assert model.graph("fp32").turning_length == length
    engine = model.engine("fp32", 4, 1)
    found = self_test.run(engine)
    assert isinstance(engine, StockEngine)
    assert found.is_exact, found.details
    plain = ExportFolder(export_folder(tmp_path / "plain", graphs={"model.onnx": {"attention": attention}}))
    differs = np.abs(logits_of(engine) - logits_of(alone(plain, "fp32"))).max(axis=1) > 1e-3
    assert differs.argmax() == length
    singly = model.engine("fp32", 1, 1)
    singly.run_singly()
    assert logits_of(singly).tobytes() == logits_of(engine).tobytes()


def test_an_export_of_genai_is_that_model_under_other_names(tmp_path, package):
    engine = ExportFolder(genai_folder(tmp_path)).engine("genai", 2, 1)
    assert isinstance(engine, RaggedEngine)
    assert np.abs(logits_of(engine) - reference_logits(package, TOKENS)).max() < 1e-4
    assert engine.description.name.endswith(":genai:genai")


def test_an_export_of_transformers_is_that_model_under_other_names(tmp_path, package):
    engine = load_model(transformers_folder(tmp_path)).engine("decode", 2, 1)
    assert isinstance(engine, StockEngine)
    assert np.abs(logits_of(engine) - reference_logits(package, TOKENS)).max() < 1e-4
    assert engine.description.name.endswith(":decode:transformers-export")
    assert not only_describes(tmp_path)


def test_a_graph_that_takes_the_window_of_each_layer_is_given_it(tmp_path, package):
    """Of `transformers` 5, where a window was a tensor when the graph was traced."""
    windows = [f"input.cache.layers.{layer}._sliding_window_tensor" for layer in range(TINY["num_hidden_layers"])]
    model = load_model(transformers_folder(tmp_path, extra_inputs=windows, sliding_window=40))
    assert {name: model.graph("decode").fixed_inputs[name].tolist() for name in windows} == {name: [40] for name in windows}
    assert np.abs(logits_of(model.engine("decode", 2, 1)) - reference_logits(package, TOKENS)).max() < 1e-4
    with pytest.raises(PackageError, match=r"inputs that are not known: input\.cache\.layers\.0\._sliding_window_tensor"):
        load_model(transformers_folder(tmp_path, extra_inputs=windows)).engine("decode", 2, 1)


def test_what_a_list_of_exports_calls_its_cache_is_part_of_the_digest(tmp_path):
    path = transformers_folder(tmp_path)
    before = load_model(path).digest
    (path / "export.json").write_text((path / "export.json").read_text() + "\n")
    assert load_model(path).digest != before


def test_graphs_in_a_folder_of_their_own_go_before_a_list_of_exports(tmp_path):
    path = export_folder(transformers_folder(tmp_path))
    assert load_model(path).variants == ("fp32",)
    (path / "onnx" / "model.onnx").rename(path / "model.onnx")
    assert load_model(path).variants == ("decode",)


def test_a_window_that_only_genai_knows_of_bounds_the_context(tmp_path):
    """Its runtime lets the cache slide; the graph attends to all there is, which is right within the window alone."""
    path = genai_folder(tmp_path)
    config = json.loads((path / "genai_config.json").read_text())
    for window, wanted in ((40, 40), (500, 96)):
        config["model"]["decoder"]["sliding_window"] = {"window_size": window, "slide_inputs": True}
        (path / "genai_config.json").write_text(json.dumps(config))
        assert ExportFolder(path).engine("genai", 2, 1).description.context_length == wanted
    config["model"]["decoder"]["sliding_window"] = {"window_size": "40"}
    (path / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(PackageError, match="window_size"):
        ExportFolder(path)


def test_without_a_look_at_what_rows_see_a_half_without_a_mask_is_another_model(hub, package):
    """The half that goes on behind a cache was traced with one token, which sees all there is."""
    assert np.abs(logits_of(alone(hub, "ahead", ManyRowsStock)) - reference_logits(package, TOKENS)).max() > 0.1


def test_of_a_split_decoder_the_half_with_a_past_is_all_that_is_read(tmp_path, package):
    whole = ExportFolder(export_folder(tmp_path / "whole", graphs=split_graphs()))
    assert (whole.variants, whole.graphs["fp32"]) == (("fp32",), "onnx/decoder_with_past_model.onnx")
    digest = whole.digest
    (whole.path / "onnx" / "decoder_model.onnx").unlink()
    half = ExportFolder(whole.path)
    assert half.digest == digest
    assert np.abs(logits_of(half.engine("fp32", 2, 1)) - reference_logits(package, TOKENS)).max() < 1e-4


@pytest.mark.parametrize(
    "variant", ["fp32", "older", "gqa", "turned", "half", "gqa_half", "split", "split_gqa", "one", "one_gqa", "ahead"]
)
def test_an_export_is_exact_in_either_way(hub, variant):
    for engine in (hub.engine(variant, 4, 1), alone(hub, variant)):
        found = self_test.run(engine)
        assert found.is_exact, (type(engine), found.details)


@pytest.mark.parametrize("attention", ["plain", "gqa"])
def test_an_export_with_a_long_context_is_exact_where_kernels_change(tmp_path, attention):
    hub = ExportFolder(export_folder(tmp_path, graphs={"model.onnx": {"attention": attention}}, **LONG))
    for engine in (hub.engine("fp32", 4, 1), alone(hub, "fp32")):
        found = self_test.run(engine)
        assert found.is_exact, (type(engine), found.details)


def test_the_range_of_slots_that_was_bound_first_makes_room_for_a_new_one(hub, monkeypatch):
    monkeypatch.setattr("speculation.engines.ragged.MAX_BINDINGS", 2)
    engine = alone(hub, "gqa", RaggedEngine)
    engine._bindings.clear()
    first, second, third = (engine.open() for _ in range(3))
    found = []
    for cache, ranges in ((first, [(0, 1)]), (second, [(0, 1), (1, 2)]), (third, [(1, 2), (2, 3)]), (second, [(1, 2), (2, 3)])):
        found.append(engine.extend([Chunk(cache, [7, 8], 2)]))
        engine.truncate(cache, 0)
        np.testing.assert_array_equal(found[-1], found[0])
        assert list(engine._bindings) == ranges


@pytest.mark.parametrize(("variant", "kind"), [("fp32", OneRowStock), ("gqa", OneRowStock), ("gqa", OneRowRagged)])
def test_without_the_even_rows_it_is_not(hub, variant, kind):
    assert not self_test.run(alone(hub, variant, kind)).is_exact


@pytest.mark.parametrize(("variant", "kind"), [("quantized", StockEngine), ("quantized_gqa", RaggedEngine)])
def test_a_graph_whose_rows_share_a_scale_is_run_token_by_token_and_says_so(hub, variant, kind, caplog):
    engine = hub.engine(variant, 4, 1)
    assert isinstance(engine, kind)
    assert isinstance(engine, CanRunSingly)
    assert not self_test.run(engine).is_exact
    assert self_test.make_exact(engine).is_exact
    assert "each token is run alone" in caplog.text


def test_an_engine_that_is_exact_already_keeps_its_speed(hub, caplog):
    engine = hub.engine("fp32", 4, 1)
    assert self_test.make_exact(engine).is_exact
    assert caplog.text == ""


def test_what_is_not_exact_and_cannot_be_is_reported(hub):
    class Stubborn:
        """An engine that cannot run singly."""

        def __init__(self, engine):
            for verb in ("description", "open", "length", "extend", "truncate", "close"):
                setattr(self, verb, getattr(engine, verb))

    assert not self_test.make_exact(Stubborn(hub.engine("quantized", 4, 1))).is_exact


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("fp32", "each session is run alone, since 0 of 2 layers have their attention in one GroupQueryAttention node"),
        ("gqa", "sessions share passes, since its attention nodes take lengths"),
        ("turned", "sessions share passes, since its attention nodes take lengths"),
        ("split", "each session is run alone, since 0 of 2 layers have their attention in one GroupQueryAttention node"),
        ("split_gqa", "sessions share passes, since its attention nodes take lengths"),
        ("one", "each token is run alone, since its graph takes one token a run"),
        ("one_gqa", "each token is run alone, since its graph takes one token a run"),
        ("ahead", "each token is run alone, since rows of its graph see what stands behind them"),
    ],
)
def test_the_log_says_in_one_line_which_way_was_taken_and_why(hub, variant, said, caplog):
    with caplog.at_level(logging.INFO):
        hub.engine(variant, 2, 1)
    assert [said in record.getMessage() for record in caplog.records] == [True]


def test_a_prompt_longer_than_a_run_is_the_same_as_in_pieces(tmp_path):
    engine = ExportFolder(export_folder(tmp_path, **LONG)).engine("fp32", 2, 1)
    tokens = token_ids(2 * RUN_ROWS + 3, seed=2)
    whole, pieces = engine.open(), engine.open()
    last = engine.extend([Chunk(whole, tokens, 5)])
    for start in range(0, len(tokens), 50):
        engine.extend([Chunk(pieces, tokens[start : start + 50], 0)])
    rows = engine.extend([Chunk(whole, [1], 1), Chunk(pieces, [1], 1)])
    assert rows[0].tobytes() == rows[1].tobytes()
    assert last.shape == (5, 272)


def test_few_rows_are_run_at_a_time_where_the_vocabulary_is_large(hub, monkeypatch):
    monkeypatch.setattr("speculation.engines.ragged.LOGITS_LIMIT_BYTES", 4 * 272 * 4 * 7)
    few = hub.engine("gqa", 4, 1)
    monkeypatch.undo()
    assert few._pass_rows == 6
    assert logits_of(few).tobytes() == logits_of(hub.engine("gqa", 4, 1)).tobytes()


def test_an_engine_says_what_it_is(hub):
    described = hub.engine("half", 3, 1).description
    assert described.name == f"{hub.name}:half:hugging-face"
    assert (described.vocabulary_size, described.context_length, described.num_slots) == (272, 96, 3)
    assert described.kv_bytes_per_token == 2 * 2 * 2 * 16 * 2
    assert described.weight_bytes == (hub.path / "onnx" / "model_half.onnx").stat().st_size
    assert isinstance(hub.engine("half", 3, 1), Forkable)


def test_where_there_is_no_room_for_caches_in_place_sessions_are_run_alone(hub, monkeypatch, caplog):
    def refuse(num_bytes, pool_bytes):
        raise CapacityError("no 4 TiB")

    monkeypatch.setattr("speculation.engines.ragged.cache_memory", refuse)
    with caplog.at_level(logging.INFO):
        assert isinstance(hub.engine("gqa", 2, 1), StockEngine)
    assert "run alone, since there is no room for caches of 160 positions: no 4 TiB" in caplog.text


@pytest.mark.parametrize("keeps", [[], [1]], ids=["a number", "an array"])
@pytest.mark.parametrize("attention", ["plain", "gqa"])
def test_an_export_that_asks_how_many_logits_are_wanted_is_asked_for_all(tmp_path, package, attention, keeps):
    engine = ExportFolder(export_folder(tmp_path, graphs={"model.onnx": {"attention": attention, "keeps": keeps}})).engine(
        "fp32", 2, 1
    )
    assert np.abs(logits_of(engine) - reference_logits(package, TOKENS)).max() < 1e-4


def test_positions_that_the_graph_takes_and_does_not_use_are_not_given(tmp_path, package):
    graphs = {"model.onnx": {"attention": "gqa", "extra_inputs": ("position_ids",)}}
    engine = ExportFolder(export_folder(tmp_path, graphs=graphs)).engine("fp32", 2, 1)
    assert isinstance(engine, RaggedEngine)
    assert np.abs(logits_of(engine) - reference_logits(package, TOKENS)).max() < 1e-4


def test_a_graph_for_a_batch_of_one_runs_each_session_alone(tmp_path, package, caplog):
    hub = ExportFolder(export_folder(tmp_path, graphs={"model.onnx": {"attention": "gqa"}}))
    model = onnx.load(tmp_path / "onnx" / "model.onnx")
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].CopyFrom(onnx.TensorShapeProto.Dimension(dim_value=1))
    onnx.save(model, tmp_path / "onnx" / "model.onnx")
    with caplog.at_level(logging.INFO):
        engine = hub.engine("fp32", 2, 1)
    assert isinstance(engine, StockEngine)
    assert "run alone, since" in caplog.text
    assert self_test.run(engine).is_exact
    assert np.abs(logits_of(engine) - reference_logits(package, TOKENS)).max() < 1e-4


@pytest.mark.parametrize(("attention", "kind"), [("plain", StockEngine), ("gqa", RaggedEngine)])
def test_weights_may_lie_in_shards_beside_the_graph(tmp_path, package, attention, kind):
    hub = ExportFolder(export_folder(tmp_path, graphs={"model_q4.onnx": {"attention": attention}}))
    shard(tmp_path / "onnx" / "model_q4.onnx")
    engine = hub.engine("q4", 2, 1)
    assert isinstance(engine, kind)
    assert np.abs(logits_of(engine) - reference_logits(package, TOKENS)).max() < 1e-4
    assert engine.description.weight_bytes == sum(file.stat().st_size for file in (tmp_path / "onnx").iterdir())
    assert self_test.run(engine).is_exact


def shard(path):
    """Move every constant that is larger than a few numbers into one of two files, as large exports have them."""
    model = onnx.load(path)
    files = [path.with_name(f"{path.name}_data"), path.with_name(f"{path.name}_data_1")]
    parts = [bytearray(), bytearray()]
    for number, tensor in enumerate(t for t in model.graph.initializer if len(t.raw_data) > 256):
        part, data = parts[number % 2], tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", files[number % 2].name), ("offset", len(part)), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))
        part += data + bytes(-len(data) % 4096)
    path.write_bytes(model.SerializeToString())
    for file, part in zip(files, parts, strict=True):
        file.write_bytes(part)
