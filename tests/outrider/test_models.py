"""`outrider models`: what it takes, prints and refuses, and how it leaves."""

import json

import pytest

from outrider import models
from speculation.engines.architecture import SUPPORTED
from speculation.engines.package import Package, bundled_pair_path
from speculation.engines.pairs import load_model
from speculation.engines.quantise import BLOCK
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint

CONFIG = config_of("qwen3")


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "checkpoint", CONFIG, weights_of(CONFIG))


@pytest.fixture
def package(checkpoint, tmp_path, outrider):
    assert outrider("models", "convert", checkpoint, "--out", tmp_path / "made")[0] == 0
    return tmp_path / "made"


def test_help_tells_every_flag_and_family(outrider):
    code, shown, _ = outrider("models", "convert", "--help")
    assert code == 0
    flags = ("--out", "--variant", "--context", "--name", "--licence", "--end-token", "--json")
    assert [word for word in (*flags, *SUPPORTED) if word not in shown] == []
    code, shown, _ = outrider("models", "--help")
    assert [verb for verb in ("convert", "describe", "quantize", "show", "verify") if verb not in shown] == []


def test_a_conversion_says_in_one_line_what_it_made(checkpoint, tmp_path, outrider):
    code, shown, said = outrider("models", "convert", checkpoint, "--out", tmp_path / "made", "--context", 64, "--name", "mine")
    assert (code, said) == (0, "")
    assert shown.startswith(f"{tmp_path / 'made'}: mine, fp32, context 64, ")
    assert shown.count("\n") == 1


def test_a_name_that_is_no_utf8_is_refused_and_a_folder_that_has_such_a_name_is_told_by_what_can_be_written(
    checkpoint, tmp_path, outrider
):
    for flag in ("--name", "--licence"):
        code, shown, said = outrider("models", "convert", checkpoint, "--out", tmp_path / "made", flag, "na\udcffme")
        assert (code, shown, said.count("\n")) == (2, "", 1)
        assert f"{flag} is text in UTF-8" in said
    folder = checkpoint.rename(tmp_path / "che\udcffck")
    code, shown, said = outrider("models", "convert", folder, "--out", tmp_path / "made", "--json")
    assert (code, said) == (0, "")
    told = json.loads(shown)
    assert told["name"] == "che\ufffdck"
    assert "the checkpoint che\ufffdck;" in told["provenance"]
    assert outrider("models", "verify", tmp_path / "made")[0] == 0


def test_a_description_says_in_one_line_what_it_saves(checkpoint, tmp_path, outrider):
    code, shown, said = outrider("models", "describe", checkpoint, "--out", tmp_path / "small")
    assert (code, said) == (0, "")
    digest = load_model(checkpoint).digest
    assert shown.startswith(f"{tmp_path / 'small'}: what a device needs of {checkpoint}, 0.0 MB in place of ")
    assert shown.endswith(f"; the digest of both is {digest}\n")
    code, shown, _ = outrider("models", "describe", checkpoint, "--out", tmp_path / "other", "--json")
    told = json.loads(shown)
    assert (code, told["digest"], told["model"], told["description"]) == (0, digest, str(checkpoint), str(tmp_path / "other"))
    assert told["files"] == sorted(path.name for path in (tmp_path / "other").iterdir())
    assert told["bytes"] < told["model_bytes"]
    code, _, said = outrider("models", "describe", checkpoint, "--out", tmp_path / "small")
    assert code == 2
    assert "exists already" in said
    code, shown, _ = outrider("models", "list", tmp_path / "small", "--json")
    assert [(model["layout"], model["digest"]) for model in json.loads(shown)["models"]] == [("described", digest)]


