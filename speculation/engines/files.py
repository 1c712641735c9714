"""Files of a package: named by relative paths, kept inside their folder, opened only once their SHA-256 is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import onnx

from speculation import foreign_json
from speculation.errors import PackageError

CONFIG_LIMIT_BYTES = 16 * 1024 * 1024
TOKENIZER_LIMIT_BYTES = 64 * 1024 * 1024
GRAPH_LIMIT_BYTES = 2**31 - 1
"""More than that no protocol buffer can have."""
POINTER = b"version https://git-lfs"


def require(holds: bool, what: str) -> None:
    """Raise ``PackageError`` with ``what`` unless it holds."""
    if not holds:
        raise PackageError(what)


def digest_of(value: object) -> str:
    """SHA-256, as lower-case hexadecimal, of a JSON value in one spelling: sorted keys, no spaces, ASCII."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_size(path: Path, limit_bytes: int) -> int:
    """The bytes of a file, before any of them is read. Raises ``PackageError`` when it is larger than the limit."""
    size = path.stat().st_size
    require(size <= limit_bytes, f"{path} has {size} bytes; at most {limit_bytes} are read")
    return size


def require_no_pointer(path: Path) -> None:
    """Raises ``PackageError`` for what Git LFS leaves in a file's place until it is asked for the file."""
    with path.open("rb") as file:
        is_pointer = file.read(len(POINTER)) == POINTER
    require(not is_pointer, f"{path} is a pointer of Git LFS, not the file itself; fetch it with git lfs pull")


def confined(folder: Path, name: str, kind: str = "package") -> Path:
    """The file ``name`` of a folder. Raises ``PackageError`` for a path that leaves it, a symbolic link, or no file there.

    ``kind`` is what a refusal calls the folder.
    """
    parts = PurePosixPath(name).parts
    is_plain = bool(parts) and not name.startswith("/") and "\\" not in name and ":" not in name and ".." not in parts
    require(is_plain, f"{name!r} in {folder} must be a relative path inside the {kind}, with forward slashes and no '..'")
    path = folder
    for part in parts:
        path = path / part
        require(
            not path.is_symlink(),
            f"{path} is a symbolic link; a {kind} holds plain files only (cp -RL makes them)",
        )
    require(path.is_file(), f"{path} is not there; the {kind} is incomplete")
    return path


def checked(folder: Path, name: str, digests: Mapping[str, str]) -> Path:
    """The file ``name``, once its content has the digest that is listed for it."""
    path = confined(folder, name)
    require(name in digests, f"{path} has no digest in the manifest; add it there, or do not refer to it")
    found = file_digest(path)
    require(found == digests[name], f"{path} is damaged: its SHA-256 is {found}, the manifest says {digests[name]}")
    return path


def read_json(path: Path) -> Any:
    """The JSON value of a file. Raises ``PackageError`` when it holds none."""
    try:
        return foreign_json.loads(path.read_bytes())
    except ValueError as error:
        raise PackageError(f"{path} is not JSON in UTF-8: {error}") from error


def read_bounded_json(path: Path, limit_bytes: int) -> Any:
    """The JSON value of a file that others made. Raises ``PackageError`` as ``parse_json``, and for a file over the limit."""
    check_size(path, limit_bytes)
    require_no_pointer(path)
    return parse_json(path.read_bytes(), str(path))


def parse_json(content: bytes, name: str) -> Any:
    """A JSON value in one reading only: a key that stands twice in an object, or a number that is none, is refused.

    Raises ``PackageError``, which says ``name`` for where the content came from.
    """
    try:
        return foreign_json.loads(content, object_pairs_hook=_without_duplicates, parse_constant=_no_number)
    except foreign_json.NestingError as error:
        raise PackageError(f"{name} is nested too deeply to be read") from error
    except ValueError as error:
        raise PackageError(f"{name} is not JSON in UTF-8: {error}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands twice in an object")
        found[key] = value
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def external_files(graph: Path) -> set[str]:
    """Files that a graph keeps weights in besides its own, as it names them. Raises ``PackageError`` for what is no graph."""
    external = [t for t in tensors_of(read_graph(graph).graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    return {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}


def read_graph(path: Path) -> Any:
    """An ``onnx.ModelProto`` without what it keeps in other files. Raises ``PackageError`` for what is no graph."""
    check_size(path, GRAPH_LIMIT_BYTES)
    require_no_pointer(path)
    try:
        return onnx.load_model(str(path), load_external_data=False)
    except Exception as error:
        raise PackageError(f"{path} is not an ONNX graph: {error}") from error


def tensors_of(graph: Any) -> Iterator[Any]:
    """Every constant of a graph, or of a function, and of the graphs inside its nodes."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from [attribute.t, *attribute.tensors]
            for sparse in [attribute.sparse_tensor, *attribute.sparse_tensors]:
                yield from (sparse.values, sparse.indices)
            for inner in [attribute.g, *attribute.graphs]:
                yield from tensors_of(inner)


def values_read(node: Any) -> Iterator[str]:
    """What a node of a graph takes, and the graphs inside it."""
    yield from node.input
    for attribute in node.attribute:
        for inner in [attribute.g, *attribute.graphs]:
            for part in inner.node:
                yield from values_read(part)
            yield from (value.name for value in inner.output)
