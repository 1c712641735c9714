"""Profiles of a user's own beside the bundled ones."""

import os
from pathlib import Path

import pytest

from speculation.errors import ConfigurationError, UnknownNameError
from speculation.shaping import profiles
from speculation.shaping.catalogue import CLOUDS, NETWORKS, PHONES, Catalogue

BUNDLED = Catalogue()
PHONE = Path(str(profiles.__file__)).parent / "data" / "phones" / "dimensity-9300.toml"


def with_phone(folder: Path, text: str | bytes, name: str = "mine") -> Catalogue:
    file = folder / "phones" / f"{name}.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Catalogue(folder)


def changed(old: str, new: str) -> str:
    text = PHONE.read_text("utf-8")
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize("kind", [PHONES, NETWORKS, CLOUDS], ids=lambda kind: kind.name)
def test_without_a_folder_it_has_the_bundled_profiles(kind):
    assert BUNDLED.names(kind) == kind.bundled_names()
    assert [BUNDLED.load(kind, name) for name in BUNDLED.names(kind)] == [kind.bundled(name) for name in kind.bundled_names()]


def test_a_file_in_the_folder_is_a_profile_by_its_name_beside_the_bundled_ones(tmp_path):
    catalogue = with_phone(tmp_path, changed("value = 76.8", "value = 51.2"))
    assert catalogue.names(PHONES) == tuple(sorted((*profiles.phones(), "mine")))
    assert catalogue.phone("mine").bandwidth_bytes_per_s == 51.2e9
    assert catalogue.phone("mine").name == "mine"
    assert catalogue.phone("dimensity-9300") == profiles.phone("dimensity-9300")
    assert catalogue.network("lte") == profiles.network("lte")
    assert (catalogue.file(PHONES, "mine"), catalogue.file(PHONES, "none")) == (tmp_path / "phones" / "mine.toml", None)


def test_a_phone_without_energy_and_heat_is_one_all_the_same(tmp_path):
    text = PHONE.read_text("utf-8")
    phone = with_phone(tmp_path, text[: text.index("[energy.dram]")]).phone("mine")
    assert (phone.energy, phone.heat) == (None, None)
    assert phone.machine.bandwidth_bytes_per_s == profiles.phone("dimensity-9300").machine.bandwidth_bytes_per_s


def test_half_of_the_energy_is_refused_with_the_file(tmp_path):
    text = PHONE.read_text("utf-8")
    catalogue = with_phone(tmp_path, text[: text.index("[energy.idle]")])
    with pytest.raises(ConfigurationError, match=r"mine.toml: figures of energy are given all together .* energy.idle"):
        catalogue.phone("mine")


def test_the_users_file_goes_before_the_bundled_profile_of_its_name(tmp_path):
    catalogue = with_phone(tmp_path, changed("value = 76.8", "value = 10"), "dimensity-9300")
    assert catalogue.phone("dimensity-9300").bandwidth_bytes_per_s == 10e9
    assert catalogue.names(PHONES) == profiles.phones()
    assert profiles.phone("dimensity-9300").bandwidth_bytes_per_s == 76.8e9


def test_none_keeps_its_meaning(tmp_path):
    with pytest.raises(ConfigurationError, match=r"none.toml: the name 'none' stands for nothing emulated"):
        with_phone(tmp_path, PHONE.read_bytes(), "none")


def test_what_is_no_toml_file_or_hidden_is_no_profile(tmp_path):
    with_phone(tmp_path, PHONE.read_bytes())
    (tmp_path / "phones" / "README.md").write_text("mine")
    (tmp_path / "phones" / ".old.toml").write_text("what an editor left")
    assert Catalogue(tmp_path).own_names(PHONES) == ("mine",)


def test_an_unknown_name_is_answered_with_the_users_names_too(tmp_path):
    catalogue = with_phone(tmp_path, PHONE.read_bytes())
    with pytest.raises(UnknownNameError, match=r"unknown phone 'my'; known: .*mine, none"):
        catalogue.phone("my")
    with pytest.raises(UnknownNameError, match=r"unknown phone '../phones/mine'"):
        catalogue.phone("../phones/mine")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (changed("[compute]", "[computer]"), r"mine.toml:15: unknown figure 'computer'; known: "),
        (changed('unit = "TOPS"\n', ""), r"mine.toml:15: compute has no unit"),
        (changed("value = 76.8", "value = -76.8"), r"mine.toml:3: bandwidth is -7.68e\+10: it cannot be negative"),
        (changed("value = 16", "value = 16 GB"), r"mine.toml: not TOML: .*line 28"),
        (b'title = "\xff"', r"mine.toml is not UTF-8: byte 9 is 0xff"),
        (changed("value = 76.8", f"value = {10**400}"), r"mine.toml:3: bandwidth.value is more than any figure"),
        (changed("value = 76.8", f"value = {'9' * 5000}"), r"mine.toml: not TOML: .*limit"),
        (b"title = " + b"[" * 2000, r"mine.toml: not TOML: "),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_with_its_path_the_line_and_the_rule(tmp_path, text, said):
    catalogue = with_phone(tmp_path, text)
    with pytest.raises(ConfigurationError, match=said) as refusal:
        catalogue.phone("mine")
    assert str(refusal.value).startswith(str(tmp_path / "phones"))


def test_what_cannot_be_read_is_refused_by_name(tmp_path):
    (tmp_path / "phones" / "mine.toml").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"mine.toml cannot be read: Is a directory"):
        Catalogue(tmp_path).phone("mine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_refused(tmp_path):
    with_phone(tmp_path, PHONE.read_bytes())
    (tmp_path / "phones").chmod(0)
    with pytest.raises(ConfigurationError, match="phones cannot be read"):
        Catalogue(tmp_path)


def test_a_folder_without_profiles_is_refused_with_what_is_expected(tmp_path):
    with pytest.raises(ConfigurationError, match=r"holds none of the folders phones, networks, clouds"):
        Catalogue(tmp_path)
    with pytest.raises(ConfigurationError, match=r"nowhere is not a folder"):
        Catalogue(tmp_path / "nowhere")
