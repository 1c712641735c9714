"""`outrider plan` and `outrider tokenspeed`: what they print, and what bad input gets."""

import json
from pathlib import Path

import pytest

from outrider import cli
from outrider.planning import command
from outrider.planning import plan as planning
from outrider.planning.answers import Effort
from speculation.shaping import profiles

TINY = Effort(
    num_tokens=16,
    num_draws=2,
    num_search_draws=1,
    num_served_tokens=8,
    most_devices=2,
    round_trips_ms=(0.0, 800.0),
    depths=(2,),
    widths=(1, 2),
    moments_s=(0.0, 30.0),
)


@pytest.fixture
def outrider(capsys, monkeypatch):
    monkeypatch.setattr(command, "QUICK", TINY)

    def call(*arguments):
        with pytest.raises(SystemExit) as left:
            cli.main(list(arguments))
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return call


def test_a_plan_for_people_answers_in_words_and_tables(outrider):
    code, out, _ = outrider("plan", "--quick")
    assert code == 0
    for said in ("It pays: ", "tokens a second", "Break-even", "dollars a million tokens", "Best fixed setting", "emulated"):
        assert said in out


def test_a_plan_for_programs_is_one_object_with_what_was_asked(outrider):
    code, out, _ = outrider("plan", "--quick", "--json", "--network", "wifi", "--acceptance", "0.7", "--cloud", "h200x2")
    told = json.loads(out)
    assert code == 0
    asked = told["asked"]
    assert (asked["network"], asked["cloud"], told["acceptance"], asked["basis"]) == ("wifi", "h200x2", 0.7, "emulated")
    assert told["cloud"]["passes_per_token"] == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--phone", "brick"], "known: "),
        (["--profiles", "/nowhere/at/all"], "is not a folder"),
        (["--network", "string"], "known: "),
        (["--cloud", "nine"], "known: "),
        (["--draft", "small"], "names no model"),
        (["--acceptance", "1.5"], "--acceptance is a share between 0 and 1"),
        (["--second-covers", "0"], "--second-covers is a share between 0 and 1"),
        (["--rate", "0"], "--rate is a number above 0"),
        (["--max-tokens", "3"], "--max-tokens: at least 16"),
        (["--prompt-tokens", "1"], "--prompt-tokens: at least 2"),
        (["--context", "10"], "--context: a prompt and an answer take"),
        (["--plot", "plan.txt"], "a file that ends in .png or .svg"),
        (["--plot", "/nowhere/at/all/plan.svg"], "there is no folder"),
        (["--pair", "/nowhere/at/all"], "is not a folder"),
        (["--pair", "x", "--prompts", "/nowhere/at/all"], "cannot be read"),
        (["--prompts", "prompts.txt"], "--prompts: they are for a pair of models; name one with --pair"),
        (["--temperature", "0.8"], "--temperature: it is for a pair of models; name one with --pair"),
        (["--pair", "x", "--temperature", "-1"], "--temperature is 0 or more"),
        (["--phone", "none"], "--phone none takes no time"),
        (["--cloud", "none", "--network", "none"], "--cloud none beside --network none takes no time"),
    ],
)
def test_bad_input_is_one_line_that_says_what_would_be_right(outrider, arguments, said):
    code, out, err = outrider("plan", "--quick", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_picture_that_cannot_be_written_is_told_before_anything_is_planned(outrider, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    monkeypatch.setattr(planning, "plan", lambda *_: pytest.fail("it is planned"))
    (tmp_path / "plan.svg").mkdir()
    for place, said in ((Path("/proc/plan.svg"), "cannot be written: "), (tmp_path / "plan.svg", "name a file")):
        code, out, err = outrider("plan", "--plot", str(place))
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"--plot {place}" in err
        assert said in err


def test_a_phone_that_cannot_hold_the_draft_is_told_the_sum(outrider):
    code, _, err = outrider("plan", "--quick", "--draft", "70B:int4")
    assert code == 1
    assert "35.00 GB weights" in err


def test_a_file_without_prompts_is_refused(outrider, tmp_path):
    (tmp_path / "empty.txt").write_text("\n \n", "utf-8")
    code, _, err = outrider("plan", "--quick", "--pair", "x", "--prompts", str(tmp_path / "empty.txt"))
    assert code == 2
    assert "has no line with a prompt" in err


def test_token_speeds_for_people_and_for_programs(outrider):
    code, out, _ = outrider("tokenspeed")
    assert code == 0
    assert "10.97" in out
    _, out, _ = outrider("tokenspeed", "--json", "--streams", "2", "--phone", "dimensity-9300")
    told = json.loads(out)
    assert told["bandwidth_bytes_per_s"] == profiles.phone("dimensity-9300").bandwidth_bytes_per_s
    assert told["num_streams"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--streams", "0"], "streams are at least 1"),
        (["--bandwidth", "-3"], "--bandwidth is a number above 0"),
        (["--bandwidth", "50", "--phone", "dimensity-9300"], "leave out one"),
        (["--phone", "none"], "emulates nothing"),
        (["--plot", "x.pdf"], "a file that ends in .png or .svg"),
    ],
)
def test_bad_input_of_token_speeds(outrider, arguments, said):
    code, out, err = outrider("tokenspeed", *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_pictures_are_drawn_and_the_same_each_time(outrider, tmp_path, monkeypatch):
    plots = pytest.importorskip("outrider.planning.plots", reason="matplotlib is an extra")
    monkeypatch.setattr(plots, "ALPHAS", (0.6, 0.9))
    monkeypatch.setattr(plots, "ROUND_TRIPS_MS", (30.0, 240.0))
    pictures = []
    for name in ("a.svg", "b.svg"):
        assert outrider("plan", "--quick", "--json", "--plot", str(tmp_path / name))[0] == 0
        assert outrider("tokenspeed", "--plot", str(tmp_path / f"speed-{name}"))[0] == 0
        pictures.append([(tmp_path / file).read_bytes() for file in (name, f"speed-{name}")])
    assert pictures[0] == pictures[1]
    assert all(picture.startswith(b"<?xml") for picture in pictures[0])
