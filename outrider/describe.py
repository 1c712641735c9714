"""`outrider models describe`: what a device needs of a full model, in a folder of its own."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from outrider.folders import ModelArgument
from outrider.running import waiting


def describe_command(
    model: ModelArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to make: new, or empty.")],
    json: Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")] = False,
) -> None:
    """Make what a device needs of a full model: no weights.

    DIR has the model's tokenizer, limits, defaults and digest, so that an agent with --full DIR is one with a verifier that
    has the model itself.
    """
    from speculation.engines.describing import describe

    with waiting("reading the model"):
        made = describe(model, out)
    if json:
        told = {"model": str(model), "description": str(out), "digest": made.digest, "files": list(made.files)}
        print(json_format.dumps({**told, "bytes": made.num_bytes, "model_bytes": made.model_bytes}))
        return
    size = f"{made.num_bytes / 1e6:.1f} MB in place of {made.model_bytes / 1e6:.1f} MB"
    print(f"{out}: what a device needs of {model}, {size}; the digest of both is {made.digest}")
