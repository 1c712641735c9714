"""`outrider rag delta`: signed updates of a store: their keys, making one, applying one."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Signed updates of a store.", no_args_is_help=True, rich_markup_mode=None)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]


@app.command()
def keys(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where they go: rag-private.pem and rag-public.pem.")],
    json: JsonOption = False,
) -> None:
    """Make a pair of Ed25519 keys: one to sign with, and one for devices."""
    from device_agent.retrieval.signing import make_keys

    private, public = folder / "rag-private.pem", folder / "rag-public.pem"
    make_keys(private, public)
    if json:
        print(json_format.dumps({"private": str(private), "public": str(public)}))
    else:
        print(f"{private}: keep it; {public}: for the devices")


@app.command()
def make(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The store as devices have it.")],
    new: Annotated[
        Path, typer.Argument(metavar="NEW", help="The store as they shall have it: a copy of OLD that was changed.")
    ],
    key: Annotated[Path, typer.Option(metavar="FILE", help="The private key.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The delta to make.")],
    json: JsonOption = False,
) -> None:
    """Write what leads from OLD to NEW, signed."""
    from device_agent.retrieval import delta
    from device_agent.retrieval.store import Store

    with Store(old) as before, Store(new) as after:
        header, num_added, num_removed = delta.make(before, after, key, out)
    size = out.stat().st_size
    if json:
        told = {"base": header.base, "new": header.new, "revision": header.counter}
        print(json_format.dumps({"delta": str(out), **told, "added": num_added, "removed": num_removed, "bytes": size}))
    else:
        print(f"{out}: {num_added} documents come, {num_removed} go, revision {header.counter}, {size / 1e3:.1f} kB")


@app.command()
def apply(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The store to change.")],
    delta_path: Annotated[Path, typer.Argument(metavar="DELTA", help="The delta.")],
    public_key: Annotated[Path, typer.Option(metavar="FILE", help="The key of who may change the store.")],
    json: JsonOption = False,
) -> None:
    """Change STORE by a signed delta: as a whole, or not at all."""
    from device_agent.retrieval import delta, delta_file
    from device_agent.retrieval.store import Store

    found = delta_file.read(delta_path, public_key)
    with Store(store, is_read_only=False) as opened:
        delta.apply(opened, found)
        revision, digest = opened.facts.revision, opened.digest
    if json:
        counts = {"added": len(found.added), "removed": len(found.removed)}
        print(json_format.dumps({"store": str(store), "revision": revision, "digest": digest, **counts}))
    else:
        print(f"{store}: {len(found.added)} documents came, {len(found.removed)} went, revision {revision}")
