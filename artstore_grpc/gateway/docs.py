"""`/docs`: the OpenAPI document as one plain page, without scripts, fonts or anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from typing import Any

from artstore_grpc.gateway.answers import Answer
from artstore_grpc.gateway.discovery import METADATA_MAX_AGE, cacheable
from artstore_grpc.gateway.endpoint import Handler
from artstore_grpc.gateway.exchange import Exchange

HTML = (b"content-type", b"text/html; charset=utf-8")

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1rem; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100%; }
caption { font-weight: 600; text-align: left; }
th, td { border: 1px solid; padding: .3rem .5rem; text-align: left; vertical-align: top; }
h2 { border-bottom: 2px solid; margin-top: 2.5rem; }
"""

STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: the one style sheet in the page, and nothing else."""


def handler(openapi: dict[str, Any]) -> Handler:
    body = page(openapi).encode()
    extra = ((b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer"))

    async def handle(exchange: Exchange) -> Answer:
        answer = cacheable(exchange, body, METADATA_MAX_AGE, HTML)
        return answer._replace(headers=(*answer.headers, *extra))

    return handle


def page(openapi: dict[str, Any]) -> str:
    """The whole page."""
    info = openapi["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>',
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n</head>',
            f"<body>\n<header>\n<h1>{title}</h1>\n<p>{escape(info['summary'])}",
            'The same in full, for programs: <a href="/openapi.json">openapi.json</a>.</p>\n</header>',
            *contents(openapi),
            "<main>",
            *operations(openapi),
            *components(openapi),
            "</main>\n</body>\n</html>\n",
        ]
    )


def walked(openapi: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def contents(openapi: dict[str, Any]) -> Iterator[str]:
    yield '<nav aria-label="Operations">\n<ul>'
    for method, path, operation in walked(openapi):
        link = f'<a href="#{operation["operationId"]}">{escape(operation["summary"])}</a>'
        yield f"<li><code>{method} {escape(path)}</code> {link}</li>"
    yield "</ul>\n</nav>"


def operations(openapi: dict[str, Any]) -> Iterator[str]:
    for method, path, operation in walked(openapi):
        yield f'<section id="{operation["operationId"]}">\n<h2><code>{method} {escape(path)}</code></h2>'
        yield f"<p>{prose(operation.get('description') or operation['summary'])}</p>"
        yield from table("Parameters", [(p["name"], p["schema"], p["description"]) for p in listed(operation)])
        body = operation.get("requestBody", {}).get("content", {})
        for kind, content in body.items():
            yield from properties(f"Body, {kind}", content["schema"])
        success = operation["responses"]["200"].get("content", {})
        for content in success.values():
            yield f"<p>Answer: {typed(content['schema'])}.</p>"
        yield "</section>"


def listed(operation: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = operation.get("parameters", [])
    return found


def components(openapi: dict[str, Any]) -> Iterator[str]:
    for name, schema in openapi["components"]["schemas"].items():
        yield f'<section id="schema-{escape(name)}">\n<h2>{escape(name)}</h2>'
        yield f"<p>{prose(schema.get('description', ''))}</p>"
        yield from properties(f"Members of {name}", schema)
        yield "</section>"


def properties(caption: str, schema: dict[str, Any]) -> Iterator[str]:
    rows = [(name, part, part.get("description", "")) for name, part in schema.get("properties", {}).items()]
    yield from table(caption, rows)


def table(caption: str, rows: list[tuple[str, dict[str, Any], str]]) -> Iterator[str]:
    if not rows:
        return
    yield f"<table>\n<caption>{escape(caption)}</caption>"
    columns = "".join(f'<th scope="col">{column}</th>' for column in ("Name", "Type", "Meaning"))
    yield f"<thead><tr>{columns}</tr></thead><tbody>"
    for name, schema, description in rows:
        cells = f"<td>{typed(schema)}</td><td>{prose(description)}</td>"
        yield f'<tr><th scope="row"><code>{escape(name)}</code></th>{cells}</tr>'
    yield "</tbody></table>"


def typed(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#schema-{name}">{name}</a>'
    if schema.get("type") == "array":
        return f"list of {typed(schema['items'])}"
    if "enum" in schema:
        return " | ".join(f"<code>{escape(value)}</code>" for value in schema["enum"])
    return escape(schema.get("format") or schema["type"])


def prose(text: str) -> str:
    """Escaped text, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))
