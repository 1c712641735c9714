"""Graphs that must not load: each is refused before it is used, with what was found and what would be right."""

import onnx
import pytest
from onnx import TensorProto, helper

from speculation.engines.exports import ExportFolder
from speculation.errors import PackageError
from tests.speculation.engines.bad_exports.scene import (
    GRAPH,
    change_graph,
    change_json,
    use,
    with_need_of_a_cache,
    with_tokens_of_a_run,
)
from tests.speculation.engines.stock_graphs import export_folder, split_graphs, stock_graph
from tests.speculation.engines.tiny import TINY


@pytest.mark.parametrize("content", [b"", b"\x08\xff", b"not a graph", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_graph_that_is_none_is_refused(path, content):
    (path / GRAPH).write_bytes(content)
    with pytest.raises(PackageError, match=r"model.onnx"):
        use(path)


def test_a_pointer_of_git_lfs_is_told_from_a_damaged_graph(path):
    (path / GRAPH).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(PackageError, match="git lfs pull"):
        ExportFolder(path).engine("fp32", 2, 1)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "onnx/model_q4.onnx"])
def test_a_pointer_in_place_of_any_file_that_is_read_is_told_as_one(path, name):
    (path / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(PackageError, match=f"{name} is a pointer of Git LFS, .*git lfs pull"):
        use(path)


@pytest.mark.parametrize("size", [100, 5_000, 50_000])
def test_a_graph_that_is_cut_short_is_refused(path, size):
    whole = (path / GRAPH).read_bytes()
    (path / GRAPH).write_bytes(whole[: len(whole) - size])
    with pytest.raises(PackageError, match=r"model.onnx"):
        use(path)


def without_output(name):
    def change(model):
        kept = [value for value in model.graph.output if value.name != name]
        del model.graph.output[:]
        model.graph.output.extend(kept)

    return change


def without_input(name):
    def change(model):
        kept = [value for value in model.graph.input if value.name != name]
        del model.graph.input[:]
        model.graph.input.extend(kept)

    return change


def with_type(name, kind):
    def change(model):
        for value in model.graph.input:
            if value.name == name:
                value.type.tensor_type.elem_type = kind

    return change


def with_output_type(name, kind):
    def change(model):
        for value in model.graph.output:
            if value.name == name:
                value.type.tensor_type.elem_type = kind

    return change


def with_product_of_no_size(model):
    model.graph.node[0].op_type, model.graph.node[0].domain = "MatMulNBits", "com.microsoft"


def with_domain(model):
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def with_operator(model):
    model.graph.node[0].op_type = "Teleport"


def one_row_of_logits(model):
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1


def with_caches_of(num_tokens):
    def change(model):
        for value in model.graph.input:
            if value.name.startswith("past_key_values."):
                value.type.tensor_type.shape.dim[2].dim_value = num_tokens

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_caches_of(7), "model.onnx has caches of 7 tokens, always; a number that grows, and may be 0, is right"),
        (with_tokens_of_a_run(128), r"takes input_ids of shape \[0, 128\]: 128 tokens a run; any number is right, or one"),
        (with_need_of_a_cache, "cannot be used for two tokens: .*; right is a graph that runs with caches of no tokens"),
        (without_output("logits"), "no output logits"),
        (without_output("present.1.value"), r"no output present.1.value"),
        (without_input("input_ids"), "no input input_ids"),
        (without_input("past_key_values.1.key"), r"caches for 1.5 layers; config.json says 2"),
        (with_type("past_key_values.0.key", TensorProto.FLOAT16), "caches of FLOAT, FLOAT16; FLOAT or FLOAT16 is right"),
        (with_type("input_ids", TensorProto.FLOAT), "takes input_ids as FLOAT; INT64"),
        (with_type("input_ids", 99), "takes input_ids as type 99; INT64"),
        (with_type("past_key_values.0.key", -1), "caches of FLOAT, type -1; FLOAT or FLOAT16 is right"),
        (with_output_type("logits", 99), "gives logits of type 99; FLOAT or FLOAT16 is right"),
        (with_product_of_no_size, "cannot be loaded by ONNX Runtime"),
        (with_domain, r"operators of com.example, which need a library of their own; known: ai.onnx, .*com.microsoft"),
        (with_operator, "cannot be loaded by ONNX Runtime: .*Teleport"),
        (one_row_of_logits, "logits of the last token only"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_graph_of_another_form_is_refused(path, change, said):
    change_graph(path, change)
    with pytest.raises(PackageError, match=said):
        use(path)


def test_a_vocabulary_that_the_graph_leaves_open_is_found_out_by_a_first_run(tmp_path):
    path = export_folder(tmp_path / "open", graphs={"model.onnx": {"attention": "gqa"}})
    change_json(path / "config.json", vocab_size=300)

    def leave_open(model):
        model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "vocabulary"

    change_graph(path, leave_open)
    with pytest.raises(PackageError, match="for two tokens"):
        use(path)


def test_inputs_that_are_not_known_are_named_with_those_that_are(path):
    onnx.save(stock_graph(TINY, extra_inputs=("cache_position", "encoder_states")), path / GRAPH)
    known = r"cache_position, encoder_states; known: input_ids, .*, num_logits_to_keep, use_cache_branch and past_key"
    with pytest.raises(PackageError, match=known):
        use(path)


def test_a_graph_that_forgets_is_found_out_by_a_first_run(path):
    """It gives a cache without the new rows, which no declared shape shows."""

    def forget(model):
        for node in model.graph.node:
            if node.op_type == "Concat" and "present.0.key" in node.output:
                node.output[0] = "kept.0.key"
                model.graph.node.append(helper.make_node("Identity", ["past_key_values.0.key"], ["present.0.key"]))
        for node in model.graph.node:
            node.input[:] = ["kept.0.key" if name == "present.0.key" else name for name in node.input]

    change_graph(path, forget)
    with pytest.raises(PackageError, match="for two tokens"):
        use(path)


def test_a_graph_whose_half_for_later_runs_forgets_is_found_out_by_a_second_run(tmp_path):
    graphs = {"decoder_model_merged.onnx": {"forgets": True}}
    with pytest.raises(PackageError, match="cannot be used"):
        use(export_folder(tmp_path / "merged", graphs=graphs))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"has_past": False}, "decoder_with_past_model.onnx has no input past_key_values.0.key, .*; a decoder with a cache is"),
        ({"num_tokens": 3}, r"decoder_with_past_model.onnx takes input_ids of shape \[0, 3\]: 3 tokens a run; any number"),
        ({"num_tokens": 1, "extra_inputs": ("encoder_states",)}, "inputs that are not known: encoder_states; known: input_ids"),
    ],
    ids=str,
)
def test_the_half_of_a_decoder_that_goes_on_behind_a_cache_must_be_one(tmp_path, given, said):
    with pytest.raises(PackageError, match=said):
        use(export_folder(tmp_path / "split", graphs=split_graphs(**given)))


