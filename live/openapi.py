"""`/openapi.json`, made of the same table that the server runs.

Responsible for describing routes truthfully: schemas come from the msgspec types that check the
requests, codes from the table of codes. It must not know handlers. Nothing here is written twice,
so the document cannot drift from the server; a test drives the server with it (schemathesis).
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from live.codes import CODES
from live.http import Route

ID_PATTERN: Final = r"^[A-Za-z0-9_.:-]{1,64}$"
PATTERNS: Final = {"sku": r"^[^\x00-\x1f\x7f]{1,64}$"}
"""SKUs are the shop's own and may be anything that can be printed."""
ALWAYS: Final = ("internal", "unavailable", "busy")


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these routes."""
    types = [route.result for route in routes if route.result is not None]
    types += [route.body for route in routes if route.body is not None]
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schema_of = {id(type_): schema for type_, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        path = re.sub(r"{(\w+):\w+}", r"{\1}", route.path)
        paths[path][route.method.lower()] = _operation(route, schema_of)
    components["Problem"] = _problem()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vitrine",
            "version": version,
            "description": "What is not live. The live part is in live/PROTOCOL.md.",
        },
        "paths": dict(paths),
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schema_of: dict[int, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": _parameters(route),
        "responses": _responses(route, schema_of),
    }
    if route.who != "anyone":
        operation["security"] = [{"token": []}]
    if route.body is not None or route.raw:
        schema = {"type": "string"} if route.raw else schema_of[id(route.body)]
        operation["requestBody"] = {
            "required": True,
            "content": {route.media: {"schema": schema}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": PATTERNS.get(name, ID_PATTERN)},
        }
        for name in re.findall(r"{(\w+)(?::\w+)?}", route.path)
    ]
    parameters += [
        {
            "name": field.name,
            "in": "query",
            "required": field.required,
            "schema": _query_schema(field.type),
        }
        for field in msgspec.structs.fields(route.query)
    ]
    if route.key != "none":
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": route.key == "required",
                "schema": {"type": "string", "pattern": r"^[\x21-\x7e]{1,255}$"},
            }
        )
    return parameters


def _query_schema(type_: Any) -> dict[str, Any]:
    """A query parameter that may be left out is not one that may be null."""
    schema: dict[str, Any] = msgspec.json.schema(type_)
    named = schema.pop("$defs", {})
    if "anyOf" in schema:
        kept = [part for part in schema["anyOf"] if part.get("type") != "null"]
        schema = kept[0] if len(kept) == 1 else {"anyOf": kept}
    if "$ref" in schema:
        schema = named[schema["$ref"].rpartition("/")[2]]
    return schema


def _responses(route: Route, schema_of: dict[int, Any]) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "Done."}
    if route.result is not None:
        good["content"] = {route.produces: {"schema": schema_of[id(route.result)]}}
    responses: dict[str, Any] = {str(route.status if route.result else 204): good}
    codes = set(route.codes) | set(ALWAYS)
    if msgspec.structs.fields(route.query):
        codes.add("bad_params")
    if route.body is not None or route.raw:
        codes |= {"too_large", "unsupported_media_type"}
        if not route.raw:
            codes |= {"bad_params"} | ({"card_number"} if route.scan else set())
    if route.who != "anyone":
        codes |= {"token_missing", "token_invalid", "token_expired"}
    if route.who == "host":
        codes.add("forbidden")
    if route.key != "none":
        codes |= {"key_missing", "key_conflict", "key_in_progress"}
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in sorted(codes):
        by_status[CODES[code].status].append(code)
    for status, names in sorted(by_status.items()):
        responses[str(status)] = {
            "description": "Refused: " + ", ".join(f"`{name}`" for name in names) + ".",
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
    return responses


def _problem() -> dict[str, Any]:
    return {
        "title": "Problem",
        "description": "RFC 9457, with the codes of the wire.",
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": sorted(CODES)},
            "detail": {"type": "string"},
            "details": {"type": "object"},
            "retry_after_ms": {"type": "integer", "minimum": 0},
        },
        "required": ["type", "title", "status", "code", "detail"],
    }
