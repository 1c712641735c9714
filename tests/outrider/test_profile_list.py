"""`outrider profiles`, and `--profiles FOLDER` wherever a phone, a network or a cloud machine is named."""

import json
from pathlib import Path

import pytest

from device_agent.config import load_config
from outrider.local import Emulation
from speculation.errors import ConfigurationError
from speculation.shaping import profiles

PHONE = Path(str(profiles.__file__)).parent / "data" / "phones" / "dimensity-9300.toml"


@pytest.fixture
def own(tmp_path):
    """A folder with one good phone and one that has lost a unit."""
    folder = tmp_path / "own"
    (folder / "phones").mkdir(parents=True)
    text = PHONE.read_text("utf-8")
    (folder / "phones" / "mine.toml").write_text(text.replace("Dimensity 9300", "of mine"))
    (folder / "phones" / "broken.toml").write_text(text.replace('unit = "TOPS"\n', ""))
    return folder


def test_every_profile_is_listed_with_its_title_and_main_figures(outrider):
    code, out, err = outrider("profiles")
    assert (code, err) == (0, "")
    for name in (*profiles.phones(), *profiles.networks(), *profiles.clouds()):
        assert f"\n{name} " in out
    assert "76.8 GB/s" in out
    assert "14.56 Mbit/s" in out


def test_one_kind_by_either_of_its_names(outrider):
    assert outrider("profiles", "phone") == outrider("profiles", "phones")
    out = outrider("profiles", "networks")[1]
    assert "lte" in out
    assert "dimensity" not in out


def test_one_profile_is_told_figure_by_figure_with_unit_source_and_date(outrider):
    code, out, _ = outrider("profiles", "phones", "dimensity-9300")
    assert code == 0
    for name, figure in profiles.phone("dimensity-9300").figures.items():
        assert f"\n{name} = {figure.value:g}" in out
        assert f"{figure.source} ({figure.date})" in out


def test_each_line_of_json_is_a_profile_with_all_its_figures(outrider):
    out = outrider("profiles", "--json")[1]
    lines = [json.loads(line, parse_constant=lambda constant: pytest.fail(constant)) for line in out.splitlines()]
    assert {line["name"] for line in lines if line["kind"] == "phones"} == set(profiles.phones())
    phone = next(line for line in lines if line["name"] == "dimensity-9300")
    assert (phone["origin"], phone["error"]) == ("bundled", None)
    assert phone["figures"]["bandwidth"]["value"] == 76.8
    assert phone["figures"]["bandwidth"].keys() == {"value", "unit", "source", "date"}


def test_the_users_own_are_listed_with_their_file_and_a_broken_one_with_the_rule(outrider, own):
    code, out, _ = outrider("profiles", "phones", "--profiles", own)
    assert code == 0
    assert str(own / "phones" / "mine.toml") in out
    assert "broken cannot be used: " in out
    assert "broken.toml:15: compute has no unit" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["profiles", "tablets"], "unknown kind of profile 'tablets'; known: clouds, networks, phones"),
        (["profiles", "phones", "abacus"], "unknown phone 'abacus'; known: "),
        (["profiles", "phones", "broken"], "broken.toml:15: compute has no unit"),
        (["generate", "x", "--phone", "broken"], "broken.toml:15: compute has no unit"),
        (["demo", "--phone", "broken"], "broken.toml:15: compute has no unit"),
        (["agent", "--phone", "broken"], "broken.toml:15: compute has no unit"),
        (["verifier", "--cloud", "mine"], "unknown cloud 'mine'"),
        (["generate", "x", "--heat", "on"], "heat: the profile none has no figures of it"),
        (["agent", "--heat", "hot"], "heat: the profile none has no figures of it"),
        (["generate", "x", "--agent", "http://127.0.0.1:1"], "--profiles: the agent at http://127.0.0.1:1 has its own"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_is_refused_at_the_start_with_exit_code_2(outrider, own, arguments, said):
    code, out, err = outrider(*arguments, "--profiles", own)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_folder_that_does_not_exist_is_refused(outrider, tmp_path):
    for verb in (["profiles"], ["agent"], ["verifier"], ["demo"], ["generate", "x"]):
        code, _, err = outrider(*verb, "--profiles", tmp_path / "nowhere")
        assert code == 2
        assert "nowhere is not a folder" in err


def test_the_environment_and_a_file_name_the_folder_as_well(monkeypatch, own, tmp_path):
    monkeypatch.setenv("OUTRIDER_AGENT_PROFILES", str(own))
    assert load_config(flags={"phone": "mine"}).catalogue.phone("mine").title.startswith("MediaTek of mine")
    monkeypatch.delenv("OUTRIDER_AGENT_PROFILES")
    file = tmp_path / "agent.toml"
    file.write_text(f"profiles = '{own}'\nphone = 'mine'\n")
    assert load_config(file).phone == "mine"


def test_a_phone_of_the_users_own_says_whose_time_the_figures_show(own):
    assert "MediaTek of mine" in Emulation(phone="mine", profiles=own).lines[0]
    with pytest.raises(ConfigurationError, match=r"broken\.toml:15"):
        Emulation(phone="broken", profiles=own)
