import pytest

from speculation.engines.base import EngineDescription
from speculation.errors import InvalidRequestError
from speculation.shaping.models import ModelDescription, listed_models, parse_model


def test_a_size_and_a_number_type_give_the_bytes_of_the_weights():
    assert parse_model("0.9B:int4").weight_bytes == pytest.approx(0.45e9)
    assert parse_model("70B:fp16").weight_bytes == pytest.approx(140e9)
    assert parse_model("900M:4.5bit").weight_bytes == pytest.approx(0.9e9 * 4.5 / 8)


@pytest.mark.parametrize("billions", [70, 13, 7, 3.25, 1.8])
def test_sizes_follow_the_published_table_of_4_2_1_and_half_a_byte_a_weight(billions):
    sizes = [parse_model(f"{billions}B:{kind}").weight_bytes for kind in ("fp32", "fp16", "int8", "int4")]
    assert sizes == [pytest.approx(billions * 1e9 * width) for width in (4, 2, 1, 0.5)]


def test_the_listed_models_are_those_of_the_table_and_the_published_shapes_largest_first():
    listed = listed_models()
    names = [model.name for model in listed]
    assert {f"{size}:{kind}" for size in ("70B", "13B", "7B", "3.25B", "1.8B") for kind in ("fp32", "fp16", "int8", "int4")} < {
        *names
    }
    assert {"405.9B:int4", "8.03B:int4", "1.236B:fp16"} < {*names}
    assert names[:4] == ["405.9B:fp32", "405.9B:fp16", "405.9B:int8", "405.9B:int4"]
    assert [model.parameters for model in listed] == sorted((model.parameters for model in listed), reverse=True)
    assert len(names) == len({*names}) == 40


def test_a_model_of_which_only_the_size_is_known_has_the_cache_of_a_published_one_of_that_size():
    assert parse_model("70B:fp16").kv_bytes_per_token == 2 * 80 * 8 * 128 * 2
    assert parse_model("0.9B:int4").kv_bytes_per_token == 2 * 16 * 8 * 64 * 2


def test_options_name_the_shape_and_the_active_experts():
    model = parse_model("47B:int8:active=13B,layers=32,kv_heads=8,head_size=128")
    assert model.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2
    assert model.weight_bytes == 47e9
    assert model.operations(1) == 2 * 13e9
    assert model.weight_bytes_read(1) == 13e9
    assert model.weight_bytes_read(10) == 47e9


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no number type"),
        ("7B", "no number type"),
        ("seven:int4", "'seven' is no number of parameters"),
        ("0B:int4", "'0b' is no number of parameters"),
        ("-7B:int4", "'-7b' is no number of parameters"),
        (f"{'9' * 400}B:int4", "'9{40}' is no number of parameters"),
        ("7B:int3", "unknown number type 'int3'; known: fp32"),
        ("7B:0bit", "unknown number type"),
        ("7B:int4:heads=3", "unknown option 'heads'; known: active"),
        ("7B:int4:layers=32", "given all together"),
        ("7B:int4:layers=32,kv_heads=x,head_size=128", "whole numbers"),
        ("7B:int4:active=9B", "at most all of them"),
        ("7B:int4:layers=0,kv_heads=8,head_size=128", "layers of a model is a number above 0"),
        (f"7B:int4:layers={'9' * 400},kv_heads=8,head_size=128", "whole numbers below a million"),
        (f"7B:int4:layers=1,kv_heads=8,head_size={'9' * 5000}", "whole numbers below a million"),
    ],
)
def test_a_string_that_names_no_model_is_refused_with_the_reason(text, reason):
    with pytest.raises(InvalidRequestError, match=reason):
        parse_model(text)


def test_a_refusal_shows_what_would_be_right():
    with pytest.raises(InvalidRequestError, match=r"Write for example 0.9B:int4, 70B:fp16"):
        parse_model("big")


def test_an_engines_own_model_keeps_its_real_bytes():
    description = EngineDescription("small", 4096, 512, 8, 900_000, 3_600_000, 1536)
    model = ModelDescription.of_engine(description)
    assert (model.weight_bytes, model.kv_bytes_per_token, model.name) == (3_600_000, 1536, "small")
