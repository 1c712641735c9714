"""Configurations that are none, or say other than the graph: refused with what was found and what would be right."""

import json

import pytest

from speculation.engines.pairs import load_model
from speculation.errors import PackageError
from tests.speculation.engines.bad_exports.scene import (
    change_json,
    use,
)
from tests.speculation.engines.stock_graphs import genai_folder, transformers_folder


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


@pytest.mark.parametrize("name", ["n_positions", "max_seq_len", "seq_length"])
def test_the_context_has_the_names_that_families_give_it(path, name):
    change_json(path / "config.json", max_position_embeddings=None)
    with pytest.raises(PackageError, match=f"config.json lacks max_position_embeddings .*{name}"):
        use(path)
    change_json(path / "config.json", **{name: 40})
    assert load_model(path).context_length == 40


@pytest.mark.parametrize("value", [[272], -1, "end", [0, True]])
def test_an_end_token_that_is_none_is_refused(path, value):
    change_json(path / "generation_config.json", eos_token_id=value)
    with pytest.raises(PackageError, match="eos_token_id"):
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
