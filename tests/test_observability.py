"""The folder ``observability`` fits the services: what dashboards ask for is told, and what the containers name is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from cloud_verifier.metrics import VerifierMetrics
from cloud_verifier.verification import Verifier
from speculation.engines.runner import EngineRunner
from speculation.telemetry.choices import Compat
from speculation.telemetry.exposition import PATH, response_of
from tests.cloud_verifier.doubles import IDENTITY, SELF_TEST, WatchedEngine, settings
from tests.device_agent.doubles import agent_of

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "observability"
DASHBOARD = json.loads((FOLDER / "grafana/dashboards/outrider.json").read_text("utf-8"))
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
ENDINGS = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
LABELS = {"le", "tenant", "status", "reason", "position"}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def registries(compat: Compat | None = None) -> tuple[CollectorRegistry, CollectorRegistry]:
    """Of a verifier and of an agent; read them while a loop runs."""
    verifier = Verifier(EngineRunner(WatchedEngine()), IDENTITY, SELF_TEST, settings())
    return VerifierMetrics(verifier, "model", compat).registry, agent_of(None, metrics_compat=compat).metrics.registry


async def told() -> set[str]:
    """The names of the samples that the two services print on /metrics, or will."""
    texts = [bytes((await response_of(registry)).body).decode() for registry in registries()]
    families = [family for text in texts for family in text_string_to_metric_families(text)]
    return {family.name + ending for family in families for ending in ENDINGS[family.type]}


async def test_every_figure_of_the_dashboard_is_told_by_a_service():
    names = await told()
    asked = {name for panel in PANELS for target in panel["targets"] for name in re.findall(r"outrider_\w+", target["expr"])}
    assert len(asked) > 30
    assert asked - names == set()


def test_every_label_that_the_dashboard_groups_by_exists():
    grouped = re.findall(r"by \((\w+)\)", json.dumps(PANELS))
    assert set(grouped) <= LABELS


TITLES = ["Final tokens", "First token", "Between tokens", "Pass", "Acceptance", "Passes for a token", "Sessions", "Slots"]
TITLES += ["Refusals", "Corrections", "Tokens by tenant", "First visible token", "Revoked"]


@pytest.mark.parametrize("title", TITLES)
def test_the_dashboard_has_a_panel(title):
    assert title in {panel["title"] for panel in PANELS}


def test_waits_are_shown_in_three_quantiles():
    first = next(panel for panel in PANELS if panel["title"] == "First token")
    assert [target["legendFormat"] for target in first["targets"]] == ["p50", "p95", "p99"]
    assert [re.search(r"quantile\((.*?),", target["expr"])[1] for target in first["targets"]] == ["0.5", "0.95", "0.99"]


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


def test_the_dashboards_source_is_the_one_that_is_provisioned():
    sources = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text("utf-8"))["datasources"]
    asked = {target["datasource"]["uid"] for panel in PANELS for target in panel["targets"]}
    assert asked == {source["uid"] for source in sources}
    assert sources[0]["url"] == "http://prometheus:9090"


def test_prometheus_asks_the_services_of_the_compose_file_with_the_key_of_its_volume():
    jobs = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    targets = [target for job in jobs for group in job["static_configs"] for target in group["targets"]]
    assert targets == ["verifier:9464", "agent:8080"]
    assert "--metrics-port=9464" in COMPOSE["services"]["verifier"]["command"]
    assert all(target.partition(":")[0] in COMPOSE["services"] for target in targets)
    assert {job["authorization"]["credentials_file"] for job in jobs} == {"/keys/key"}
    assert {job.get("metrics_path", "/metrics") for job in jobs} == {PATH}
    assert "keys:/keys:ro" in COMPOSE["services"]["prometheus"]["volumes"]


@pytest.mark.parametrize("service", ["prometheus", "grafana"])
def test_the_containers_are_pinned_in_a_profile_on_loopback_and_mount_what_is_there(service):
    described = COMPOSE["services"][service]
    assert described["profiles"] == ["observability"]
    assert re.search(r":v?\d+\.\d+\.\d+$", described["image"])
    assert all(port.startswith("127.0.0.1:") for port in described["ports"])
    mounted = [volume.partition(":")[0] for volume in described["volumes"] if volume.startswith("./")]
    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_prometheus_runs_as_the_keys_owner():
    uid = re.search(r"--uid (\d+)", (ROOT / "Dockerfile").read_text("utf-8"))[1]
    assert COMPOSE["services"]["prometheus"]["user"] == uid


OPERATIONS = (ROOT / "docs" / "operations.md").read_text("utf-8")


async def test_the_table_of_figures_is_that_of_the_services():
    """Thermal status is told where heat is emulated, which no table engine does."""
    rows = set(re.findall(r"^\| `(outrider_\w+)` \| (\w+) \| (?:`([\w`, ]+)`)? ?\| (.+) \|$", OPERATIONS, re.MULTILINE))
    told = {
        (family.name + ("_total" if family.type == "counter" else ""), family.type, family.documentation)
        for registry in registries()
        for family in registry.collect()
    }
    thermal = ("outrider_agent_thermal_status", "gauge", "1 at the emulated phone's thermal status.")
    assert {(name, kind, what) for name, kind, _, what in rows} == told | {thermal}


async def test_the_table_of_vllms_names_is_that_of_the_services():
    told = [
        {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect() if ":" in family.name}
        for registry in registries("vllm")
    ]
    rows = re.findall(r"^\| `(vllm:\w+)` \| .+ \| (.*)\|$", OPERATIONS, re.MULTILINE)
    assert {name for name, _ in rows} == told[0]
    assert {name for name, at_agent in rows if at_agent.strip()} == told[1]
