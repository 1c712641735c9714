"""The flags of `outrider conformance`."""

from __future__ import annotations

from typing import Annotated

import typer

from outrider import completing, options
from outrider.config import caller_key, caller_tls
from outrider.running import run_loop


def conformance(
    verifier: Annotated[str, typer.Option(metavar="HOST:PORT", help="The verifier to check.")],
    pair: options.Pair = None,
    key_file: options.KeyFile = None,
    ca: options.Ca = None,
    cert: options.Cert = None,
    cert_key: options.CertKey = None,
    case: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this case; may repeat.", autocompletion=completing.cases)
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="S", help="Seconds that a case may take.")] = 60.0,
    json: options.Json = False,
) -> None:
    """Check, case by case, that a running verifier keeps what docs/protocol.md promises a device."""
    from outrider import conformance as front

    key, tls = caller_key(verifier, key_file), caller_tls(ca, cert, cert_key)
    run_loop(front.run(verifier, pair, json, timeout, case or (), key, tls))
