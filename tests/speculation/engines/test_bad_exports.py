"""Folders that must not load: each is refused before it is used, with what was found and what would be right."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from speculation.engines import files
from speculation.engines.exports import ExportFolder
from speculation.engines.pairs import load_model
from speculation.errors import PackageError, UnknownNameError
from tests.speculation.engines.stock_graphs import export_folder, genai_folder, split_graphs, stock_graph, transformers_folder
from tests.speculation.engines.tiny import TINY, tiny_pair

GRAPH = "onnx/model.onnx"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return export_folder(tmp_path_factory.mktemp("good"))


@pytest.fixture
def path(good, tmp_path):
    return shutil.copytree(good, tmp_path / "model")


def use(path):
    """All that a service does with a model."""
    model = load_model(path)
    assert model.tokenizer
    assert model.digest
    return [model.engine(variant, 2, 1) for variant in model.variants]


def change_json(path, **entries):
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def change_graph(path, change):
    model = onnx.load(path / GRAPH)
    change(model)
    onnx.save(model, path / GRAPH)


def set_external(path, tensor_name="model.embed_tokens.weight", **entries):
    """Say that a constant lies in another file; the file ``weights`` beside the graph has the right bytes."""
    (path / "onnx" / "weights").write_bytes(np.zeros((272, 32), np.float32).tobytes())
    model = onnx.load(path / GRAPH)
    tensor = next(t for t in model.graph.initializer if t.name == tensor_name)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))
    (path / GRAPH).write_bytes(model.SerializeToString())


def test_the_folder_that_the_others_are_made_of_is_good(path):
    assert len(use(path)) == 1


def test_weights_beside_the_graph_are_read_and_part_of_the_digest(path):
    set_external(path, location="weights", offset=0, length=272 * 32 * 4)
    before = load_model(path).digest
    assert use(path)
    (path / "onnx" / "weights").write_bytes(np.ones((272, 32), np.float32).tobytes())
    assert load_model(path).digest != before


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "/etc/passwd"}, "inside the folder"),
        ({"location": "../../weights"}, "no '..'"),
        ({"location": "..\\weights"}, "forward slashes"),
        ({"location": "C:weights"}, "relative path"),
        ({"location": "elsewhere"}, "elsewhere is not there"),
        ({"location": ""}, "is not there|relative path"),
        ({"length": 4}, "is not there|relative path"),
        ({"location": "link"}, "symbolic link"),
        ({"location": "weights", "offset": 40_000}, "which has 34816"),
        ({"location": "weights", "offset": 0, "length": 40_000}, "which has 34816"),
        ({"location": "weights", "offset": 34_816, "length": 1}, "which has 34816"),
        ({"location": "weights", "offset": -4}, "which has 34816"),
        ({"location": "weights", "length": -4}, "which has 34816"),
        ({"location": "weights", "offset": "four"}, "no number"),
    ],
    ids=str,
)
def test_weights_outside_the_folder_or_the_file_are_refused(path, entries, said):
    (path / "onnx" / "link").symlink_to("/etc/passwd")
    set_external(path, **entries)
    for use_only in (lambda model: model.graph("fp32"), lambda model: model.digest):
        with pytest.raises(PackageError, match=said):
            use_only(load_model(path))


def test_sparse_weights_are_looked_at_too(path):
    def make_sparse(model):
        values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
        values.ClearField("float_data")
        values.data_location = TensorProto.EXTERNAL
        values.external_data.add(key="location", value="../../secrets")
        sparse = helper.make_sparse_tensor(values, helper.make_tensor("places", TensorProto.INT64, [1], [0]), [4])
        model.graph.sparse_initializer.append(sparse)

    model = onnx.load(path / GRAPH)
    make_sparse(model)
    (path / GRAPH).write_bytes(model.SerializeToString())
    with pytest.raises(PackageError, match=r"no '\.\.'"):
        use(path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", GRAPH, "generation_config.json"])
def test_a_symbolic_link_is_refused(path, name):
    target = path / "elsewhere"
    (path / name).rename(target)
    (path / name).symlink_to(target)
    with pytest.raises(PackageError, match="symbolic link"):
        use(path)


@pytest.mark.parametrize(
    ("name", "limit"),
    [("config.json", "CONFIG_LIMIT_BYTES"), ("tokenizer.json", "TOKENIZER_LIMIT_BYTES"), (GRAPH, "GRAPH_LIMIT_BYTES")],
)
def test_a_file_over_its_limit_is_refused_before_it_is_read(path, name, limit):
    limit_bytes = getattr(files, limit)
    with (path / name).open("r+b") as file:
        file.truncate(limit_bytes + 1)
    with pytest.raises(PackageError, match=f"{limit_bytes + 1} bytes; at most {limit_bytes}"):
        use(path)


def test_a_genai_configuration_over_its_limit_is_refused(tmp_path):
    path = genai_folder(tmp_path / "genai")
    with (path / "genai_config.json").open("r+b") as file:
        file.truncate(1024 * 1024 + 1)
    with pytest.raises(PackageError, match="at most 1048576"):
        use(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"\xff\xfe", "is not JSON"),
        (b'{"vocab_size": 1, "vocab_size": 2}', "stands twice"),
        (b"[]", "must be a JSON object"),
        (b"{}", "config.json lacks num_hidden_layers"),
    ],
    ids=["empty", "nested", "no UTF-8", "a key twice", "a list", "nothing in it"],
)
def test_a_configuration_that_is_none_is_refused(path, content, said):
    (path / "config.json").write_bytes(content)
    with pytest.raises(PackageError, match=said):
        use(path)


@pytest.mark.parametrize("value", [0, -1, 2**31, 1.5, "96", True, [96]])
@pytest.mark.parametrize("key", ["num_hidden_layers", "max_position_embeddings", "vocab_size", "num_key_value_heads"])
def test_a_size_that_is_none_is_refused(path, key, value):
    change_json(path / "config.json", **{key: value})
    with pytest.raises(PackageError, match=f"{key} must be a whole number"):
        use(path)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"num_hidden_layers": 3}, "caches for 2 layers; config.json says 3"),
        ({"num_hidden_layers": 1}, "caches for 2 layers; config.json says 1"),
        ({"num_hidden_layers": 2**31 - 1}, "caches for 2 layers; config.json says 2147483647"),
        ({"vocab_size": 2**31 - 1}, "a vocabulary of 2147483647 tokens is more than"),
        ({"num_key_value_heads": 4}, "key-value heads 2; config.json says 4"),
        ({"head_dim": 8}, "head size 16; config.json says 8"),
        ({"vocab_size": 300}, "a vocabulary of 272; config.json says 300"),
        ({"vocab_size": 200}, "has 257 tokens|vocabulary of 272; config.json says 200"),
    ],
    ids=str,
)
def test_a_configuration_and_a_graph_that_disagree_are_refused_with_both_figures(path, entries, said):
    change_json(path / "config.json", **entries)
    with pytest.raises(PackageError, match=said):
        use(path)


@pytest.mark.parametrize("value", [[272], -1, "end", [0, True]])
def test_an_end_token_that_is_none_is_refused(path, value):
    change_json(path / "generation_config.json", eos_token_id=value)
    with pytest.raises(PackageError, match="eos_token_id"):
        use(path)


@pytest.mark.parametrize("content", [b"", b"\x08\xff", b"not a graph", b"version https://git-lfs.github.com/spec/v1\n"])
def test_a_graph_that_is_none_is_refused(path, content):
    (path / GRAPH).write_bytes(content)
    with pytest.raises(PackageError, match=r"model.onnx"):
        use(path)


def test_a_pointer_of_git_lfs_is_told_from_a_damaged_graph(path):
    (path / GRAPH).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    with pytest.raises(PackageError, match="git lfs pull"):
        ExportFolder(path).engine("fp32", 2, 1)


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


def with_tokens_of_a_run(count):
    def change(model):
        model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = count

    return change


def with_need_of_a_cache(model):
    """A graph that looks at the first token of its cache, which may not be there."""
    zero = helper.make_tensor("the_first", TensorProto.INT64, [], [0])
    model.graph.initializer.extend([zero, helper.make_tensor("nothing_of_it", TensorProto.FLOAT, [], [0.0])])
    for node in model.graph.node:
        node.output[:] = ["logits.before" if name == "logits" else name for name in node.output]
    model.graph.node.extend(
        [
            helper.make_node("Gather", ["past_key_values.0.key", "the_first"], ["first_key"], axis=2),
            helper.make_node("ReduceSum", ["first_key"], ["first_sum"], keepdims=0),
            helper.make_node("Mul", ["first_sum", "nothing_of_it"], ["no_sum"]),
            helper.make_node("Add", ["logits.before", "no_sum"], ["logits"]),
        ]
    )


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


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("past", "must hold %d once"),
        ("past_%d_%d", "must hold %d once"),
        ("past_%s", "must hold %d once"),
        (7, "must be a name"),
    ],
)
def test_a_template_of_names_that_is_none_is_refused(tmp_path, template, said):
    path = genai_folder(tmp_path / "genai")
    config = json.loads((path / "genai_config.json").read_text())
    config["model"]["decoder"]["inputs"]["past_key_names"] = template
    (path / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(PackageError, match=said):
        use(path)


@pytest.mark.parametrize(
    ("name", "said"), [(None, "filename is None"), ("../decoder.onnx", "no '..'"), ("/decoder.onnx", "relative")]
)
def test_a_genai_graph_elsewhere_is_refused(tmp_path, name, said):
    path = genai_folder(tmp_path / "genai")
    config = json.loads((path / "genai_config.json").read_text())
    config["model"]["decoder"]["filename"] = name
    (path / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(PackageError, match=said):
        use(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"components": None}, "components must be a JSON object"),
        ({"components": {}}, "an export of transformers 5 with the components none; decode or model is needed"),
        ({"components": {"prefill": {}, "lm_head": {}}}, "with the components lm_head, prefill; decode or model is needed"),
        ({"components": {"decode": {}}}, r"components.decode.file is None; the name of a graph is right"),
        ({"components": {"decode": {"file": "decode.onnx"}}}, r"components.decode.metadata must be a JSON object"),
    ],
)
def test_a_list_of_an_export_without_a_usable_decoder_is_refused(tmp_path, change, said):
    path = transformers_folder(tmp_path / "exported")
    change_json(path / "export.json", **change)
    with pytest.raises(PackageError, match=said):
        use(path)


@pytest.mark.parametrize(
    ("file", "said"), [("../decode.onnx", "no '..'"), ("/decode.onnx", "relative"), ("else.onnx", "is not there")]
)
def test_a_decoder_elsewhere_is_refused(tmp_path, file, said):
    path = transformers_folder(tmp_path / "exported")
    change_decoder(path, file=file)
    with pytest.raises(PackageError, match=said):
        use(path)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"input_ids": {"rank": 2}}, "none"),
        ({"cache": {"container": "StaticCache"}}, "StaticCache"),
        ({"cache": {"container": "DynamicCache"}, "other": {"container": "DynamicCache"}}, "DynamicCache, DynamicCache"),
        ({"%d": {"container": "DynamicCache"}}, "DynamicCache"),
    ],
)
def test_caches_that_do_not_grow_as_ours_do_are_refused(tmp_path, arguments, found):
    path = transformers_folder(tmp_path / "exported")
    change_decoder(path, metadata={"kwargs": arguments})
    with pytest.raises(PackageError, match=f"caches of another kind: {found}; one DynamicCache is right"):
        use(path)


def change_decoder(path, **entries):
    components = json.loads((path / "export.json").read_text())["components"]
    change_json(path / "export.json", components={**components, "decode": components["decode"] | entries})


def test_a_decoder_of_a_fixed_number_of_tokens_is_refused(path):
    change_graph(path, with_tokens_of_a_run(2))
    with pytest.raises(PackageError, match=r"2 tokens a run; any number is right, or one .*multi_token_decode"):
        use(path)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"model": 1}', b"[" * 1000])
def test_a_tokenizer_that_is_none_is_refused(path, content):
    (path / "tokenizer.json").write_bytes(content)
    with pytest.raises(PackageError, match=r"tokenizer.json is not a tokenizer"):
        use(path)


def remove(*names):
    def change(path):
        for name in names:
            (path / name).unlink()

    return change


def older_form(path):
    (path / GRAPH).rename(path / "onnx" / "decoder_model.onnx")


def transformers_5(path):
    (path / GRAPH).unlink()
    (path / "export.json").write_text("{}")


def transformers_5_without_a_configuration(path):
    remove("config.json")(path)
    (path / "export.json").write_text("{}")


def checkpoint(path):
    (path / GRAPH).unlink()
    (path / "model.safetensors").write_bytes(b"")


def weights_by_another_name(path):
    (path / GRAPH).unlink()
    (path / "weights.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (checkpoint, "model.safetensors has 0 bytes; a safetensors file begins with"),
        (weights_by_another_name, "has weights, but neither model.safetensors nor model.safetensors.index.json"),
        (remove("tokenizer.json"), r"has no tokenizer.json; copy the one"),
        (remove(GRAPH), r"has config.json but no graph; onnx/model.onnx .* is right, found: config.json"),
        (remove("config.json"), r"neither manifest.json, nor config.json, nor genai_config.json, but generation_config.json"),
        (older_form, "decoder graphs of the older form"),
        (older_form, "decoder_model.onnx, and lacks the one with a past; decoder_with_past_model.onnx must lie beside it"),
        (transformers_5, "an export of transformers 5"),
        (transformers_5, r"with no .onnx graph; export it with OnnxExporter"),
        (transformers_5_without_a_configuration, r"an export of transformers 5 \(export.json\) with no config.json"),
        (shutil.rmtree, "is not a folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_folder_of_another_layout_is_refused_with_what_would_be_right(path, change, said):
    change(path)
    with pytest.raises(PackageError, match=said):
        use(path)


def test_a_pair_given_as_a_model_is_told_from_one(tmp_path):
    pair = tiny_pair(tmp_path / "pair")
    with pytest.raises(PackageError, match="it is a pair: give it as the pair"):
        load_model(pair.draft.path.parent)


def test_a_variant_that_does_not_exist_is_answered_with_those_that_do(good):
    with pytest.raises(UnknownNameError, match="'q4'; known: fp32"):
        load_model(good).engine("q4", 2, 1)