@pytest.mark.parametrize(
    ("family", "context", "said"),
    [
        ("llama-longrope", 96, "rotary positions: longrope by short_factor; a context of over 96 tokens takes long_factor"),
        (
            "llama-longrope",
            97,
            "rotary positions: longrope by long_factor, also in texts of up to 96 tokens, where transformers",
        ),
        ("mistral-dynamic", 50, "rotary positions: dynamic turns plainly up to 96 tokens, and beyond by the text's length"),
    ],
)
def test_a_conversion_says_which_of_the_angles_it_took_that_follow_the_length(tmp_path, outrider, family, context, said):
    config = config_of(family)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", config, weights_of(config))
    options = (checkpoint, "--context", context, "--out")
    code, shown, _ = outrider("models", "convert", *options, tmp_path / "made")
    assert (code, shown.count("\n")) == (0, 2)
    assert shown.startswith(said)
    told = json.loads(outrider("models", "convert", *options, tmp_path / "again", "--json")[1])["rotary"]
    assert f"rotary positions: {told}\n" in shown


def test_a_program_gets_one_line_of_json_and_nothing_else(checkpoint, tmp_path, outrider):
    out = tmp_path / "made"
    options = ["--variant", "fp32", "--variant", "q4", "--licence", "MIT", "--end-token", 3, "--json"]
    code, shown, said = outrider("models", "convert", checkpoint, "--out", out, *options)
    assert (code, said, shown.count("\n")) == (0, "", 1)
    made, package = json.loads(shown), Package(out)
    assert (made["package"], made["name"], made["licence"]) == (str(out), "checkpoint", "MIT")
    assert (made["end_token_ids"], list(made["variants"])) == ([3], ["fp32", "q4"])
    assert made["digest"] == package.digest
    assert made["seconds"] > 0
    assert made["files"]["tokenizer.json"] == {
        "bytes": (out / "tokenizer.json").stat().st_size,
        "sha256": package.tokenizer_digest,
    }


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--variant", "q9"], 2, "unknown variant 'q9'; known: fp32, i8, q4"),
        (["--context", "97"], 2, "from 1 to the model's 96 positions"),
        (["--context", "many"], 2, "should be a valid integer"),
        (["--end-token", "272"], 1, "must be whole numbers from 0 to 271"),
    ],
)
def test_a_refusal_is_one_line_and_an_exit_code(checkpoint, tmp_path, outrider, options, code, message):
    left, shown, said = outrider("models", "convert", checkpoint, "--out", tmp_path / "made", *options)
    assert (left, shown) == (code, "")
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_a_folder_that_is_taken_and_a_checkpoint_that_is_none_are_told_apart(checkpoint, package, tmp_path, outrider):
    assert outrider("models", "convert", checkpoint, "--out", package)[0] == 2
    code, _, said = outrider("models", "convert", tmp_path / "nowhere", "--out", tmp_path / "other")
    assert code == 2
    assert "is not a folder; a checkpoint is a folder with" in said
    (tmp_path / "empty").mkdir()
    assert outrider("models", "convert", tmp_path / "empty", "--out", tmp_path / "other")[0] == 1


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (["show"], "package"),
        (["verify"], "package"),
        (["quantize", "--to", "int8"], "package"),
        (["describe", "--out", "made"], "model"),
    ],
)
def test_a_folder_that_is_not_there_is_bad_input_and_one_without_a_model_a_failure(command, what, tmp_path, outrider):
    verb, *options = command
    code, shown, said = outrider("models", verb, tmp_path / "nowhere", *options)
    assert (code, shown) == (2, "")
    assert f"nowhere is not a folder; a {what} is a folder" in said
    (tmp_path / "empty").mkdir()
    assert outrider("models", verb, tmp_path / "empty", *options)[0] == 1


def test_an_out_folder_must_be_named(checkpoint, outrider):
    code, _, said = outrider("models", "convert", checkpoint)
    assert code == 2
    assert "--out" in said


