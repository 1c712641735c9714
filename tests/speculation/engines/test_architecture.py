"""What a configuration says, and which ones are refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speculation.engines.architecture import Architecture
from speculation.engines.rotary import KINDS, Rotary
from speculation.errors import PackageError
from tests.speculation.engines.families import DYNAMIC, FAMILIES, LLAMA3, LONGROPE, YARN, config_of

ENTRIES = sorted(
    {name for family in FAMILIES for name in config_of(family)}
    | {name for scaling in (LLAMA3, YARN, LONGROPE, DYNAMIC) for name in scaling}
    | {"mscale", "beta_fast"}
)


def refused(family, **overrides):
    """Why; None takes an entry away."""
    config = {name: value for name, value in config_of(family, **overrides).items() if value is not None}
    with pytest.raises(PackageError) as refusal:
        Architecture.from_config(config)
    return str(refusal.value)


def longrope(**entries):
    """The entries of a configuration whose ``longrope`` has others."""
    return {"rope_scaling": {**LONGROPE, **entries}}


@pytest.mark.parametrize(
    ("family", "overrides", "message"),
    [
        ("llama", {"model_type": "gemma3"}, "model_type 'gemma3' is not supported; supported: llama, mistral, qwen2, qwen3"),
        ("llama", {"model_type": ["llama"]}, "is not supported; supported: llama"),
        ("mistral", {"attention_bias": True}, "attention_bias must be false for model_type 'mistral'"),
        ("qwen2", {"mlp_bias": True}, "mlp_bias must be false for model_type 'qwen2'"),
        ("qwen3", {"head_dim": None}, "lacks head_dim, which model_type 'qwen3' needs"),
        ("mistral", {"num_key_value_heads": None}, "lacks num_key_value_heads"),
        ("mistral", {"sliding_window": 0}, "sliding_window must be positive or null, not 0"),
        ("qwen3-layers", {"layer_types": ["full_attention"]}, "for each of 2 layers"),
        (
            "qwen3-layers",
            {"layer_types": ["full_attention", "chunked_attention"]},
            "must name full_attention or sliding_attention",
        ),
        ("qwen3-layers", {"use_sliding_window": False}, "use_sliding_window and sliding_window give no window"),
        ("llama", {"num_hidden_layers": 10**9}, "at most 1024"),
        ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number"),
        ("llama", {"rms_norm_eps": -1.0}, "rms_norm_eps must be a positive number"),
        ("llama", {"rope_theta": 0}, "theta must be from 1e-06 to 1000000000000.0"),
        ("llama", {"rope_theta": float("inf")}, "theta must be from 1e-06 to 1000000000000.0"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1"),
        ("llama", {"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "one for each kind of layer"),
        ("llama", {"rope_scaling": "linear"}, "must be an object"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "lacks 'factor'"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": -2}}, "factor must be from 1e-06"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 5e-324}}, "factor must be from 1e-06"),
        ("llama", {"rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}, "low_freq_factor must be below high_freq_factor"),
        ("llama", {"rope_scaling": {**YARN, "original_max_position_embeddings": -24}}, "original_max_position_embeddings"),
        ("llama", {"hidden_size": 1e400}, "no size"),
        (
            "llama",
            {"rope_scaling": LONGROPE},
            "'longrope' needs original_max_position_embeddings, where short_factor gives way",
        ),
        ("llama-longrope", {"original_max_position_embeddings": 1}, "original_max_position_embeddings over 1, not 1"),
        ("llama-longrope", {"original_max_position_embeddings": -4}, "original_max_position_embeddings over 1, not -4"),
        ("llama-longrope", {"head_dim": 32}, "short_factor must have 16 entries, half of a head of 32, not 8"),
        ("llama-longrope", longrope(long_factor=[1.0] * 7), "long_factor must have 8 entries, half of a head of 16, not 7"),
        ("llama-longrope", longrope(short_factor=[]), "short_factor must have 8 entries, half of a head of 16, not 0"),
        ("llama-longrope", longrope(short_factor=2.0), "short_factor must be a list of numbers, not 2.0"),
        ("llama-longrope", longrope(long_factor=[1.0] * 7 + ["2"]), "long_factor must be a list of numbers"),
        ("llama-longrope", longrope(long_factor=[1.0] * 7 + [0]), "long_factor must hold numbers from 1e-06 to"),
        ("llama-longrope", longrope(long_factor=[1.0] * 7 + [-2.5]), "long_factor must hold numbers from 1e-06 to"),
        ("llama-longrope", longrope(short_factor=[1.0] * 7 + [float("nan")]), "short_factor must hold numbers from 1e-06 to"),
        ("llama-longrope", longrope(short_factor=[1.0] * 7 + [10**400]), "short_factor must hold numbers from 1e-06 to"),
        ("llama-longrope", longrope(attention_factor=0), "attention_factor must be from 1e-06"),
        ("llama-longrope", longrope(factor=float("inf")), "factor must be from 1e-06"),
        ("mistral-dynamic", {"rope_scaling": {"type": "dynamic"}}, "lacks 'factor'"),
        ("mistral-dynamic", {"original_max_position_embeddings": -24}, "'dynamic' needs positive original_max_position"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused_with_the_reason(family, overrides, message):
    assert message in refused(family, **overrides)


@pytest.mark.parametrize("kind", ["su", "ntk", "mrope", 7])
def test_rotary_kinds_that_are_not_supported_are_refused_with_those_that_are(kind):
    reason = refused("llama", rope_scaling={"rope_type": kind, "factor": 2.0})
    assert repr(kind) in reason
    assert reason.endswith("supported: default, linear, llama3, yarn, longrope, dynamic")


@pytest.mark.parametrize(
    ("family", "windows"),
    [
        ("llama", (0, 0)),
        ("mistral", (13, 13)),
        ("qwen2", (0, 0)),
        ("qwen2-window", (0, 8, 8)),
        ("qwen3-layers", (21, 0)),
    ],
)
def test_each_layer_has_the_window_that_the_configuration_gives_it(family, windows):
    assert Architecture.from_config(config_of(family)).windows == windows


def test_a_window_that_is_null_is_off():
    assert Architecture.from_config(config_of("mistral", sliding_window=None)).windows == (0, 0)


def test_a_llama_has_no_window_whatever_its_configuration_holds():
    """As the family's own software does."""
    assert Architecture.from_config(config_of("llama", sliding_window=5)).windows == (0, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_both_spellings_of_rotary_positions_mean_the_same(family):
    config = json.loads(json.dumps(config_of(family)))
    rope = config.pop("rope_scaling", None) or config.pop("rope_parameters", None) or {"type": "default"}
    kind = rope.pop("rope_type", None) or rope.pop("type")
    theta = rope.pop("rope_theta", None) or config["rope_theta"]
    config.pop("rope_theta", None)
    older = {**config, "rope_theta": theta, "rope_scaling": {**rope, "type": kind}}
    newer = {**config, "rope_parameters": {**rope, "rope_type": kind, "rope_theta": theta}}
    assert Rotary.from_config(older) == Rotary.from_config(newer) == Rotary.from_config(config_of(family))


def test_a_stretched_context_counts_from_the_models_own_positions_where_training_is_not_told():
    scaling = {name: value for name, value in YARN.items() if name != "original_max_position_embeddings"}
    assert Rotary.from_config(config_of("llama", rope_scaling=scaling)).trained_context == 96
    outside = config_of("llama", rope_scaling=YARN, original_max_position_embeddings=48)
    assert Rotary.from_config(outside).trained_context == 48


def test_yarn_lengthens_what_it_turns():
    rotary = Rotary.from_config(config_of("llama", rope_scaling={**YARN, "factor": 4.0}))
    cosines, sines = rotary.tables(5, 16)
    assert cosines.shape == sines.shape == (5, 8)
    np.testing.assert_allclose(np.hypot(cosines, sines), 0.1 * np.log(4) + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ({"attention_factor": 0.7}, 0.7),
        ({"mscale": 1.0, "mscale_all_dim": 2.0}, (0.1 * np.log(4) + 1) / (0.2 * np.log(4) + 1)),
        ({"factor": 0.5}, 1.0),
        ({"factor": None}, 0.1 * np.log(96 / 24) + 1),
    ],
)
def test_the_length_that_yarn_gives_can_be_said_otherwise(entries, wanted):
    rotary = Rotary.from_config(config_of("llama", rope_scaling={**YARN, **entries}))
    assert rotary.attention_factor == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ({}, np.sqrt(1 + np.log(4) / np.log(96))),
        ({"attention_factor": 0.7}, 0.7),
        ({"factor": 32.0}, np.sqrt(1 + np.log(32) / np.log(96))),
        ({"factor": 0.5}, 1.0),
    ],
)
def test_the_length_that_longrope_gives_follows_from_how_far_it_stretches(entries, wanted):
    rotary = Rotary.from_config(config_of("llama-longrope", **longrope(**entries)))
    assert rotary.attention_factor == pytest.approx(wanted)


