"""Which files of a repository are taken."""

import json

import pytest

from speculation.engines.selection import files_of
from speculation.errors import InvalidRequestError, PackageError, UnknownNameError
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint
from tests.speculation.engines.stock_graphs import export_folder, genai_folder, split_graphs, transformers_folder

CONFIG = config_of("smollm")
OTHERS = ("README.md", "pytorch_model.bin", "model.gguf", "onnx/model_q4.txt", "training/optimizer.pt")


def chosen(path, *variants, also=()):
    names = [p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()]
    return files_of([*names, *also], variants, lambda name: path / name)


def test_of_an_export_the_graphs_that_were_asked_for_are_taken(tmp_path):
    export_folder(tmp_path, graphs={"model.onnx": {}, "model_q4.onnx": {}, "model_int8.onnx": {}})
    small = ["config.json", "generation_config.json"]
    assert chosen(tmp_path, "q4", also=OTHERS) == [*small, "onnx/model_q4.onnx", "tokenizer.json"]
    assert chosen(tmp_path, "q4", "fp32", also=OTHERS) == [*small, "onnx/model.onnx", "onnx/model_q4.onnx", "tokenizer.json"]
    assert chosen(tmp_path, "elsewhere", also=OTHERS) == [*small, "tokenizer.json"]
    with pytest.raises(InvalidRequestError, match="which of fp32, int8, q4 to take"):
        chosen(tmp_path)
    with pytest.raises(UnknownNameError, match="'q5'; known: elsewhere, fp32, int8, q4"):
        chosen(tmp_path, "q5")
    with pytest.raises(InvalidRequestError, match="taken alone"):
        chosen(tmp_path, "q4", "elsewhere")


def test_of_a_split_decoder_the_half_with_a_past_is_taken(tmp_path):
    export_folder(tmp_path, graphs=split_graphs())
    assert [name for name in chosen(tmp_path) if name.endswith(".onnx")] == ["onnx/decoder_with_past_model.onnx"]


def test_files_that_a_graph_names_go_with_it(tmp_path):
    import onnx

    export_folder(tmp_path)
    graph = onnx.load(tmp_path / "onnx" / "model.onnx")
    onnx.save(graph, tmp_path / "onnx" / "model.onnx", save_as_external_data=True, location="weights.data", size_threshold=0)
    assert "onnx/weights.data" in chosen(tmp_path, "fp32")
    (tmp_path / "onnx" / "weights.data").unlink()
    with pytest.raises(PackageError, match=r"onnx/weights\.data is not there"):
        chosen(tmp_path, "fp32")


def test_what_is_named_as_a_pickle_is_never_taken(tmp_path):
    import onnx

    export_folder(tmp_path)
    graph = onnx.load(tmp_path / "onnx" / "model.onnx")
    onnx.save(graph, tmp_path / "onnx" / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(PackageError, match="the name of a pickle"):
        chosen(tmp_path, "fp32")


@pytest.mark.parametrize("shards", [1, 2])
def test_of_a_checkpoint_its_weights_are_taken(tmp_path, shards):
    write_checkpoint(tmp_path, CONFIG, weights_of(CONFIG), shards=shards)
    (tmp_path / "LICENSE").write_text("mine")
    weights = {name for name in chosen(tmp_path, also=OTHERS) if "safetensors" in name}
    assert weights == {p.name for p in tmp_path.glob("*safetensors*")}
    assert chosen(tmp_path, also=OTHERS) == chosen(tmp_path, "transformers", also=OTHERS)
    assert "LICENSE" in chosen(tmp_path)


def test_of_a_folder_of_onnxruntime_genai_its_graph_is_taken(tmp_path):
    genai_folder(tmp_path)
    assert chosen(tmp_path, also=OTHERS) == ["decoder.onnx", "genai_config.json", "tokenizer.json"]


def test_beside_no_graph_the_configuration_of_onnxruntime_genai_is_left_out_which_would_name_one(tmp_path):
    write_checkpoint(tmp_path, CONFIG, weights_of(CONFIG))
    genai_folder(tmp_path)
    small = ["config.json", "tokenizer.json"]
    assert chosen(tmp_path, "elsewhere", also=OTHERS) == small
    assert chosen(tmp_path, "transformers", also=OTHERS) == sorted([*small, "model.safetensors"])
    assert "genai_config.json" in chosen(tmp_path, "genai", also=OTHERS)
    (tmp_path / "config.json").unlink()
    with pytest.raises(PackageError, match=r"config\.json is not there"):
        chosen(tmp_path, "elsewhere", also=OTHERS)


def test_of_an_export_of_transformers_the_decoder_and_its_list_are_taken(tmp_path):
    transformers_folder(tmp_path)
    wanted = ["config.json", "decode.onnx", "export.json", "tokenizer.json"]
    assert chosen(tmp_path, also=OTHERS) == wanted
    assert chosen(tmp_path, "decode", also=OTHERS) == wanted
    assert chosen(tmp_path, "elsewhere", also=OTHERS) == ["config.json", "tokenizer.json"]


def test_the_weights_beside_an_export_of_transformers_are_taken_without_it(tmp_path):
    write_checkpoint(tmp_path, CONFIG, weights_of(CONFIG))
    transformers_folder(tmp_path)
    assert chosen(tmp_path, "transformers", also=OTHERS) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_a_repository_of_pickles_is_told_why_it_is_refused(tmp_path):
    write_checkpoint(tmp_path, CONFIG, weights_of(CONFIG))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(PackageError, match=r"pytorch_model\.bin.*a pickle can run code"):
        chosen(tmp_path, also=OTHERS)


def test_a_folder_without_a_tokenizer_and_one_that_is_no_model_are_refused(tmp_path):
    with pytest.raises(PackageError, match=r"config\.json, tokenizer\.json is not there"):
        chosen(tmp_path, also=OTHERS)


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "a\\b", "c:d", "a/../../b"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    write_checkpoint(tmp_path, CONFIG, weights_of(CONFIG))
    with pytest.raises(PackageError, match="must be a relative path"):
        chosen(tmp_path, also=[name])


def test_an_index_that_leads_out_of_the_folder_is_refused(tmp_path):
    write_checkpoint(tmp_path, CONFIG, weights_of(CONFIG), shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(PackageError, match="is not there"):
        chosen(tmp_path)
