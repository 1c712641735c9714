"""An application whose OpenAPI document says of each route exactly what its ``openapi_extra`` says."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute


class Described(FastAPI):
    """FastAPI drops what is null from the document, in examples, too, where a null is part of the answer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(generate_unique_id_function=_operation_id, **options)

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            for route in self.routes:
                if isinstance(route, APIRoute) and route.include_in_schema:
                    for method in route.methods or ():
                        document["paths"][route.path_format][method.lower()] |= route.openapi_extra or {}
        return super().openapi()


def _operation_id(route: APIRoute) -> str:
    """How generators of clients name a route: as its function, without what marks that as private."""
    return route.name.strip("_")