def test_a_half_that_needs_a_cache_to_begin_with_is_refused(tmp_path):
    path = export_folder(tmp_path / "split", graphs=split_graphs(num_tokens=1))
    file = path / "onnx" / "decoder_with_past_model.onnx"
    model = onnx.load(file)
    with_need_of_a_cache(model)
    onnx.save(model, file)
    with pytest.raises(PackageError, match=r"decoder_with_past_model.onnx cannot be used for one token: .*caches of no tokens"):
        use(path)


def test_a_choice_of_halves_that_is_no_truth_value_is_refused(path):
    onnx.save(stock_graph(TINY, extra_inputs=("use_cache_branch",)), path / GRAPH)
    with pytest.raises(PackageError, match="takes use_cache_branch as INT64 of 1 dimensions; BOOL of 1 is right"):
        use(path)


def test_a_decoder_of_a_fixed_number_of_tokens_is_refused(path):
    change_graph(path, with_tokens_of_a_run(2))
    with pytest.raises(PackageError, match=r"2 tokens a run; any number is right, or one .*multi_token_decode"):
        use(path)


def test_tables_of_positions_of_a_type_that_is_none_are_refused(tmp_path):
    path = export_folder(tmp_path, graphs={"model.onnx": {"attention": "gqa"}})

    def change(model):
        for tensor in model.graph.initializer:
            if tensor.name in ("cos", "sin"):
                tensor.data_type = 99

    change_graph(path, change)
    with pytest.raises(PackageError, match=r"cannot be loaded by ONNX Runtime"):
        use(path)
