"""The command ``outrider tasks``: its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outrider import options
from outrider.config import caller_key
from outrider.running import run_loop


def tasks(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The graph, as JSON or (FILE.toml) as TOML.")],
    svg: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the schedule into FILE.")] = None,
    phone: options.Phone = None,
    heat: options.Heat = None,
    network: options.Network = None,
    cloud: options.Cloud = None,
    profiles: options.Profiles = None,
    agent: options.Agent = None,
    key_file: options.KeyFile = None,
    draft: options.Draft = None,
    full: options.Full = None,
    variant: options.DraftVariant = None,
    full_variant: options.FullVariant = None,
    provider: options.Provider = None,
    json: options.Json = False,
) -> None:
    """Run a graph of sub-tasks whose prompts take in earlier results."""
    from outrider import task_graph as front
    from outrider.generate import told
    from outrider.local import Emulation, Models

    with told(json):
        models = Models(draft, full, variant, full_variant, provider)
        models.check_agent(agent)
        played = {"phone": phone, "network": network, "cloud": cloud, "profiles": profiles, "heat": heat}
        emulation = Emulation.chosen(agent, played, Emulation())
        asked = front.Asked.of(file, svg)
        key = caller_key(agent, key_file)
    run_loop(front.run(asked, emulation, agent, models, key, json), bool(emulation))
