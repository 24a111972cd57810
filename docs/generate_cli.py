"""docs/cli.md, from the commands themselves: each with its usage, options, and all exit codes."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
from markdown import BANNER, anchor, code, table, text

from artstore_grpc.cli.exits import MEANINGS
from artstore_grpc.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cli.md"
PROGRAM = "artstore-grpc"
CLIENTS = "What every client takes"
"""The heading of the options that all commands have which call the service."""

Record = tuple[str, str]


def page() -> str:
    root = click.Context(main, info_name=PROGRAM)
    found = [each for each in commands(root) if not isinstance(each.command, click.Group)]
    common = common_options(found)
    lines = [
        BANNER,
        "# The command line",
        f"`{PROGRAM}` runs the service and administers it. `--help` after any command shows what this page says of it."
        " What it reads from the environment, as a server or as a client: [settings](settings.md).",
        "",
        *table(("command", ""), map(listed, found)),
        "",
        f"Before a command, as `{PROGRAM} --traceback token`:",
        "",
        *options(records(root)),
        "## Exit codes",
        *table(("code", "meaning"), [(str(int(each)), text(meaning)) for each, meaning in MEANINGS.items()]),
        "",
        f"## {CLIENTS}",
        *options(common),
    ]
    for context in commands(root):
        lines += described(context, common)
    return "\n".join(lines)


def commands(parent: click.Context) -> Iterator[click.Context]:
    """Every command and group below a group, by name."""
    assert isinstance(parent.command, click.Group)
    for name, command in sorted(parent.command.commands.items()):
        context = click.Context(command, info_name=name, parent=parent)
        yield context
        if isinstance(command, click.Group):
            yield from commands(context)


def common_options(found: list[click.Context]) -> list[Record]:
    """The options that most commands have: those that call the service."""
    count = Counter(record for each in found for record in records(each))
    return [record for record, times in count.items() if times > len(found) / 2]


def records(context: click.Context) -> list[Record]:
    """A command's options, as its help has them; `--help` itself is only said of the root."""
    shown = context.command.params if context.parent else context.command.get_params(context)
    return [record for each in shown if (record := each.get_help_record(context)) and record[1]]


def options(found: list[Record]) -> list[str]:
    rows = [(code(names), text(" ".join(said.split()))) for names, said in found]
    return [*table(("option", ""), rows), ""] if rows else []


def listed(context: click.Context) -> tuple[str, str]:
    short = context.command.get_short_help_str(200)
    return f"[`{title(context)}`]({anchor(title(context))})", text(short)


def described(context: click.Context, common: list[Record]) -> list[str]:
    """A group's or a command's section."""
    level = "##" if context.parent and context.parent.parent is None else "###"
    lines = [f"{level} {title(context)}", *sentences(context.command)]
    if isinstance(context.command, click.Group):
        return lines
    usage = " ".join([context.command_path, *context.command.collect_usage_pieces(context)])
    own = records(context)
    lines += ["```text", usage, "```", ""]
    if set(common) <= set(own):
        lines += options([each for each in own if each not in common])
        return [*lines, f"And [{CLIENTS[0].lower()}{CLIENTS[1:]}]({anchor(CLIENTS)}).", ""]
    return [*lines, *options(own)]


def title(context: click.Context) -> str:
    return context.command_path.removeprefix(f"{PROGRAM} ")


def sentences(command: click.Command) -> list[str]:
    """Its help, paragraph by paragraph; one that click is told to leave as it is (`\\b`) is shown as it is."""
    lines: list[str] = []
    for each in inspect.cleandoc(command.help or "").split("\n\n"):
        if each.startswith("\b\n"):
            lines += ["```text", each.removeprefix("\b\n"), "```", ""]
        else:
            lines += [text(" ".join(each.split())), ""]
    return lines
