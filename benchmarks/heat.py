"""How phones slow down as they get hot: three published curves beside the model, and a draft's speed on each phone.

python -m benchmarks.heat [--quick] [--json FILE] [--fill docs/shaping.md] [--plot FILE]

Computed, not measured: every token is one draft step charged to the phone, one behind the other without a pause. The same on
any machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.report import Grid, add_arguments, picture, publish_blocks
from speculation.shaping import profiles
from speculation.shaping.costs import Work
from speculation.shaping.engine import PhoneCost
from speculation.shaping.models import parse_model
from speculation.shaping.phone_state import Heat
from speculation.shaping.profiles import DEFAULT_DRAFT_MODEL, UNSHAPED

CURVES_BLOCK, PHONES_BLOCK = "heat-curves", "heat-phones"
GEMMA = "2B:4.5bit"
"""Gemma 4 E2B at 4 bits as far as a decoded token reads it: two billion effective weights, and the scales of groups of 32."""

CONTEXT = 128
"""Tokens of cache behind which each token is decoded: the published runs wrote answers of 128."""

LONGEST_S, QUICK_S = 600.0, 60.0
WITHIN = 0.10
"""By how much the model may differ from what was published."""

MOMENTS_S = (0, 60, 180, 600)


@dataclass(frozen=True, slots=True)
class Curve:
    """Decode speeds that somebody measured, in tokens/s by seconds after a cold start.

    ``bound`` are held to ``WITHIN``, the others are only shown; ``joules_per_token`` is the battery's, over all of the run.
    """

    label: str
    phone: str
    bound: Mapping[int, float]
    shown: Mapping[int, float]
    joules_per_token: float


PUBLISHED = (
    Curve("Neural Engine", "apple-a19-pro-ane", {0: 33, 60: 28.3, 600: 22}, {30: 28.8, 120: 26.2, 300: 24.3}, 0.207),
    Curve("GPU, MLX", "apple-a19-pro", {0: 48, 60: 22.1, 600: 18}, {30: 33.7, 120: 22.2, 300: 20.2}, 0.232),
    Curve("GPU, LiteRT-LM", "apple-a19-pro-litert", {0: 56, 60: 30.6, 600: 27}, {30: 49.0, 120: 31.0, 300: 30.8}, 0.146),
)
"""An iPhone 17 Pro, Gemma 4 E2B at 4 bits, ten minutes without a pause: D. Majima, "iPhone on-device LLM: the GPU wins the
sprint, the Neural Engine wins the marathon" (dev.to/john-rocky, June 2026). At 0 and 600 s the article's own figures. Between
them the mean of the ten seconds around the moment in the published series of the same runs (john-rocky/apple-silicon-llm-bench,
results/raw/iphone17pro-*-gemma-4-e2b-energy-tg128.jsonl, ``decodeRateRollingWindow``: a sample a second, over five seconds)."""


UNFITTED_PHONE, UNFITTED_MODEL = "apple-a18-pro", "1.54B:4.5bit"
UNFITTED = {100: 22.6}
"""An iPhone 16 Pro under MLX, Qwen 2.5 1.5B at 4 bits, 20 answers one behind the other with a second between them: 40 tokens/s
at the beginning, 22.6 from the eighth answer on (Tummalapalli et al., arXiv 2603.23640, and their TinyBench); by then it has
written for a minute or two, taken here as 100 s. Nothing was fitted to it but the use of its bandwidth, to the first speed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A phone at one moment of drafting without a pause."""

    at_s: float
    tokens_per_s: float
    die_c: float
    skin_c: float
    status: str
    joules: float
    num_tokens: int


def decode(cost: PhoneCost, until_s: float, heat: Heat = Heat.ON, every_s: float = 1.0) -> list[Sample]:
    """Tokens one behind the other, a sample every ``every_s`` and one at the end."""
    state = cost.state(heat)
    if state.heat is None:
        raise ValueError(f"{cost.phone.name} has no figures of heat")
    works = [Work(CONTEXT, 1)]
    step_s, num_bytes = cost.step_s(works), cost.bytes_read(works)
    samples: list[Sample] = []
    num_tokens = 0
    while not samples or samples[-1].at_s < until_s:
        now = state.heat.state
        if now.at_s >= min(len(samples) * every_s, until_s):
            speed = now.speed / step_s
            temperatures = now.temperatures
            samples.append(Sample(now.at_s, speed, temperatures.die_c, temperatures.skin_c, now.word, state.joules, num_tokens))
        state.step(num_bytes, step_s)
        num_tokens += 1
    return samples


def cost_of(phone: str, model: str) -> PhoneCost:
    return PhoneCost(profiles.phone(phone), parse_model(model))


def at(samples: Sequence[Sample], moment_s: float) -> Sample:
    """The first sample at or behind a moment."""
    return next(sample for sample in samples if sample.at_s >= moment_s)


def joules_per_token(cost: PhoneCost, samples: Sequence[Sample]) -> float:
    """Everything that the phone drew, idle power too, over its tokens: what a battery would show."""
    last = samples[-1]
    idle_w = 0.0 if cost.phone.energy is None else cost.phone.energy.idle_w
    return (last.joules + idle_w * last.at_s) / last.num_tokens


def curves_grid(runs: Mapping[str, Sequence[Sample]]) -> Grid:
    rows = [row for curve in PUBLISHED for row in _curve_rows(curve, runs[curve.label])]
    num_met = sum(row[-1] == "yes" for row in rows)
    num_bound = sum(row[-1] in ("yes", "NO") for row in rows)
    return Grid(
        f"Emulated beside published: iPhone 17 Pro, Gemma 4 E2B 4-bit, tokens/s; {num_met} of {num_bound} within {WITHIN:.0%}",
        ("way", "after, s", "published", "emulated", "difference", "die, °C", "skin, °C", "status", f"within {WITHIN:.0%}"),
        rows,
    )


def _curve_rows(curve: Curve, samples: Sequence[Sample]) -> list[list[str]]:
    rows = []
    for moment_s, published in sorted({**curve.bound, **curve.shown}.items()):
        if moment_s > samples[-1].at_s:
            continue
        sample = at(samples, moment_s)
        difference = sample.tokens_per_s / published - 1
        verdict = ("yes" if abs(difference) <= WITHIN else "NO") if moment_s in curve.bound else "not bound"
        speeds = (f"{published:.1f}", f"{sample.tokens_per_s:.1f}", f"{difference:+.1%}")
        gauges = (f"{sample.die_c:.0f}", f"{sample.skin_c:.0f}", sample.status)
        rows.append([curve.label, str(moment_s), *speeds, *gauges, verdict])
    return rows


def energy_grid(runs: Mapping[str, Sequence[Sample]]) -> Grid:
    rows = []
    for curve in PUBLISHED:
        ours = joules_per_token(cost_of(curve.phone, GEMMA), runs[curve.label])
        rows.append([curve.label, f"{curve.joules_per_token:.3f}", f"{ours:.3f}", f"{ours / curve.joules_per_token - 1:+.0%}"])
    return Grid(
        "Emulated beside published: joules a token over these runs, by the battery's gauge (five steps of 1 %, so within 20 %)",
        ("way", "published", "emulated", "difference"),
        rows,
    )


def unfitted_grid(samples: Sequence[Sample]) -> Grid:
    rows = []
    for moment_s, published in UNFITTED.items():
        if moment_s <= samples[-1].at_s:
            ours = at(samples, moment_s).tokens_per_s
            rows.append([UNFITTED_PHONE, str(moment_s), f"{published:.1f}", f"{ours:.1f}", f"{ours / published - 1:+.0%}"])
    return Grid(
        "Emulated beside published, nothing fitted: an iPhone 16 Pro, Qwen 2.5 1.5B 4-bit, 40 tokens/s when cold",
        ("phone", "after, s", "published", "emulated, without pauses", "difference"),
        rows,
    )


def phones_grid(runs: Mapping[str, Sequence[Sample]]) -> Grid:
    rows = []
    for phone, samples in runs.items():
        cost = cost_of(phone, DEFAULT_DRAFT_MODEL)
        speeds = [f"{at(samples, s).tokens_per_s:.0f}" for s in MOMENTS_S if s <= samples[-1].at_s]
        hot = cost.state(Heat.HOT).heat
        cold_s = cost.step_s([Work(CONTEXT, 1)])
        for_ever = f"{hot.state.speed / cold_s:.0f} ({hot.state.word})" if hot is not None else "-"
        step_mj = 1e3 * samples[-1].joules / samples[-1].num_tokens
        rows.append([phone, *speeds, *["-"] * (len(MOMENTS_S) - len(speeds)), for_ever, f"{step_mj:.0f}"])
    return Grid(
        f"Emulated: drafts of {DEFAULT_DRAFT_MODEL}, one branch without a pause, tokens/s",
        ("phone", *(f"after {s} s" for s in MOMENTS_S), "for ever", "mJ a drafted token"),
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--plot", type=picture, metavar="FILE", help="also draw the curves (the extra plot)")
    arguments = parser.parse_args()
    until_s = QUICK_S if arguments.quick else LONGEST_S
    curves = {curve.label: decode(cost_of(curve.phone, GEMMA), until_s) for curve in PUBLISHED}
    names = [name for name in profiles.phones() if name != UNSHAPED]
    phones = {name: decode(cost_of(name, DEFAULT_DRAFT_MODEL), until_s) for name in names}
    unfitted = decode(cost_of(UNFITTED_PHONE, UNFITTED_MODEL), until_s)
    compared = [curves_grid(curves), energy_grid(curves), unfitted_grid(unfitted)]
    grids = {CURVES_BLOCK: compared, PHONES_BLOCK: [phones_grid(phones)]}
    figures = {name: [asdict(sample) for sample in samples] for name, samples in (curves | phones).items()}
    publish_blocks(arguments, grids, figures)
    if arguments.plot:
        from benchmarks import plots

        plots.heat(curves, PUBLISHED, arguments.plot)


if __name__ == "__main__":
    main()
