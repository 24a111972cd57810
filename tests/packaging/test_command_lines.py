"""What the documents show to be typed can be typed: commands, options, arguments; and metrics have that name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from artstore_grpc.cli.main import main
from artstore_grpc.telemetry.catalogue import BY_NAME, Kind
from tests.packaging.embedded import blocks
from tests.packaging.test_docs import DOCUMENTS, text

PROGRAM = "artstore-grpc"
GENERATED = ("docs/cli.md", "docs/api.md", "CHANGELOG.md")
"""What the commands themselves have written, and what is of its time."""
NOT_METRICS = {"artstore_grpc", "artstore_run"}
"""The server's package, and the database role of its own."""


def command_lines(document: str) -> Iterator[tuple[list[str], bool]]:
    """What follows the program's name, and whether that is all: so it is in code blocks for the shell, while code
    within a sentence may name a command without its arguments."""
    for language, lines in blocks(re.sub(r"^ +(?=```)", "", text(document), flags=re.MULTILINE)):
        if language == "sh":
            yield from ((words, True) for words in typed(lines))
    for code in re.findall(rf"`({PROGRAM} [^`\n]+)`", re.sub(r"\[(--[^\]`]*)\]", r"\1", text(document))):
        yield from ((words, False) for words in typed(code))


def typed(lines: str) -> Iterator[list[str]]:
    """The words after the program's name, up to the end of the command."""
    waiting = ""
    for line in lines.replace("\\\n", " ").splitlines():
        waiting += line
        try:
            words = split(waiting)
        except ValueError:  # a quotation that goes on in the next line
            waiting += "\n"
            continue
        waiting = ""
        yield from after_program(words)


def split(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def after_program(words: list[str]) -> Iterator[list[str]]:
    for start, word in enumerate(words):
        if word == PROGRAM or word.endswith(f"/{PROGRAM}"):
            rest = words[start + 1 :]
            end = next((n for n, each in enumerate(rest) if re.fullmatch(r"[;&|<>()]+", each)), len(rest))
            yield rest[:end]


def check(words: list[str], *, whole: bool = True) -> None:
    """Raises click.UsageError for what the program wouldn't take; values that it reads from files are not looked at,
    and arguments are missed only where all is there."""
    command: click.Command = main
    context = click.Context(main, info_name=PROGRAM)
    while isinstance(command, click.Group):
        values, rest, _ = command.make_parser(context).parse_args(list(words))
        if not rest:
            return  # a group, or `--help`
        found = command.get_command(context, rest[0])
        if found is None:
            raise click.UsageError(f"There is no command {rest[0]}.")
        command, context, words = found, click.Context(found, info_name=rest[0], parent=context), rest[1:]
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    if rest:
        raise click.UsageError(f"{context.command_path} doesn't take {rest[0]}.")
    for parameter in command.params:
        missing = isinstance(parameter, click.Argument) and parameter.value_is_missing(values.get(parameter.name or ""))
        if missing and parameter.required and whole and "--help" not in words:
            raise click.UsageError(f"{context.command_path} lacks {parameter.human_readable_name}.")
        if isinstance(parameter.type, click.Choice) and isinstance(values.get(parameter.name or ""), str):
            parameter.type.convert(values[parameter.name or ""], parameter, context)


@pytest.mark.parametrize("name", [each for each in DOCUMENTS if each not in GENERATED])
def test_command_lines_can_be_typed(name: str) -> None:
    """Each command is there, and takes the options and arguments that it is shown with."""
    for words, whole in command_lines(name):
        try:
            check(words, whole=whole)
        except click.UsageError as error:
            pytest.fail(f"{name}: {PROGRAM} {shlex.join(words)}: {error.format_message()}")


@pytest.mark.parametrize(
    "words",
    [
        *("accounts creat", "accounts get ID --etag x", "accounts get", "health now"),
        *("accounts create --role boss", "audit list -x"),
    ],
)
def test_a_wrong_one_is_noticed(words: str) -> None:
    """A command, an option, an argument or a choice that there isn't; an argument that is missing."""
    with pytest.raises(click.UsageError):
        check(words.split())


@pytest.mark.parametrize("name", [each for each in DOCUMENTS if each != "CHANGELOG.md"])
def test_metrics_have_that_name(name: str) -> None:
    """Each metric that is named exists; of a histogram so do its sums, counts and buckets."""
    known = set(BY_NAME) | {
        f"{family}_{part}"
        for family in BY_NAME
        if BY_NAME[family].kind is Kind.HISTOGRAM
        for part in ("bucket", "sum", "count")
    }
    named = set(re.findall(r"`(artstore_[a-z0-9_]*[a-z0-9])(?=[`{\[])", text(name))) - NOT_METRICS
    assert named <= known, f"{name} names {sorted(named - known)}"
