"""How a command fails: one sentence on standard error (a JSON object for programs) and the exit code of exits.py.

The outer edge of every command; a traceback is shown on request only, since it may hold what a user should not paste.
"""

from __future__ import annotations

import errno
import json
from typing import Any

import click
from artstore.identity import IdentityError
from artstore.identity.errors import UNREACHABLE

from artstore_grpc.cli.exits import Exit, Failure, exit_of
from artstore_grpc.cli.text import cleaned
from artstore_grpc.errors import MissingPrivilege
from artstore_grpc.settings import InvalidSettings

AS_JSON = "artstore_grpc.as_json"
TARGET = "artstore_grpc.target"
"""Keys of what a command leaves in its context's `meta`, for its errors: how to print them, and whom it called."""


class EdgeGroup(click.Group):
    """The root of the commands: an error of any of them is one sentence."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("traceback") or _is_broken_pipe(error):
                raise
            report(error, as_json=bool(ctx.meta.get(AS_JSON)), target=str(ctx.meta.get(TARGET, "")))
            return ctx.exit(exit_of(error))


def _is_broken_pipe(error: Exception) -> bool:
    """The reader went away (`| head`), which click itself ends quietly."""
    return isinstance(error, OSError) and error.errno == errno.EPIPE


def report(error: Exception, *, as_json: bool, target: str = "") -> None:
    """Says on standard error what went wrong."""
    said = described(error, target)
    if as_json:
        click.echo(json.dumps({"error": said}, ensure_ascii=False), err=True)
        return
    sentence = said["message"]
    if "retry_after_seconds" in said:
        sentence += f" Try again in {said['retry_after_seconds']:g} s."
    if "denial_id" in said:
        sentence += f" (denial id {said['denial_id']})"
    click.echo(cleaned(f"Error: {sentence}"), err=True)


def described(error: Exception, target: str = "") -> dict[str, Any]:
    """What a program is told: `reason`, `message`, `exit_code`, and what else the error carries."""
    said: dict[str, Any] = {"reason": _reason(error), "message": _message(error, target), "exit_code": exit_of(error)}
    if isinstance(error, IdentityError):
        said["code"] = error.code.name
        if error.violations:
            said["violations"] = [violation._asdict() for violation in error.violations]
        if error.retry_after is not None:
            said["retry_after_seconds"] = error.retry_after.total_seconds()
        if error.denial_id:
            said["denial_id"] = error.denial_id
    return said


def _reason(error: Exception) -> str:
    if isinstance(error, IdentityError | Failure):
        return error.reason
    if isinstance(error, MissingPrivilege):
        return "MISSING_PRIVILEGE"
    return "INVALID_SETTINGS" if isinstance(error, InvalidSettings) else "UNEXPECTED"


def _message(error: Exception, target: str) -> str:
    if isinstance(error, IdentityError) and error.reason == UNREACHABLE and target:
        return f"The service at {target} can't be reached: {error.message}"
    if exit_of(error) is not Exit.UNEXPECTED or isinstance(error, IdentityError):
        return str(error)
    # Its text may hold anything, such as a database's URL with its password.
    return f"An unexpected error, {type(error).__name__}; `artstore-grpc --traceback …` shows where it comes from."
