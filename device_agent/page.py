"""The page at ``/``: these files of the package and no others, and the prompts that it offers (``docs/page.md``).

The files are in every wheel and the same for everybody, so they need no key; what the page shows comes over the agent's own
routes, which do.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from importlib import resources

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from device_agent import schema
from device_agent.agent import DeviceAgent

START = "index.html"
_SCRIPT = "text/javascript"
_KINDS = {"html": "text/html", "css": "text/css", "svg": "image/svg+xml", "mjs": _SCRIPT}
FILES = (
    START,
    "page.css",
    "icon.svg",
    "agent.mjs",
    "announcer.mjs",
    "controls.mjs",
    "frames.mjs",
    "graph.mjs",
    "lane.mjs",
    "meters.mjs",
    "outrider.mjs",
    "page.mjs",
    "race.mjs",
    "sliders.mjs",
    "tally.mjs",
    "timeline.mjs",
    "timeline_view.mjs",
    "transcript_view.mjs",
    "watch.mjs",
    "words.mjs",
)
PATHS: Mapping[str, str] = {"/" if name == START else f"/page/{name}": name for name in FILES}
"""Where each file is served."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # asked for each time, and sent only where it changed: an agent may be upgraded
}


def add_to(app: FastAPI) -> None:
    """Adds the page to the agent's application. Its ``PATHS`` are for the door to leave open."""
    for path, name in PATHS.items():
        _content(name)  # read here, not while answers are written
        app.add_route(path, _file, include_in_schema=False)
    told = schema.prompts_operation()
    app.add_api_route("/v1/prompts", _prompts, methods=["GET"], response_class=Response, openapi_extra=told)


async def _file(request: Request) -> Response:
    name = PATHS[request.scope["path"]]
    body, tag = _content(name)
    headers = _HEADERS | {"etag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=_KINDS[name.rpartition(".")[2]])


async def _prompts(request: Request) -> JSONResponse:
    """``source``, ``title`` and ``text`` of each; none for a pair that comes without."""
    agent: DeviceAgent = request.app.state.agent
    return JSONResponse({"prompts": [dict(prompt) for prompt in agent.pair.examples]})


@functools.cache
def _content(name: str) -> tuple[bytes, str]:
    """A file and the tag of its content."""
    body = resources.files(__package__).joinpath("static", name).read_bytes()
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'
