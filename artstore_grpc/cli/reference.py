"""The reference of the settings, read from the docstrings of settings.py: for `serve --help` and docs/settings.md.

`python -m artstore_grpc.cli.reference` prints it as a Markdown table.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Container
from dataclasses import MISSING, Field, dataclass, fields
from datetime import timedelta
from itertools import pairwise
from typing import Any

import click

from artstore_grpc import settings
from artstore_grpc.cli.environment import FILE, PREFIX
from artstore_grpc.cli.parsing import OFF


@dataclass(frozen=True, slots=True)
class Row:
    """A setting: its variable, its default as it would be written, its docstring, whether it also takes `_FILE`."""

    name: str
    default: str
    text: str
    secret: bool


def settings_table() -> list[Row]:
    """Every setting, in the order of settings.py."""
    texts = field_docstrings()
    return [
        Row(
            name=PREFIX + field.name.upper(),
            default=written(_default(field)),
            text=texts[field.name],
            secret=bool(field.metadata.get("secret")),
        )
        for field in fields(settings.Settings)
    ]


def field_docstrings() -> dict[str, str]:
    """The string below each field, on one line: Python itself does not keep them."""
    tree = ast.parse(inspect.getsource(settings))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    found: dict[str, str] = {}
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = " ".join(ast.literal_eval(below.value).split())
    return found


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def written(value: Any) -> str:
    """A value as it would be written in the environment."""
    if value is None:
        return OFF
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)


def markdown(names: Container[str] | None = None) -> str:
    """The settings as a Markdown table: those of these `names` (`DATA_DIR`), or all."""
    lines = ["| variable | default | what it decides |", "|---|---|---|"]
    for row in settings_table():
        if names is not None and row.name.removeprefix(PREFIX) not in names:
            continue
        name = f"`{row.name}`" + (f", `{row.name}{FILE}`" if row.secret else "")
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| {name} | {default} | {row.text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    click.echo(markdown())
