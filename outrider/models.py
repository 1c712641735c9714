"""`outrider models`: list, fetch, describe and distil models, make a package of a checkpoint, quantise, show and check it."""

from __future__ import annotations

import json as json_format
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from outrider.describe import describe_command
from outrider.distill import distill_command
from outrider.folders import CheckpointArgument, PackageArgument
from outrider.running import waiting
from speculation.engines.architecture import DEFAULT_CONTEXT
from speculation.errors import InvalidRequestError, PackageError

if TYPE_CHECKING:
    from speculation.engines.manifest import Manifest
    from speculation.engines.package import Package
    from speculation.engines.variants import Progress

app = typer.Typer(
    help="List, fetch, describe, distil, make, quantise, show and check models.", no_args_is_help=True, rich_markup_mode=None
)

app.command("distill")(distill_command)
app.command("describe")(describe_command)

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]


@app.command("convert")
def convert_command(
    checkpoint: CheckpointArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The package to make: a folder that is new, or empty.")],
    variant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="fp32 (the default), q4, i8, q8, or q4_b64 and so on; may repeat.")
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"Tokens of a session, prompt included; else the model's, at most {DEFAULT_CONTEXT}."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What it is called; the checkpoint's folder by default.")
    ] = None,
    licence: Annotated[str | None, typer.Option(metavar="TEXT", help="The terms of the weights.")] = None,
    end_token: Annotated[
        list[int] | None, typer.Option(metavar="ID", help="A token that ends a text, instead of the checkpoint's; may repeat.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a package of a Hugging Face checkpoint.

    Its model_type is llama, mistral, qwen2 or qwen3. Weights go into ONNX graphs, one a variant, and one weight at a time;
    model.safetensors is not copied. DIR appears whole, or not at all.
    """
    from speculation.engines.convert import Conversion, convert
    from speculation.engines.package import Package

    began = time.monotonic()
    ends = tuple(end_token or ())
    wanted = Conversion(checkpoint, out, tuple(variant or ("fp32",)), context, name, licence, ends)
    with _bar(is_shown=sys.stderr.isatty() and not json) as progress:
        manifest = convert(wanted, progress)
    rotary = Package(out).architecture.rotary.note(manifest.context_length)
    made = {"package": str(out), **_summary(out, manifest), "rotary": rotary, "seconds": round(time.monotonic() - began, 3)}
    if json:
        print(json_format.dumps(made))
    else:
        if rotary:
            print(f"rotary positions: {rotary}")
        print(f"{out}: {manifest.name}, {', '.join(manifest.variants)}, context {manifest.context_length}, {made['seconds']} s")


@app.command()
def quantize(
    package: PackageArgument,
    to: Annotated[str, typer.Option("--to", metavar="KIND", help="int8, or int4.")],
    block: Annotated[
        int | None,
        typer.Option(metavar="N", help="Weights that share a scale: 16, 32, 64, 128, 256. int4: 32 by default; int8: a row."),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="int4: a text in UTF-8 such as it will meet; scales favour what counts there."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave the package as it is; a copy of it with the variant goes here.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Add a quantised variant to a package.

    int8 is called i8, in blocks q8 or q8_b64; int4 is q4 or q4_b64, calibrated q4_cal. Weights come from model.safetensors,
    else from the fp32 graph, one at a time. All of it happens, or nothing.
    """
    from speculation.engines.adding import Quantisation, add_quantised

    began = time.monotonic()
    wanted = Quantisation(package, to, block, out, calibrate=calibrate)
    with _bar(is_shown=sys.stderr.isatty() and not json) as progress:
        manifest = add_quantised(wanted, progress)
    place, seconds = out or package, round(time.monotonic() - began, 3)
    if json:
        told = {"package": str(place), "variant": wanted.variant, **_summary(place, manifest), "seconds": seconds}
        print(json_format.dumps(told))
    else:
        graph = manifest.variants[wanted.variant].graph
        others = ", ".join(name for name in manifest.variants if name != wanted.variant)
        print(f"{place}: {manifest.name} has {wanted.variant} in {graph}, beside {others}, {seconds} s")


@app.command()
def show(package: PackageArgument, json: JsonOption = False) -> None:
    """Tell what a package is.

    Sizes, variants, context and digests, as the manifest and config.json have them. `verify` reads the files.
    """
    from speculation.engines.package import Package

    found = Package(package)
    shown = {
        "package": str(package),
        **_summary(package, found.manifest),
        "architecture": _architecture(found),
        **_defaults(found),
    }
    print(json_format.dumps(shown) if json else _as_text(shown))


@app.command()
def verify(package: PackageArgument, json: JsonOption = False) -> None:
    """Compare every file of a package with its digest."""
    from outrider.checking import damages
    from speculation.engines.manifest import read_manifest

    manifest = read_manifest(package)
    with waiting("reading the files"):
        damaged = damages(package, manifest)
    if json:
        print(json_format.dumps({"package": str(package), "files": len(manifest.files), "damaged": damaged}))
    if damaged:
        raise PackageError("; ".join(damaged))
    if not json:
        print(f"{package}: {len(manifest.files)} files agree with their digests; the package's is {manifest.digest}")


@app.command("list")
def list_command(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A model, a pair, or a folder of them; else the bundled pair and what is kept."),
    ] = None,
    digest: Annotated[
        bool, typer.Option("--digest/--no-digest", help="Read exports and checkpoints whole, for their digests.")
    ] = True,
    json: JsonOption = False,
) -> None:
    """List the pairs and models in a folder.

    Without DIR the bundled pair and the models in OUTRIDER_MODELS_FOLDER (~/.cache/outrider/models by default). A folder that
    does not load is listed with the reason.
    """
    from outrider.config import load_config
    from outrider.listing import as_table, entries_of
    from speculation.engines.package import bundled_pair_path

    if folder is not None and not folder.is_dir():
        raise InvalidRequestError(f"{folder} is not a folder; name one that holds models", "folder")
    kept = load_config().folder
    roots = [folder] if folder else [bundled_pair_path(), *([kept] if kept.is_dir() else [])]
    with waiting("reading the models"):
        entries = [entry for root in roots for entry in entries_of(root, digest)]
    if json:
        print(json_format.dumps({"folders": [str(root) for root in roots], "models": [e.to_json() for e in entries]}))
    else:
        print(as_table(entries) if entries else f"no models in {', '.join(map(str, roots))}")


@app.command("download")
def download_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A folder, or a repository of the Hugging Face hub (OWNER/NAME; extra hub).")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder that is new, or empty; else one in OUTRIDER_MODELS_FOLDER."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A graph; transformers: the weights; elsewhere: no weights. May repeat."),
    ] = None,
    revision: Annotated[str | None, typer.Option(metavar="REV", help="A branch, tag or commit of the repository.")] = None,
    expect: Annotated[str | None, typer.Option(metavar="DIGEST", help="Refuse a model with another digest.")] = None,
    json: JsonOption = False,
) -> None:
    """Bring a model here: the files that load, and no others.

    Never pickles. They are checked as `verify` does, and DIR appears whole, or not at all; the same command goes on where one
    was interrupted.
    """
    from outrider.config import load_config
    from outrider.downloading import Download, download
    from outrider.sources import folder_of

    folder = folder_of(source)
    place = out or load_config().folder / (folder.resolve().name if folder.is_dir() else source)
    with _bar(is_shown=sys.stderr.isatty() and not json) as tell:
        made = download(Download(source, place, tuple(variant or ()), revision, expect), tell)
    if json:
        told = {"model": str(place), "digest": made.digest, "files": list(made.files), "bytes": made.num_bytes}
        print(json_format.dumps({**told, "revision": made.version, "was_there": made.was_there}))
        return
    at = f" at {made.version}" if made.version else ""
    state = "was there already" if made.was_there else f"{made.num_bytes / 1e6:.1f} MB"
    print(f"{place}: {len(made.files)} files of {source}{at}, {state}; the digest is {made.digest}")


