"""Folders that commands read: one that is not there is bad input (exit code 2), what is in it may be damaged (1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from speculation.errors import InvalidRequestError


def existing(what: str) -> Callable[[Path], Path]:
    """A check of an argument: its folder is there. ``what`` says what would be right."""

    def checked(path: Path) -> Path:
        if not path.is_dir():
            raise InvalidRequestError(f"{path} is not a folder; {what}")
        return path

    return checked


PackageArgument = Annotated[
    Path,
    typer.Argument(
        metavar="DIR",
        help="The package: a folder with manifest.json.",
        callback=existing("a package is a folder with manifest.json in it"),
    ),
]
CheckpointArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A folder with config.json, tokenizer.json and model.safetensors, or shards.",
        callback=existing("a checkpoint is a folder with config.json, tokenizer.json and model.safetensors"),
    ),
]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="A full model: a package, a checkpoint or an export.",
        callback=existing("a model is a folder, such as one that was downloaded from a model hub"),
    ),
]