def test_quantising_says_in_one_line_what_it_added(package, outrider):
    code, shown, said = outrider("models", "quantize", package, "--to", "int4", "--block", 64)
    assert (code, said, shown.count("\n")) == (0, "", 1)
    assert shown.startswith(f"{package}: checkpoint has q4_b64 in onnx/model_q4_b64.onnx, beside fp32, ")
    assert Package(package).variants == ("fp32", "q4_b64")
    assert outrider("models", "verify", package)[0] == 0


def test_a_program_is_told_of_the_copy_that_was_quantised(package, tmp_path, outrider):
    before, out = Package(package).digest, tmp_path / "copy"
    code, shown, said = outrider("models", "quantize", package, "--to", "int8", "--out", out, "--json")
    assert (code, said, shown.count("\n")) == (0, "", 1)
    made = json.loads(shown)
    assert (made["package"], made["variant"], list(made["variants"])) == (str(out), "i8", ["fp32", "i8"])
    assert made["digest"] == Package(out).digest != before
    assert Package(package).digest == before


def test_a_text_makes_another_variant_beside_the_plain_one(package, tmp_path, outrider):
    text = tmp_path / "text.txt"
    text.write_text("What the model will meet. " * 40)
    assert outrider("models", "quantize", package, "--to", "int4")[0] == 0
    code, shown, said = outrider("models", "quantize", package, "--to", "int4", "--calibrate", text, "--json")
    assert (code, said) == (0, "")
    assert json.loads(shown)["variant"] == "q4_cal"
    assert Package(package).variants == ("fp32", "q4", "q4_cal")
    assert Package(package).graph("q4").read_bytes() != Package(package).graph("q4_cal").read_bytes()
    assert outrider("models", "verify", package)[0] == 0


def test_its_help_names_the_usual_block(outrider):
    code, shown, _ = outrider("models", "quantize", "--help")
    words = " ".join(shown.split())
    assert code == 0
    assert [word for word in ("--to", "--block", "--out", "--json", f"{BLOCK} by default") if word not in words] == []


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "--to"),
        (["--to", "int3"], 2, "unknown kind of weights 'int3'; known: int4, int8"),
        (["--to", "int4", "--block", "48"], 2, "one of 16, 32, 64, 128, 256; not 48"),
        (["--to", "int8", "--block", "48"], 2, "a block must be a power of two"),
        (["--to", "int8", "--calibrate", "text.txt"], 2, "has nothing to calibrate"),
        (["--to", "int4", "--calibrate", "missing.txt"], 1, "missing.txt is no file"),
        (["--to", "int4", "--out", "."], 2, "exists already"),
    ],
)
def test_a_quantisation_that_cannot_be_is_one_line_and_an_exit_code(package, outrider, options, code, message):
    left, shown, said = outrider("models", "quantize", package, *options)
    assert (left, shown) == (code, "")
    assert message in said
    assert Package(package).variants == ("fp32",)


def test_what_is_wrong_with_a_package_is_another_exit_code(package, checkpoint, outrider):
    code, _, said = outrider("models", "quantize", checkpoint, "--to", "int4")
    assert (code, said.count("\n")) == (1, 1)
    assert f"`outrider models convert {checkpoint} --out DIR --variant fp32`" in said
    (package / "tokenizer.json").write_text("{}")
    code, _, said = outrider("models", "quantize", package, "--to", "int4")
    assert code == 1
    assert "is damaged" in said


def test_a_progress_bar_goes_to_standard_error(capsys):
    with models._bar(is_shown=True) as progress:
        for done in (1000, 2000):
            progress("fp32", done, 2000)
    shown, said = capsys.readouterr()
    assert shown == ""
    assert "fp32" in said
    assert "2.0" in said


