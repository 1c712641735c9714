"""What a load test starts: the files of keys and settings that it writes for the services."""

from loadtest.scenario import Limits
from loadtest.services import TENANTS, keys_toml, settings_toml
from outrider.key_folder import KEY, make_keys
from speculation import tenants
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
