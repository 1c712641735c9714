"""Folders of another layout than is known: refused with what was found and what would be right."""

import shutil

import pytest

from speculation.engines.pairs import load_model
from speculation.errors import PackageError, UnknownNameError
from tests.speculation.engines.bad_exports.scene import GRAPH, use
from tests.speculation.engines.tiny import tiny_pair


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
