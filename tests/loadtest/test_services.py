"""What a load test starts: the files of keys and settings that it writes for the services, and their processes."""

import os
import sys

import pytest

from loadtest.scenario import Limits
from loadtest.services import TENANTS, Running, keys_toml, service, settings_toml
from outrider.key_folder import KEY, make_keys
from speculation import tenants
from speculation.errors import ConfigurationError
from speculation.keys import read_key, read_keys
from speculation.settings import read_toml


def test_every_tenant_has_a_key_and_only_abusers_have_limits(tmp_path):
    for tenant in TENANTS:
        make_keys(tmp_path / tenant, tenant)
    file = tmp_path / "keys.toml"
    file.write_text(keys_toml(tmp_path, Limits(max_sessions=4, tokens_per_s=50)), "utf-8")
    keyring = read_keys(file)
    found = [keyring.tenant_of(tenants.bearer(read_key(tmp_path / tenant / KEY))) for tenant in TENANTS]
    assert [tenant.name for tenant in found] == list(TENANTS)
    assert found[0].limits == tenants.Limits()
    assert found[1].limits == tenants.Limits(max_sessions=4, tokens_per_s=50.0)


def test_settings_are_read_back_as_they_were_told(tmp_path):
    settings = {"port": 0, "keys": 'a "quoted"\\path', "resume_grace_s": 2.5, "draft_gather": True}
    file = tmp_path / "agent.toml"
    file.write_text(settings_toml(settings), "utf-8")
    assert read_toml(file) == settings


def process(code):
    return [sys.executable, "-S", "-c", f"import os, sys, signal\n{code}"]


def test_a_service_lives_while_the_block_runs_and_its_log_is_kept(tmp_path):
    says = process("print('agent on', os.getpid(), file=sys.stderr, flush=True); signal.pause()")
    with service("agent", says, tmp_path / "log") as address:
        os.kill(int(address), 0)
    with pytest.raises(ProcessLookupError):
        os.kill(int(address), 0)
    assert (tmp_path / "log").read_text("utf-8") == f"agent on {address}\n"


def test_a_service_may_say_behind_its_address_where_its_figures_are(tmp_path):
    says = process("print('verifier on h:1, figures at http://h:2/metrics', file=sys.stderr, flush=True); signal.pause()")
    with service("verifier", says, tmp_path / "log") as address:
        assert address == "h:1"


def test_a_service_whose_log_is_json_says_where_it_listens_too(tmp_path):
    line = '{"level": "INFO", "logger": "outrider.services", "message": "verifier on h:1, figures at http://h:2/metrics"}'
    says = process(f"print({line!r}, file=sys.stderr, flush=True)")
    with service("verifier", says, tmp_path / "log") as address:
        assert address == "h:1"


def test_a_service_that_does_not_come_up_says_why(tmp_path):
    fails = process("sys.exit('outrider: error: no such cloud')")
    with pytest.raises(ConfigurationError, match="the verifier ended at once: outrider: error: no such cloud"):  # noqa: SIM117
        with service("verifier", fails, tmp_path / "log"):
            pass


def test_errors_in_a_log_are_found_and_warnings_are_none(tmp_path):
    log = tmp_path / "agent.log"
    log.write_text("agent on x\n1 WARNING device_agent: goes on\n2 ERROR asyncio: a task failed\n", "utf-8")
    assert Running("a", "v", {}, {"agent": log}).complaints() == ["agent: 2 ERROR asyncio: a task failed"]
