"""At the demo's default emulation the real draft pays and a random one costs nothing: the production code, virtual clock."""

import pytest

from benchmarks.collaboration import NUM_TOKENS, requests, row
from benchmarks.virtual import Bench, Setting
from device_agent.request import Mode

NUM_PROMPTS = 8

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bench():
    return Bench(Setting())


def figures(bench, variant, temperature):
    prompts = bench.prompts(NUM_PROMPTS)
    cloud = bench.run(Setting(), requests(prompts, NUM_TOKENS, temperature, Mode.CLOUD))
    ours = bench.run(Setting(variant=variant), requests(prompts, NUM_TOKENS, temperature, Mode.COLLABORATE))
    return row(temperature, variant, ours, cloud)


def test_the_real_draft_saves_passes_and_time(bench):
    found = figures(bench, "q4", 0.0)
    assert found.is_same_text
    assert found.passes_per_token <= 0.80
    assert found.tokens_per_s >= 1.25 * found.cloud_tokens_per_s


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_random_draft_saves_nothing_and_costs_no_time(bench, temperature):
    found = figures(bench, "random", temperature)
    assert found.is_same_text
    assert found.passes_per_token >= 0.95
    assert found.tokens_per_s >= 0.99 * found.cloud_tokens_per_s
