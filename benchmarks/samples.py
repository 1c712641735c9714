"""Three samples of the full model at temperature 0.8, as they come: the first three held-out prompts, seeds 1, 2 and 3.

python -m benchmarks.samples [--json FILE] [--fill README.md]
"""

from __future__ import annotations

import argparse

from benchmarks.report import add_arguments, fill, write_json
from benchmarks.virtual import Bench, Setting
from device_agent.request import Mode, StreamRequest

NUM_SAMPLES, NUM_SAMPLES_QUICK, NUM_TOKENS, TEMPERATURE = 3, 1, 128, 0.8


def samples(count: int) -> list[tuple[str, str]]:
    """Prompt and continuation of each sample."""
    bench = Bench(Setting())
    prompts = bench.prompts(count)
    requests = [
        StreamRequest(prompt, max_tokens=NUM_TOKENS, temperature=TEMPERATURE, seed=seed, mode=Mode.CLOUD)
        for seed, prompt in enumerate(prompts, 1)
    ]
    return [(prompt, done.text) for prompt, done in zip(prompts, bench.run(Setting(), requests), strict=True)]


def as_markdown(prompt: str, text: str) -> str:
    """A sample as a block of code; the mark stands where the prompt ends."""
    return f"```text\n{prompt} ▶{text}\n```\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    found = samples(NUM_SAMPLES_QUICK if arguments.quick else NUM_SAMPLES)
    page = "\n".join(as_markdown(*sample) for sample in found)
    print(page)
    write_json(arguments, [{"prompt": prompt, "text": text} for prompt, text in found])
    for filled in arguments.fill:
        fill(filled, {"samples": page})


if __name__ == "__main__":
    main()
