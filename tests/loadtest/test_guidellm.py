"""The script around guidellm, which is not installed here: what it does without, and what it counts."""

import json

import pytest

from loadtest import guidellm
from speculation.errors import ConfigurationError, LinkError


def test_where_the_command_is_missing_it_says_what_to_do_before_anything_is_started():
    with pytest.raises(ConfigurationError, match="pip install guidellm"):
        guidellm.main(guidellm="no-such-command")


def test_a_run_that_ends_without_a_report_is_no_success():
    with pytest.raises(LinkError, match="code 1"):
        guidellm.main(guidellm="false", agent="http://127.0.0.1:9")


def test_requests_that_met_an_error_are_counted_over_all_its_runs(tmp_path):
    report = tmp_path / "report.json"
    runs = [{"metrics": {"request_totals": {"errored": count, "successful": 9}}} for count in (0, 2, 3)]
    report.write_text(json.dumps({"benchmarks": runs}))
    assert guidellm._num_failed(report) == 5


def test_every_prompt_is_a_held_out_one_and_goes_to_the_agent(tmp_path):
    command = guidellm._command("guidellm", "http://127.0.0.1:8080", tmp_path, 7, 3, tmp_path / "report.json")
    assert "target=http://127.0.0.1:8080" in " ".join(command)
    prompts = [json.loads(line)["prompt"] for line in (tmp_path / "prompts.jsonl").read_text().splitlines()]
    assert len(prompts) == len(set(prompts)) > 7
