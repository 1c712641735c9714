"""Checkpoints are read as they are, and hostile ones refused with the reason."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from speculation.engines import checkpoint as module
from speculation.engines.checkpoint import Checkpoint
from speculation.engines.manifest import INDEX
from speculation.engines.safetensors_file import BLOCK_WEIGHTS
from speculation.errors import PackageError
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint

CONFIG = config_of("qwen2")
WEIGHTS = weights_of(CONFIG)


@pytest.fixture
def path(tmp_path):
    return write_checkpoint(tmp_path / "checkpoint", CONFIG, WEIGHTS)


@pytest.fixture
def sharded(tmp_path):
    return write_checkpoint(tmp_path / "sharded", CONFIG, WEIGHTS, ml_dtypes.bfloat16, shards=3)


def refused(path):
    with pytest.raises(PackageError) as refusal:
        Checkpoint(path)
    return str(refusal.value)


def edit(file, change):
    """Change a JSON file in place."""
    value = json.loads(file.read_text())
    change(value)
    file.write_text(json.dumps(value))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shards", [1, 3])
def test_weights_come_as_float32_whatever_they_are_stored_in(tmp_path, dtype, shards):
    found = Checkpoint(write_checkpoint(tmp_path, CONFIG, WEIGHTS, dtype, shards))
    assert set(found) == WEIGHTS.keys()
    for name, values in WEIGHTS.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], values.astype(dtype).astype(np.float32))


MASKS = {
    "gpt_neox.layers.0.attention.bias": np.tri(4, dtype=np.uint8)[None, None],
    "transformer.h.0.attn.bias": np.tri(4, dtype=np.bool_)[None, None],
    "gpt_neox.layers.0.attention.masked_bias": np.array(-np.inf, np.float16),
}


@pytest.mark.parametrize("shards", [1, 2])
def test_masks_that_older_software_saved_are_no_weights(tmp_path, shards):
    """As in the checkpoints of Pythia, GPT-J and GPT-Neo; the largest negative number is infinite in float16."""
    stored = {"one.weight": np.ones((2, 3), np.float16), "two.weight": np.ones(3, np.float16), **MASKS}
    path = write_checkpoint(tmp_path, CONFIG, WEIGHTS)
    (path / "model.safetensors").unlink()
    names = sorted(stored)
    places = {name: f"part-{number % shards}.safetensors" for number, name in enumerate(names)}
    for place in set(places.values()):
        (path / place).write_bytes(save({name: stored[name] for name in names if places[name] == place}))
    (path / INDEX).write_text(json.dumps({"weight_map": places}))
    found = Checkpoint(path)
    assert set(found) == {"one.weight", "two.weight"}
    assert sum(found.sizes.values()) == 9


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("layers.0.attention.bias", np.zeros((4, 4), np.uint8)),
        ("layers.0.attention.bias", np.zeros((1, 1, 4, 2), np.uint8)),
        ("layers.0.attention.weight", np.zeros((1, 1, 4, 4), np.uint8)),
        ("layers.0.attention.bias", np.zeros((1, 1, 4, 4), np.int8)),
    ],
)
def test_other_bytes_are_what_is_quantised_already(path, name, values):
    (path / "model.safetensors").write_bytes(save({"one.weight": np.ones(3, np.float32), name: values}))
    assert "not what is quantised already" in refused(path)


def test_a_weight_that_is_larger_than_a_block_is_read_whole(tmp_path):
    values = np.arange(BLOCK_WEIGHTS + 7, dtype=np.float32)
    found = Checkpoint(write_checkpoint(tmp_path, CONFIG, {"one": np.ones(3), "two": values}))
    np.testing.assert_array_equal(found["two"], values)
    assert found.are_equal("two", "two")
    assert not found.are_equal("one", "two")


@pytest.mark.parametrize("cut", range(0, 400, 13))
def test_a_file_that_is_cut_anywhere_is_refused(path, cut):
    file = path / "model.safetensors"
    os.truncate(file, cut if cut < 200 else file.stat().st_size - cut)
    assert str(file) in refused(path)


def test_a_missing_shard_is_named(sharded):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors is not there; the checkpoint is incomplete" in refused(sharded)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/hostname", "a/../../b", "c:\\x", "."])
def test_a_shard_outside_the_folder_is_refused(sharded, name):
    edit(sharded / INDEX, lambda index: index["weight_map"].update({"model.norm.weight": name}))
    assert "must be a relative path inside the checkpoint" in refused(sharded)


@pytest.mark.parametrize("name", ["model-00001-of-00003.safetensors", INDEX, "config.json", "tokenizer.json"])
def test_a_symbolic_link_is_refused(sharded, name):
    (sharded / name).rename(sharded.parent / "elsewhere")
    (sharded / name).symlink_to(sharded.parent / "elsewhere")
    assert f"{name} is a symbolic link; a checkpoint holds plain files only" in refused(sharded)


def test_weights_behind_a_symbolic_link_are_refused(path):
    (path / "model.safetensors").rename(path.parent / "elsewhere")
    (path / "model.safetensors").symlink_to(path.parent / "elsewhere")
    assert "is a symbolic link" in refused(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index["weight_map"].update(other="model-00001-of-00003.safetensors"), "which has no such tensor"),
        (lambda index: index["weight_map"].pop("model.norm.weight"), "holds model.norm.weight, which .* does not place there"),
        (lambda index: index.pop("weight_map"), "must have weight_map"),
        (lambda index: index.update(weight_map={}), "must have weight_map"),
        (lambda index: index.update(weight_map={"model.norm.weight": 7}), "must have weight_map"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(sharded, change, message):
    edit(sharded / INDEX, change)
    with pytest.raises(PackageError, match=message):
        Checkpoint(sharded)


def test_an_index_that_places_a_weight_twice_is_refused(sharded):
    text = (sharded / INDEX).read_text()
    twice = text.replace('"weight_map": {', '"weight_map": {"model.norm.weight": "x.safetensors", ')
    (sharded / INDEX).write_text(twice)
    assert "the key 'model.norm.weight' stands twice" in refused(sharded)


def test_pickles_are_refused_unread(path):
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n")
    assert "pytorch_model.bin, and a pickle can run code: save it as safetensors" in refused(path)


def test_a_folder_without_weights_is_refused(path):
    (path / "model.safetensors").unlink()
    assert "neither model.safetensors nor model.safetensors.index.json" in refused(path)


def test_what_is_no_folder_is_refused(tmp_path):
    assert "is not a folder; a checkpoint is a folder with" in refused(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(path, name):
    (path / name).unlink()
    assert f"{name} is not there; the checkpoint is incomplete" in refused(path)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("config.json", "CONFIG_LIMIT_BYTES"),
        ("tokenizer.json", "TOKENIZER_LIMIT_BYTES"),
        ("generation_config.json", "CONFIG_LIMIT_BYTES"),
        (INDEX, "INDEX_LIMIT_BYTES"),
    ],
)
def test_small_files_have_a_limit(sharded, monkeypatch, name, limit):
    with (sharded / name).open("a") as file:
        file.write(" " * 20_001)
    monkeypatch.setattr(module, limit, 20_000)
    assert f"{name} has " in refused(sharded)
    assert "at most 20000 are read" in refused(sharded)


def test_a_configuration_with_a_key_twice_is_refused(path):
    (path / "config.json").write_text('{"model_type": "llama", "model_type": "qwen2"}')
    assert "the key 'model_type' stands twice" in refused(path)


def test_a_configuration_that_is_no_object_is_refused(path):
    (path / "config.json").write_text("[]")
    assert "config.json must hold a JSON object" in refused(path)


def test_a_checkpoint_that_is_quantised_already_is_refused(path):
    edit(path / "config.json", lambda config: config.update(quantization_config={"quant_method": "gptq"}))
    assert "has quantization_config; convert the checkpoint that it was made from" in refused(path)
