"""Every family's graph, made from a checkpoint on disk, against three forwards that were written apart.

The tolerance is of the largest logit. Graph and `transformers` both compute in float32, in other orders: with these sizes each
is 1e-6 to 6e-6 away from the forward in float64, and they are as far from each other. A bias, a norm, a frequency or an end of
a window that is wrong is off by more than 1e-2.
"""

import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from speculation.engines import self_test
from speculation.engines.base import Chunk
from speculation.engines.convert import Conversion, convert
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import Package
from tests.speculation.engines.families import (
    CONTEXT,
    FAMILIES,
    config_of,
    digest_of,
    family_logits,
    weights_of,
    write_checkpoint,
)
from tests.speculation.engines.record_families import RECORDED, ROWS, TOKENS, logits_by_transformers
from tests.speculation.engines.test_graph import to_int4, to_int8
from tests.speculation.engines.tiny import convolve_all

TOLERANCE = 2e-5
SEEN = 1e-2
WINDOWED = ("mistral", "qwen2-window", "qwen3-layers")


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A function from a family to its package, made once, from a checkpoint in bfloat16."""
    made = {}

    def package_of(family):
        if family not in made:
            path, config = tmp_path_factory.mktemp(family), config_of(family)
            write_checkpoint(path / "checkpoint", config, weights_of(config), ml_dtypes.bfloat16)
            convert(Conversion(path / "checkpoint", path / "package", ("fp32", "q4", "i8"), CONTEXT))
            made[family] = Package(path / "package")
        return made[family]

    return package_of


def logits_of(package, variant="fp32", tokens=TOKENS):
    engine = OnnxEngine(package, variant, num_slots=1)
    return engine.extend([Chunk(engine.open(), tokens, len(tokens))])


def difference(found, wanted):
    return np.abs(found - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_agrees_with_a_plain_forward_in_float64(packages, family):
    config = config_of(family)
    assert difference(logits_of(packages(family)), family_logits(config, weights_of(config), TOKENS)) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_multiplied_as_convolutions_agree_with_it_too_and_are_exact(packages, family, monkeypatch):
    convolve_all(monkeypatch)
    config, engine = config_of(family), OnnxEngine(packages(family), num_slots=4)
    assert engine.is_convolved
    found = engine.extend([Chunk(engine.open(), TOKENS, len(TOKENS))])
    assert difference(found, family_logits(config, weights_of(config), TOKENS)) < TOLERANCE
    tested = self_test.run(OnnxEngine(packages(family), num_slots=4))
    assert tested.is_exact, tested.details


@pytest.mark.parametrize("family", FAMILIES)
def test_the_graph_agrees_with_what_transformers_was_recorded_to_give(packages, family):
    with safe_open(RECORDED, "numpy") as recorded:
        assert recorded.metadata()[family] == digest_of(weights_of(config_of(family))), "other weights: record again"
        wanted = recorded.get_tensor(family)
    assert difference(logits_of(packages(family))[list(ROWS)], wanted) < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_graph_agrees_with_transformers_and_with_a_checkpoint_that_it_saved(packages, family, tmp_path):
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed; what it gave is recorded in {RECORDED.name}")
    config = config_of(family)
    path, saved = write_checkpoint(tmp_path / "checkpoint", config, weights_of(config)), tmp_path / "saved"
    wanted = logits_by_transformers(path, saved)
    assert difference(logits_of(packages(family)), wanted) < TOLERANCE
    assert len(list(saved.glob("model-*.safetensors"))) > 1
    shutil.copy(path / "tokenizer.json", saved)
    convert(Conversion(saved, tmp_path / "package", context_length=CONTEXT))
    assert difference(logits_of(Package(tmp_path / "package")), wanted) < TOLERANCE


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_longrope_package_is_what_transformers_computes_of_all_texts_on_its_side_of_the_original_length(tmp_path):
    """There the list of factors follows the text's length, here the package's context: 32 tokens take the long one in a package
    of 33."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    checkpoint = tmp_path / "checkpoint"
    config = config_of("qwen2-longrope-long")
    write_checkpoint(checkpoint, config, weights_of(config))
    packages = {}
    for context in (32, 33):
        convert(Conversion(checkpoint, tmp_path / str(context), context_length=context))
        packages[context] = Package(tmp_path / str(context))
    within, beyond = (logits_by_transformers(checkpoint, tokens=TOKENS[:count]) for count in (32, 33))
    assert difference(logits_of(packages[32], tokens=TOKENS[:32]), within) < TOLERANCE
    assert difference(logits_of(packages[33], tokens=TOKENS[:33]), beyond) < TOLERANCE
    assert difference(logits_of(packages[33], tokens=TOKENS[:32]), within) > SEEN
    assert difference(logits_of(packages[33], tokens=TOKENS[:32]), beyond[:32]) < TOLERANCE


@pytest.mark.parametrize("family", WINDOWED)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_window_that_is_one_token_off_would_be_seen(family, change):
    """By the recorded logits, with the tolerance that the graph is held to."""
    config = config_of(family)
    other = family_logits(config, weights_of(config), TOKENS, window_change=change)
    assert difference(other[list(ROWS)], load_file(RECORDED)[family]) > SEEN


def test_what_is_recorded_stays_small():
    assert RECORDED.stat().st_size < 300_000
    assert load_file(RECORDED).keys() == FAMILIES.keys()


@pytest.mark.parametrize("variant", ["fp32", "i8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_exact(packages, family, variant):
    """Ragged batches, rollback and forks among them, also where a window ends inside what was taken back."""
    found = self_test.run(OnnxEngine(packages(family), variant, num_slots=4))
    assert found.is_exact, found.details


@pytest.mark.parametrize("family", WINDOWED)
def test_windows_are_exact_at_lengths_where_the_attention_kernels_change(tmp_path, family):
    config = config_of(family, max_position_embeddings=640, sliding_window=100)
    write_checkpoint(tmp_path / "checkpoint", config, weights_of(config))
    convert(Conversion(tmp_path / "checkpoint", tmp_path / "package"))
    found = self_test.run(OnnxEngine(Package(tmp_path / "package"), num_slots=4))
    assert found.is_exact, found.details


@pytest.mark.parametrize(("variant", "rounded"), [("i8", to_int8), ("q4", to_int4)])
@pytest.mark.parametrize("family", FAMILIES)
def test_quantised_graphs_agree_with_a_plain_forward_of_their_rounded_weights(packages, family, variant, rounded):
    """Activations are rounded to 8 bits at each linear layer, which the plain forward does not do."""
    config = config_of(family)
    weights = weights_of(config)
    found, exact = logits_of(packages(family), variant), family_logits(config, weights, TOKENS)
    wanted = family_logits(config, weights, TOKENS, rounded=rounded)
    assert np.abs(found - wanted).mean() < 0.12 * wanted.std()
    assert np.abs(exact - wanted).mean() > 0.01 * wanted.std()
