"""A real Prometheus with the repository's own configuration reads both services, and answers what the dashboard asks."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import yaml

import cloud_verifier.server
import device_agent.server
from cloud_verifier.config import VerifierConfig
from cloud_verifier.patience import NEVER
from device_agent.config import AgentConfig

PROMETHEUS = shutil.which("prometheus")
OBSERVABILITY = Path(__file__).resolve().parents[1] / "observability"
DASHBOARD = json.loads((OBSERVABILITY / "grafana/dashboards/outrider.json").read_text("utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
KEY = "a-key-that-is-long-enough-for-this"
TARGETS, SCRAPES = 2, 3
RARE = ("refusals", "sessions_ended", "own_accepted", "own_drafted", "corrections", "rtt")
"""Figures that one answer need not bring about: their series may be empty, or a division by nothing."""

pytestmark = [
    pytest.mark.skipif(PROMETHEUS is None, reason="Prometheus is not installed (Debian: apt-get install prometheus)"),
    pytest.mark.slow,
    pytest.mark.timeout(120),
]


@asynccontextmanager
async def services(folder):
    """A verifier and an agent that ask for a key; the addresses at which their figures are, by the name of the job."""
    keys = folder / "keys.toml"
    keys.write_text(f'[[keys]]\ntenant = "someone"\nkey = "{KEY}"\n')
    keys.chmod(0o600)
    # It waits for drafts: one without patience may overtake them all, and there is no acceptance to tell then.
    full = VerifierConfig(port=0, keys=keys, metrics_port=0, patience=NEVER)
    async with cloud_verifier.server.serve(full) as verifier:
        config = AgentConfig(port=0, verifier=verifier.target, verifier_key=KEY, keys=keys)
        async with device_agent.server.serve(config) as agent:
            figures = {"outrider-verifier": verifier.metrics_url, "outrider-agent": agent.url}
            yield agent.url, {job: httpx.URL(url).netloc.decode() for job, url in figures.items()}


@asynccontextmanager
async def prometheus(folder, targets):
    """Its URL. The configuration is the repository's but for where the services are, where the key is, and how often."""
    config = yaml.safe_load((OBSERVABILITY / "prometheus.yml").read_text("utf-8"))
    config["global"]["scrape_interval"] = "1s"
    (folder / "key").write_text(KEY)
    for job in config["scrape_configs"]:
        job["authorization"]["credentials_file"] = str(folder / "key")
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    listen = "--web.listen-address=127.0.0.1:0"
    process = await asyncio.create_subprocess_exec(*command, listen, stderr=asyncio.subprocess.PIPE)
    try:
        yield await _address(process)
    finally:
        process.terminate()
        await process.communicate()


async def _address(process):
    """Where it listens, as its log says."""
    seen = []
    while line := (await process.stderr.readline()).decode():
        seen.append(line)
        if found := re.search(r'"Listening on".*?address=(\S+)', line):
            return f"http://{found[1]}"
    raise AssertionError("Prometheus ended: " + "".join(seen))


async def scraped(client, times):
    """How often every target was read: so often at least, and all are up."""
    while True:
        reply = (
            await client.get(
                "/api/v1/query", params={"query": f"min(count_over_time(up[10m])) * (count(up == 1) == bool {TARGETS})"}
            )
        ).json()
        if (found := reply["data"]["result"]) and float(found[0]["value"][1]) >= times:
            return float(found[0]["value"][1])
        await asyncio.sleep(0.2)


async def test_prometheus_reads_both_services_and_answers_all_that_the_dashboard_asks(tmp_path):
    async with (
        services(tmp_path) as (agent, targets),
        prometheus(tmp_path, targets) as url,
        httpx.AsyncClient(base_url=url) as to,
    ):
        await scraped(to, 1)
        asked = {"prompt": "The module provides", "max_tokens": 48, "temperature": 0.8, "seed": 1}
        async with httpx.AsyncClient(base_url=agent, headers={"authorization": f"Bearer {KEY}"}) as client:
            for _ in range(2):  # a series that begins with its first answer has a rate only by the next
                reply = await client.post("/v1/stream", json=asked, timeout=60)
                assert '"finish_reason"' in reply.text
                await scraped(to, await scraped(to, 1) + SCRAPES)
        targets = (await to.get("/api/v1/targets")).json()["data"]["activeTargets"]
        assert {(target["labels"]["job"], target["health"], target["lastError"]) for target in targets} == {
            ("outrider-verifier", "up", ""),
            ("outrider-agent", "up", ""),
        }
        empty = [expression for expression in EXPRESSIONS if not await answered(to, expression)]
        assert [expression for expression in empty if not any(name in expression for name in RARE)] == []
        assert len(EXPRESSIONS) > 30


async def answered(client, expression):
    """Whether Prometheus has anything to say; it must at least understand."""
    query = expression.replace("$__rate_interval", "1m")
    reply = await client.get("/api/v1/query", params={"query": query})
    assert reply.json()["status"] == "success", (expression, reply.text)
    values = [float(series["value"][1]) for series in reply.json()["data"]["result"]]
    return any(value == value for value in values)  # a division by nothing is no number
