"""``GET`` and ``PATCH /v1/emulation``: what the agent plays, and another phone, network, cloud machine or patience at once."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from device_agent import schema
from device_agent.agent import DeviceAgent
from device_agent.beginning import body_of

PATH = "/v1/emulation"


def add_to(app: FastAPI) -> None:
    """Register both."""
    told, changed = schema.emulation_operation(), schema.emulation_change_operation()
    app.add_api_route(PATH, _emulation, methods=["GET"], response_class=Response, openapi_extra=told)
    app.add_api_route(PATH, _change_emulation, methods=["PATCH"], response_class=Response, openapi_extra=changed)


async def _emulation(request: Request) -> JSONResponse:
    agent: DeviceAgent = request.app.state.agent
    return JSONResponse(await agent.emulation.describe())


async def _change_emulation(request: Request) -> JSONResponse:
    agent: DeviceAgent = request.app.state.agent
    await agent.emulation.change(await body_of(request))
    return JSONResponse(await agent.emulation.describe())
