"""Certificates for tests: made anew each time, by an authority that nobody else knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Files:
    """What an authority has signed, on disk."""

    ca: Path
    cert: Path
    key: Path


def made(folder: Path, name: str, host: str = "127.0.0.1") -> Files:
    """An authority of that name, and a certificate for ``host`` that it signed."""
    authority = trustme.CA()
    signed = authority.issue_cert(host)
    files = Files(folder / f"{name}-ca.pem", folder / f"{name}-cert.pem", folder / f"{name}-key.pem")
    authority.cert_pem.write_to_path(files.ca)
    signed.cert_chain_pems[0].write_to_path(files.cert)
    signed.private_key_pem.write_to_path(files.key)
    return files
