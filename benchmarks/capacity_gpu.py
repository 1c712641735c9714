"""How many devices one verifier serves from a GPU, in wall time and unshaped, and what drafts give it.

    python -m benchmarks.capacity_gpu [--provider cpu] [--grow 2048x32x5632] [--counts N ...] [--rounds N] [--seconds S]
        [--briefly] [--quick] [--json FILE] [--fill PAGE]

The full model is run by the variant ``torch``: the bundled one with zeros round its weights (``grown.py``), so that it has the
bundled pair's acceptance at a larger model's price. First the texts that it writes on this GPU are recorded, and what the
bundled draft says on the CPU along them and behind what it got wrong. Then the production verifier in a process of its own,
real gRPC, and replay devices in another (``processes/devices.py``): with their drafts, without any, and with the draft model
on the GPU in their place. Systems take turns in every round, every text that ends is compared, rates are medians.
``transformers generate`` decodes prompts of 64 tokens as one batch, without a server. ``--briefly`` leaves it out, and drafts
on the GPU.

Exits with 1 where a text differs. Needs the extra ``transformers``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

from benchmarks.capacity_runs import ALONE, DEPTH, IN_CLOUD, OURS, SYSTEMS, Models, Run, System, measure
from benchmarks.grown import Shape, grow
from benchmarks.report import Grid, add_arguments, publish
from benchmarks.trace_file import Recording, save
from benchmarks.trace_recorder import DRAFT_VARIANT, NUM_LANES, Plan, Recorder
from device_agent.build import draft_engine
from device_agent.config import AgentConfig
from speculation.engines.base import Forkable
from speculation.engines.model import TORCH
from speculation.engines.package import bundled_pair_path, load_pair
from speculation.engines.pairs import FolderPair, pair_of
from speculation.engines.providers import Provider
from speculation.parameters import SamplingParameters

BLOCK = "capacity-gpu"
COUNTS, COUNTS_QUICK = (1, 4, 16, 64), (2,)
SECONDS, SECONDS_QUICK = 4.0, 0.5
NUM_PROMPTS, NUM_TOKENS, NUM_TOKENS_QUICK = 8, 96, 12
NEVER = 2.0
"""No draft is so confident: second choices are not followed, which no replay device sends."""
PEER, PEER_STEPS = "transformers generate", 32
COLUMNS = (
    *("devices", "temperature", "drafts of devices", "decoding alone", "ratio", "drafts on the same GPU", PEER),
    *("passes a token", "rows a pass", "a forward under way, of the time", "alone", "texts", "of them the full model's"),
)


def systems_of(quick: bool, briefly: bool) -> tuple[System, ...]:
    """Without the one whose steps have one row: rows have no price there."""
    named = [system for system in SYSTEMS if system.name in (OURS, ALONE) or (system.name == IN_CLOUD and not briefly)]
    return tuple(replace(system, temperatures=(0.0,)) for system in named[:2]) if quick else tuple(named)


def recorded(pair: FolderPair, provider: Provider, num_prompts: int, num_tokens: int) -> Recording:
    """The texts of the full model as it computes here, and the draft's words along them."""
    full = pair.full.engine(TORCH, 2, 1, provider)
    draft = draft_engine(pair.draft, AgentConfig(variant=DRAFT_VARIANT, max_streams=NUM_LANES + 1))
    assert isinstance(draft, Forkable)
    plan = Plan(num_prompts, num_tokens, first_length=DEPTH, second_length=0, least_second=NEVER)
    recorder, traces = Recorder(full, draft, pair.full.end_token_ids, plan), []
    for temperature in plan.temperatures:
        for seed, prompt in enumerate(load_pair().prompts[:num_prompts], plan.first_seed):
            parameters = SamplingParameters(temperature=temperature, seed=seed)
            traces.append(recorder.record(prompt["source"], pair.full.tokenizer.encode(prompt["text"]).ids, parameters))
    return Recording(
        pair="bundled, grown",
        pair_digest=pair.identity.pair_digest,
        vocabulary_size=pair.full.vocabulary_size,
        end_token_ids=pair.full.end_token_ids,
        parameters={**asdict(plan), "full": f"{TORCH} on {provider}", "draft": DRAFT_VARIANT},
        traces=traces,
    )