def test_longrope_slows_each_pair_by_the_list_of_the_packages_context():
    """Theta, lists and lengths worked out by hand."""
    rotary = Rotary(100.0, "longrope", trained_context=40, short_factors=(1.0, 2.0), long_factors=(4.0, 5.0))
    for context, wanted in ((0, (1, 0.05)), (40, (1, 0.05)), (41, (0.25, 0.02))):
        np.testing.assert_allclose(rotary.frequencies(4, context), wanted)
        np.testing.assert_allclose(rotary.tables(3, 4, context)[1][2], np.sin(2 * np.array(wanted)), rtol=1e-6)


@pytest.mark.parametrize(
    ("family", "original", "fixed", "longest"),
    [
        ("llama", None, 500, 500),
        ("llama-longrope", 96, 96, 500),
        ("mistral-dynamic", None, 500, 500),
        ("mistral-dynamic", 60, 60, 60),
    ],
)
def test_angles_of_dynamic_are_those_of_no_text_beyond_its_original_length(family, original, fixed, longest):
    changes = {"max_position_embeddings": 500, **({"original_max_position_embeddings": original} if original else {})}
    found = Architecture.from_config(config_of(family, **changes))
    assert (found.rotary.fixed_context(500), found.context_length) == (fixed, longest)


def test_every_kind_of_rotary_positions_is_in_some_family():
    assert {Rotary.from_config(config_of(family)).kind for family in FAMILIES} == set(KINDS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("yarn"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(ENTRIES), inner, max_size=3),
    max_leaves=5,
)


def found_or_refused(config):
    """The architecture, or None where it is refused; any other error goes on."""
    try:
        return Architecture.from_config(config)
    except PackageError:
        return None


@settings(max_examples=300, deadline=None)
@given(
    family=st.sampled_from(sorted(FAMILIES)), changes=st.dictionaries(st.sampled_from(ENTRIES), JSON, min_size=1, max_size=3)
)
def test_whatever_stands_in_a_configuration_it_is_an_architecture_or_a_refusal(family, changes):
    shape = found_or_refused(config_of(family) | changes)
    if shape and shape.head_size < 1000:
        assert np.isfinite(shape.rotary.tables(4, shape.head_size)).all()
