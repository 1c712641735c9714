"""Files of a package: named by relative paths, kept inside their folder, opened only once their SHA-256 is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import onnx

from speculation.errors import PackageError

JSON_LIMIT_BYTES = 64 * 1024 * 1024
TOKENIZER_LIMIT_BYTES = 64 * 1024 * 1024
GRAPH_LIMIT_BYTES = 2**31 - 1
"""More than that no protocol buffer can have."""


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


def confined(folder: Path, name: str) -> Path:
    """The file ``name`` of a folder. Raises ``PackageError`` for a path that leaves it, a symbolic link, or no file there."""
    parts = PurePosixPath(name).parts
    is_plain = bool(parts) and not name.startswith("/") and "\\" not in name and ":" not in name and ".." not in parts
    require(is_plain, f"{name!r} in {folder} must be a relative path inside the package, with forward slashes and no '..'")
    path = folder
    for part in parts:
        path = path / part
        require(
            not path.is_symlink(), f"{path} is a symbolic link; plain files are needed: download into a folder, not a cache"
        )
    require(path.is_file(), f"{path} is not there; the package is incomplete")
    return path


def checked(folder: Path, name: str, digests: Mapping[str, str]) -> Path:
    """The file ``name``, once its content has the digest that is listed for it."""
    path = confined(folder, name)
    require(name in digests, f"{path} has no digest in the manifest; add it there, or do not refer to it")
    found = file_digest(path)
    require(found == digests[name], f"{path} is damaged: its SHA-256 is {found}, the manifest says {digests[name]}")
    return path


def read_json(path: Path, limit_bytes: int = JSON_LIMIT_BYTES) -> Any:
    """The JSON value of a file. Raises ``PackageError`` when it holds none, or is larger than the limit."""
    check_size(path, limit_bytes)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{path} is not JSON in UTF-8: {error}") from error


def external_files(graph: Path) -> set[str]:
    """Files that a graph keeps weights in besides its own, as it names them. Raises ``PackageError`` for what is no graph."""
    external = [t for t in tensors_of(read_graph(graph).graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    return {entry.value for tensor in external for entry in tensor.external_data if entry.key == "location"}


def read_graph(path: Path) -> Any:
    """An ``onnx.ModelProto`` without what it keeps in other files. Raises ``PackageError`` for what is no graph."""
    check_size(path, GRAPH_LIMIT_BYTES)
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
