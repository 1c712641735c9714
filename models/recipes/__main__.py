"""All steps in order, each in a process of its own; a step that is done is not done again.

Checkpoints lie in ``--work``; stop at any time with Ctrl-C, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def run(step: str, *arguments: object) -> None:
    print(f"== {step}", flush=True)
    subprocess.run([sys.executable, "-m", f"models.recipes.{step}", *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path.home() / ".cache" / "outrider" / "pydoc", help="corpus and checkpoints"
    )
    parser.add_argument("--out", type=Path, default=Path("models/pydoc"), help="folder of the pair")
    parser.add_argument(
        "--version", type=int, required=True, help="version counter of the pair: one more than the last release's"
    )
    parser.add_argument("--full-tokens", type=float, default=25e6, help="of the full model's constant phase")
    parser.add_argument("--draft-tokens", type=float, default=20e6, help="of the distillation's constant phase")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    work, corpus = arguments.work, arguments.work / "corpus"
    full, draft = work / "full" / "final.pt", work / "draft" / "final.pt"
    common = ("--corpus", corpus, "--threads", arguments.threads)
    if not (corpus / "corpus.json").exists():
        run("corpus", "--out", corpus)
    if not full.exists():
        run("train", *common, "--out", full.parent, "--tokens", arguments.full_tokens)
    if full.exists() and not draft.exists():
        distillation = ("--full", full, "--out", draft.parent, "--tokens", arguments.draft_tokens, "--quantised")
        run("distill", *common, *distillation)
    if not draft.exists():
        raise SystemExit("stopped before the end; the same command goes on from the last checkpoint")
    run("package", "--full", full, "--draft", draft, "--corpus", corpus, "--out", arguments.out, "--version", arguments.version)


if __name__ == "__main__":
    main()