def test_a_bar_shows_a_name_with_brackets_as_it_is(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with models._bar(is_shown=True) as progress:
        progress("[a/[/b].data", 1, 2)
    assert "[a/[/b].data" in capsys.readouterr().err


def test_show_tells_what_a_package_is(package, outrider):
    code, shown, _ = outrider("models", "show", package)
    assert code == 0
    for part in ("qwen3", "head size 32", "context length   96", "variant fp32", Package(package).digest, "onnx/model.onnx, "):
        assert part in shown
    code, shown, _ = outrider("models", "show", package, "--json")
    architecture = json.loads(shown)["architecture"]
    assert (architecture["num_kv_heads"], architecture["rotary"], architecture["windows"]) == (2, "default", [])
    assert shown.count("\n") == 1


def test_show_tells_what_a_package_suggests_and_what_of_it_is_not_applied(checkpoint, tmp_path, outrider):
    suggested = {"eos_token_id": [0, 1], "do_sample": True, "top_k": 20, "repetition_penalty": 1.05}
    (checkpoint / "generation_config.json").write_text(json.dumps(suggested))
    assert outrider("models", "convert", checkpoint, "--out", tmp_path / "made")[0] == 0
    shown = outrider("models", "show", tmp_path / "made")[1]
    assert "defaults         temperature 1.0, top k 20, top p 1.0, min p 0.0, max tokens None" in shown
    assert "generation_unused" not in shown
    assert "['repetition_penalty = 1.05']" in shown
    told = json.loads(outrider("models", "show", tmp_path / "made", "--json")[1])
    assert (told["generation_defaults"]["top_k"], told["generation_unused"]) == (20, ["repetition_penalty = 1.05"])
    assert told["end_token_ids"] == [0, 1]


def test_show_says_where_a_file_is_missing(package, outrider):
    (package / "onnx" / "model.onnx").unlink()
    assert "file             onnx/model.onnx, missing" in outrider("models", "show", package)[1]
    assert json.loads(outrider("models", "show", package, "--json")[1])["files"]["onnx/model.onnx"]["bytes"] is None


def test_verify_agrees_with_what_is_whole(package, outrider):
    code, shown, _ = outrider("models", "verify", package)
    assert (code, shown) == (0, f"{package}: 3 files agree with their digests; the package's is {Package(package).digest}\n")
    code, shown, _ = outrider("models", "verify", package, "--json")
    assert json.loads(shown) == {"package": str(package), "files": 3, "damaged": []}


def test_verify_names_every_file_that_differs(package, outrider):
    (package / "onnx" / "model.onnx").write_bytes(b"other")
    (package / "tokenizer.json").unlink()
    code, shown, said = outrider("models", "verify", package)
    assert (code, shown) == (1, "")
    assert "model.onnx is damaged: its SHA-256 is" in said
    assert "tokenizer.json is not there" in said
    code, shown, said = outrider("models", "verify", package, "--json")
    assert code == 1
    assert len(json.loads(shown)["damaged"]) == 2


def test_verify_names_a_configuration_that_was_changed(package, outrider):
    (package / "config.json").write_text("{}")
    (package / "tokenizer.json").write_text("{}")
    code, _, said = outrider("models", "verify", package)
    assert code == 1
    assert "config.json is damaged" in said
    assert "tokenizer.json is damaged" in said


def test_what_is_no_package_is_refused(tmp_path, outrider):
    for verb in ("show", "verify"):
        code, _, said = outrider("models", verb, tmp_path)
        assert code == 1
        assert "manifest.json is not there" in said


@pytest.mark.parametrize("verb", [("show",), ("verify",), ("quantize", "--to", "int8")])
def test_a_folder_of_another_kind_is_told_what_it_is_instead_of_what_it_lacks(verb, checkpoint, outrider):
    code, _, said = outrider("models", verb[0], bundled_pair_path(), *verb[1:])
    assert (code, f"{bundled_pair_path()} is a pair, no package; name one of its halves" in said) == (1, True)
    if verb == ("quantize", "--to", "int8"):
        return  # its refusal names the command that makes a package
    code, _, said = outrider("models", verb[0], checkpoint)
    assert (code, "is incomplete" in said) == (1, False)
    assert f"{checkpoint} is no package: `outrider models list {checkpoint}` tells what it is" in said
