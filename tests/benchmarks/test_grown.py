"""A grown model is the bundled one with zeros round it."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.grown import Shape, grow
from speculation.engines.package import bundled_pair_path

SOURCE = bundled_pair_path() / "full"
SHAPE = Shape(512, 7, 1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("grown") / "model"
    num_parameters = grow(SOURCE, target, SHAPE)
    assert num_parameters == sum(weight.size for weight in load_file(target / "model.safetensors").values())
    return target


def test_a_grown_model_holds_the_bundled_ones_weights_and_zeros(folder):
    weights, source = load_file(folder / "model.safetensors"), load_file(SOURCE / "model.safetensors")
    assert len(weights) == len(source) + 9  # of the layer more
    for name, grown in weights.items():
        own = source.get(name, np.zeros([0] * grown.ndim, np.float16))
        corner = grown[tuple(slice(length) for length in own.shape)]
        scale = np.sqrt(0.5) if grown.ndim == 1 else 1
        np.testing.assert_allclose(corner, own.astype(np.float32) * scale, rtol=1e-3)
        assert np.count_nonzero(grown) == np.count_nonzero(corner)


def test_its_configuration_says_how_large_it_is_and_its_norms_see_the_same(folder):
    config, source = (json.loads((path / "config.json").read_text("utf-8")) for path in (folder, SOURCE))
    assert (config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]) == (512, 7, 1000)
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (16, 8)
    row = np.random.default_rng(1).normal(size=256)
    wide = np.concatenate([row, np.zeros(256)])
    seen = row / np.sqrt(np.mean(row**2) + source["rms_norm_eps"])
    wide_seen = wide / np.sqrt(np.mean(wide**2) + config["rms_norm_eps"]) * np.sqrt(0.5)
    np.testing.assert_allclose(wide_seen[:256], seen)


@pytest.mark.parametrize("text", ["128x7x704", "256x5x704", "256x6x703", "300x6x704"])
def test_a_shape_that_the_model_does_not_fit_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match="at least"):
        grow(SOURCE, tmp_path / "model", Shape.parse(text))
    assert not (tmp_path / "model").exists()
