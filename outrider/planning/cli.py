"""The flags of `outrider plan` and `outrider tokenspeed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outrider import completing, options
from speculation.shaping.profiles import (
    DEFAULT_CLOUD,
    DEFAULT_DRAFT_MODEL,
    DEFAULT_FULL_MODEL,
    DEFAULT_NETWORK,
    DEFAULT_PHONE,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
PlotOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it, too: a .png or .svg.")]


def plan(
    phone: Annotated[str, typer.Option(help="Phone by name.", autocompletion=completing.phones)] = DEFAULT_PHONE,
    network: Annotated[str, typer.Option(help="Network by name.", autocompletion=completing.networks)] = DEFAULT_NETWORK,
    cloud: Annotated[str, typer.Option(help="Cloud machine by name.", autocompletion=completing.clouds)] = DEFAULT_CLOUD,
    draft: Annotated[str, typer.Option(metavar="MODEL", help="Model on the phone, SIZE:TYPE.")] = DEFAULT_DRAFT_MODEL,
    full: Annotated[str, typer.Option(metavar="MODEL", help="Model in the cloud, SIZE:TYPE.")] = DEFAULT_FULL_MODEL,
    acceptance: Annotated[
        float, typer.Option(metavar="A", help="Share of drafts that the full model would have chosen itself.")
    ] = 0.8,
    second_covers: Annotated[
        float, typer.Option(metavar="S", help="Share of the misses in which the draft's second choice is right.")
    ] = 0.55,
    pair: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Take the tokens of this pair of models instead.")] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Prompts for it, one a line; else its own.")] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", help="Its temperature; 0.8 by default.")] = None,
    rate: Annotated[float, typer.Option(metavar="R", help="Tokens a second that each of many devices must get.")] = 20.0,
    prompt_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of a prompt.")] = 64,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="Tokens of an answer.")] = None,
    context: Annotated[int, typer.Option(metavar="N", help="Tokens that each machine must have room for.")] = 2048,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer and shorter runs: a first look.")] = False,
    json: JsonOption = False,
    plot: PlotOption = None,
    profiles: options.Profiles = None,
) -> None:
    """Say whether it pays, for a phone, a network, a cloud machine and two models. A minute or two."""
    from outrider.planning import command

    sampled = (pair, prompts, temperature)
    command.run_plan(
        phone, network, cloud, draft, full, acceptance, second_covers, *sampled, rate, prompt_tokens, max_tokens, context,
        quick, json, plot, profiles,
    )  # fmt: skip


def tokenspeed(
    phone: Annotated[str | None, typer.Option(help="The memory of this phone.", autocompletion=completing.phones)] = None,
    bandwidth: Annotated[
        float | None, typer.Option(metavar="GB/S", help="A bandwidth; 76.8 (LPDDR5T-9600) by default.")
    ] = None,
    streams: Annotated[int, typer.Option(metavar="N", help="Token streams that share it.")] = 1,
    json: JsonOption = False,
    plot: PlotOption = None,
    profiles: options.Profiles = None,
) -> None:
    """Tell how fast a phone's memory lets models of several sizes write, beside how fast people read."""
    from outrider.planning import command

    command.run_token_speed(phone, bandwidth, streams, json, plot, profiles)