def generated(checkpoint: Path, counts: Sequence[int], provider: Provider) -> dict[int, float]:
    """Tokens a second of ``transformers``, by the size of its batch."""
    command = [sys.executable, "-m", "benchmarks.processes.peers", "transformers", str(checkpoint), "--device", provider]
    command += ["--steps", str(PEER_STEPS), "--counts", *map(str, counts)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return {answer["count"]: answer["tokens_per_s"] for answer in map(json.loads, told.splitlines())}


def cells(rounds: Sequence[Sequence[Run]], temperature: float, count: int, generates: Mapping[int, float]) -> list[str]:
    here = [{run.system: run for run in runs if (run.temperature, run.count) == (temperature, count)} for runs in rounds]
    ours, alone = ([runs[name] for runs in here] for name in (OURS, ALONE))
    ratios = [one.tokens_per_s / other.tokens_per_s for one, other in zip(ours, alone, strict=True)]
    inside = [runs[IN_CLOUD].tokens_per_s for runs in here if IN_CLOUD in runs]
    every = [run for runs in here for run in runs.values()]
    return [
        *(str(count), f"{temperature:g}"),
        *(f"{median(run.tokens_per_s for run in runs):.0f}" for runs in (ours, alone)),
        f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{median(inside):.0f}" if inside else "-",
        f"{generates[count]:.0f}" if temperature == 0 and count in generates else "-",
        f"{median(run.passes_per_token for run in ours):.3f}",
        f"{median(run.rows_per_pass for run in ours):.1f}",
        *(f"{median(run.forward_time for run in runs):.2f}" for runs in (ours, alone)),
        *(str(sum(values)) for values in ([run.texts for run in every], [run.same_texts for run in every])),
    ]


def measured(arguments: argparse.Namespace, folder: Path) -> tuple[list[list[Run]], dict[int, float], int]:
    """The rounds, the peer's rates, and how many parameters the full model has."""
    provider, quick = Provider(arguments.provider), arguments.quick
    counts = arguments.counts or (COUNTS_QUICK if quick else COUNTS)
    draft, full = bundled_pair_path() / "draft", folder / "full"
    size = grow(bundled_pair_path() / "full", full, arguments.grow)
    num_prompts, num_tokens = (2, NUM_TOKENS_QUICK) if quick else (NUM_PROMPTS, NUM_TOKENS)
    print(f"recording {2 * num_prompts} texts of {num_tokens} tokens", file=sys.stderr, flush=True)
    models = pair_of(draft, full)
    save(recorded(models, provider, num_prompts, num_tokens), folder / "traces.npz")
    (folder / "identity.json").write_text(json.dumps(asdict(models.identity)), "utf-8")
    generates = {} if quick or arguments.briefly else generated(full, counts, provider)
    pair = ("--draft", str(draft), "--full", str(full))
    # Room for all drafts of all devices: what is run of them is what pays.
    verifier = (*pair, "--provider", provider, "--variant", TORCH, "--max-rows", str(max(256, max(counts) * (1 + DEPTH))))
    devices = ("--traces", str(folder / "traces.npz"), "--identity", str(folder / "identity.json"))
    seconds, num_rounds = (SECONDS_QUICK, 1) if quick else (arguments.seconds, arguments.rounds)
    systems = systems_of(quick, arguments.briefly)
    rounds = asyncio.run(measure(systems, sorted(counts), num_rounds, seconds, Models(verifier, devices)))
    return rounds, generates, size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--provider", choices=tuple(Provider), default=Provider.CPU)
    parser.add_argument("--grow", type=Shape.parse, default=Shape(256, 6, 704), metavar="HxLxF")
    parser.add_argument("--counts", type=int, nargs="+", metavar="N", help=f"numbers of devices {COUNTS}")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="how often all of it is measured (2)")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"that each run counts ({SECONDS:g})")
    parser.add_argument("--briefly", action="store_true", help="only with drafts of devices and alone")
    arguments = parser.parse_args()
    if missing := [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]:
        print(f"skipped: {' and '.join(missing)} not installed (pip install 'outrider[transformers]')")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        rounds, generates, size = measured(arguments, Path(folder))
    runs = [run for runs in rounds for run in runs]
    keys = sorted({(run.temperature, run.count) for run in runs})
    title = f"Measured, wall clock: {size / 1e9:.2f} billion parameters on {arguments.provider}, final tokens a second"
    grid = Grid(title, COLUMNS, [cells(rounds, temperature, count, generates) for temperature, count in keys])
    figures = {"parameters": size, "peer": generates, "rounds": [[asdict(run) for run in runs] for runs in rounds]}
    publish(arguments, BLOCK, [grid], figures)
    return int(any(run.same_texts < run.texts for run in runs))


if __name__ == "__main__":
    sys.exit(main())