@contextmanager
def _bar(is_shown: bool) -> Iterator[Progress]:
    """A progress bar on stderr, one line a variant."""
    if not is_shown:
        yield lambda variant, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    name_column = TextColumn("{task.description:>5}", markup=False)  # brackets in a file's name are no style
    columns = (name_column, BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, Any] = {}

        def tell(variant: str, done: int, total: int) -> None:
            if variant not in tasks:
                tasks[variant] = bar.add_task(variant, total=total)
            bar.update(tasks[variant], completed=done)

        yield tell


def _summary(path: Path, manifest: Manifest) -> dict[str, Any]:
    """What the manifest says, with the sizes of the files on disk."""
    sizes = {name: (path / name).stat().st_size for name in manifest.files if (path / name).is_file()}
    return {
        "name": manifest.name,
        "licence": manifest.licence,
        "provenance": manifest.provenance,
        "num_parameters": manifest.num_parameters,
        "context_length": manifest.context_length,
        "end_token_ids": list(manifest.end_token_ids),
        "variants": {n: {"graph": v.graph, "weight_bytes": v.weight_bytes} for n, v in manifest.variants.items()},
        "digest": manifest.digest,
        "files": {name: {"bytes": sizes.get(name), "sha256": digest} for name, digest in sorted(manifest.files.items())},
    }


def _architecture(package: Package) -> dict[str, Any]:
    shape = package.architecture
    return {
        "model_type": package.config["model_type"],
        "num_layers": shape.num_layers,
        "hidden_size": shape.hidden_size,
        "num_heads": shape.num_heads,
        "num_kv_heads": shape.num_kv_heads,
        "head_size": shape.head_size,
        "vocabulary_size": shape.vocabulary_size,
        "kv_bytes_per_token": shape.kv_bytes_per_token,
        "rotary": shape.rotary.kind,
        "windows": list(shape.windows) if any(shape.windows) else [],
    }


def _defaults(package: Package) -> dict[str, Any]:
    """What generation_config.json suggests for a request, and what of it is not applied."""
    defaults = asdict(package.generation_defaults)
    unused = defaults.pop("unused")
    return {"generation_defaults": defaults, "generation_unused": list(unused)}


def _as_text(shown: dict[str, Any]) -> str:
    lines = [f"{key.replace('_', ' '):<16} {value}" for key, value in shown.items() if not isinstance(value, dict)]
    lines += [f"{'architecture':<16} " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in shown["architecture"].items())]
    lines += ["defaults         " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in shown["generation_defaults"].items())]
    lines += [
        f"{'variant ' + name:<16} {entry['graph']}, {entry['weight_bytes'] / 1e6:.1f} MB of weights a pass"
        for name, entry in shown["variants"].items()
    ]
    sizes = {name: "missing" if entry["bytes"] is None else f"{entry['bytes']} bytes" for name, entry in shown["files"].items()}
    lines += [f"{'file':<16} {name}, {sizes[name]}, SHA-256 {entry['sha256']}" for name, entry in shown["files"].items()]
    return "\n".join(lines)
