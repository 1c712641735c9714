"""The page at ``/docs``: every route with its parameters and examples, drawn from ``/openapi.json``. No script, no other host.

FastAPI's own page takes its script and its style from elsewhere, which the agent's readers never should.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from starlette.responses import Response

PATH = "/docs"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back: a status, what it means, and an example where there is one."""

    status: str
    about: str
    kind: str | None
    example: str | None


@dataclass(frozen=True, slots=True)
class Shown:
    """One operation as the page shows it."""

    method: str
    path: str
    told: Document
    curl: str

    @property
    def anchor(self) -> str:
        return str(self.told["operationId"])

    @property
    def parts(self) -> list[tuple[str, bool]]:
        """The description, cut where code begins and ends."""
        text = self.told.get("description", "")
        return [(part, index % 2 == 1) for index, part in enumerate(text.split("``"))]

    @property
    def request_schema(self) -> str | None:
        body = self.told.get("requestBody")
        return None if body is None else _pretty(body["content"]["application/json"]["schema"])

    @property
    def answers(self) -> Iterator[Answer]:
        for status, response in sorted(self.told["responses"].items()):
            content = response.get("content") or {None: {}}
            for kind, value in content.items():
                yield Answer(status, response["description"], kind, _text(value.get("example")))


def add_to(app: FastAPI) -> None:
    """Adds the page to the agent's application, behind whatever door it has."""
    app.add_route(PATH, _page, include_in_schema=False)


async def _page(request: Request) -> Response:
    app: FastAPI = request.app
    has_keys = app.state.agent.config.keys is not None
    return await asyncio.to_thread(_drawn, app.openapi(), str(request.base_url).rstrip("/"), has_keys)


def _drawn(document: Document, url: str, has_keys: bool) -> Response:
    style = _style()
    shown = list(operations(document, url, has_keys))
    page = _templates().get_template("api.html").render(document=document, operations=shown, style=Markup(style), url=url)
    return Response(page, media_type="text/html", headers=_headers(style))


def operations(document: Document, url: str, has_keys: bool) -> Iterator[Shown]:
    """Those of a document, in its order, each with a command that asks the agent at ``url``."""
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            yield Shown(method.upper(), path, told, _curl(method.upper(), url + path, told, has_keys))


def _curl(method: str, url: str, told: Document, has_keys: bool) -> str:
    words = ["curl", "-N"] + (["-X", method] if method not in ("GET", "POST" if "requestBody" in told else "") else [])
    words += ["-H", '"Authorization: Bearer $KEY"'] if has_keys else []
    query = ""
    for parameter in told.get("parameters", ()):
        if parameter["in"] == "path":
            url = url.replace("{" + parameter["name"] + "}", parameter["example"])
        elif "example" in parameter:
            query = f"?{parameter['name']}={parameter['example']}"
    words.append(shlex.quote(url + query))
    if "requestBody" in told:
        words += ["-d", shlex.quote(json.dumps(told["requestBody"]["content"]["application/json"]["example"]))]
    return " ".join(words)


def _text(example: Any) -> str | None:
    return example if example is None or isinstance(example, str) else _pretty(example)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


@functools.cache
def _templates() -> Environment:
    return Environment(loader=PackageLoader("device_agent"), autoescape=True, trim_blocks=True, lstrip_blocks=True)


@functools.cache
def _style() -> str:
    return resources.files("device_agent").joinpath("templates/api.css").read_text("utf-8")


def _headers(style: str) -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = ("default-src 'none'", f"style-src 'sha256-{digest}'", "base-uri 'none'", "form-action 'none'")
    policy = "; ".join((*rules, "frame-ancestors 'none'"))
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
