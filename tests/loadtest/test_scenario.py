"""Scenarios: what a file may say, what is refused with its file and key, and how many users a moment has."""

import pytest

from loadtest import scenario
from loadtest.scenario import Abuse, Kind, Scenario, Stage, stage_at
from speculation.errors import ConfigurationError, UnknownNameError

READERS = {"name": "readers", "kind": "reader"}


def content(**more):
    return {"title": "t", "stages": [{"seconds": 4, "users": 8}], "groups": [READERS], **more}


def refusal(**more):
    with pytest.raises(ConfigurationError) as caught:
        scenario.parse(content(**more), "my.toml")
    return str(caught.value)


@pytest.mark.parametrize("name", scenario.names())
def test_every_bundled_scenario_is_valid(name):
    told = scenario.load(name)
    assert told.seconds <= 40
    assert any(group.is_well_behaved for group in told.groups)


def test_the_scenarios_that_the_documentation_promises_are_there():
    assert scenario.names() == ["abusive-devices", "flaky-devices", "long-prompts", "ramp", "spike", "steady"]


def test_every_kind_of_abuse_has_a_group():
    groups = scenario.load("abusive-devices").groups
    assert {group.abuse for group in groups if group.kind is Kind.ABUSER} == set(Abuse)


def test_a_name_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(UnknownNameError, match="spike, steady"):
        scenario.load("stedy")


def test_a_file_is_read_by_its_path(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('title = "t"\nstages = [{seconds = 1, users = 1}]\ngroups = [{name = "a", kind = "device"}]\n', "utf-8")
    assert scenario.load(str(file)).groups[0].kind is Kind.DEVICE


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"stagess": []}, "stagess"),
        ({"groups": [READERS | {"wieght": 2}]}, "groups.0.wieght"),
        ({"stages": [{"seconds": 0, "users": 1}]}, "stages.0.seconds"),
        ({"stages": []}, "stages"),
        ({"groups": [READERS | {"kind": "writer"}]}, "groups.0.kind"),
        ({"groups": [READERS | {"cut_share": 1.5}]}, "groups.0.cut_share"),
        ({"groups": [READERS | {"think_s": [2, 1]}]}, "groups.0"),
        ({"groups": [READERS | {"prompt_tokens": [0, 10]}]}, "groups.0"),
        ({"groups": [READERS | {"abuse": "deaf"}]}, "groups.0"),
        ({"groups": [{"name": "a", "kind": "abuser", "tenant": "abusers"}]}, "groups.0"),
        ({"groups": [{"name": "a", "kind": "abuser", "abuse": "deaf"}]}, "groups.0"),
        ({"groups": [READERS, READERS]}, "all of it"),
        ({"limits": {"max_sessions": 0}}, "limits.max_sessions"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_file_and_key(more, key):
    assert refusal(**more).startswith(f"the scenario my.toml: {key}: ")


def test_a_scenario_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Scenario.model_validate(content()).title = "other"


def test_a_moment_belongs_to_the_stage_that_holds_it():
    stages = [Stage(seconds=2, users=1), Stage(seconds=3, users=5)]
    found = [stage_at(stages, at_s) for at_s in (0.0, 1.9, 2.0, 4.9)]
    assert [stage.users for stage in found] == [1, 1, 5, 5]
    assert stage_at(stages, 5.0) is None


def test_a_scaled_scenario_keeps_the_proportions_of_its_stages():
    told = scenario.load("spike").scaled(seconds=15, users=10)
    assert told.seconds == pytest.approx(15)
    assert [stage.users for stage in told.stages] == [2, 10, 2]
    assert [stage.seconds for stage in told.stages] == pytest.approx([5, 4, 6])


def test_scaling_by_nothing_changes_nothing():
    told = scenario.load("ramp")
    assert told.scaled() == told


def test_those_who_have_nobody_to_call_are_left_out():
    told = scenario.load("steady")
    assert {group.kind for group in told.reaching(True, False).groups} == {Kind.READER}
    assert {group.kind for group in told.reaching(False, True).groups} == {Kind.DEVICE}
    assert told.reaching(True, True) == told


def test_a_scenario_without_anybody_is_refused():
    told = scenario.parse(content(), "f")
    with pytest.raises(ConfigurationError, match="calls an agent, and none is named"):
        told.reaching(False, True)
