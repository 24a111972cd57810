"""Every error ends in the exit code that scripts rely on, and is one sentence on standard error."""

from __future__ import annotations

import json
from datetime import timedelta

import click
import grpc
import pytest
from artstore import identity
from artstore.identity import errors as client_errors
from click.testing import CliRunner

from artstore_grpc.cli.exits import BY_ERROR, MEANINGS, Exit, Failure, exit_of
from artstore_grpc.cli.failures import EdgeGroup
from artstore_grpc.cli.main import main
from artstore_grpc.cli.session import json_option
from artstore_grpc.errors import MissingPrivilege
from artstore_grpc.settings import InvalidSettings

UNKNOWN = grpc.StatusCode.UNKNOWN

ERRORS: list[tuple[Exception, int]] = [
    (identity.InvalidRequest(UNKNOWN, "R", "m"), 10),
    (identity.InvalidScope(UNKNOWN, "R", "m"), 10),
    (identity.InvalidTarget(UNKNOWN, "R", "m"), 10),
    (identity.Unauthenticated(UNKNOWN, "R", "m"), 4),
    (identity.InvalidClient(UNKNOWN, "R", "m"), 4),
    (identity.InvalidToken(UNKNOWN, "R", "m"), 4),
    (identity.PermissionDenied(UNKNOWN, "R", "m"), 5),
    (identity.NotFound(UNKNOWN, "R", "m"), 6),
    (identity.Conflict(UNKNOWN, "R", "m"), 7),
    (identity.AlreadyExists(UNKNOWN, "R", "m"), 7),
    (identity.EtagMismatch(UNKNOWN, "R", "m"), 7),
    (identity.FailedPrecondition(UNKNOWN, "R", "m"), 7),
    (identity.OutOfRange(UNKNOWN, "R", "m"), 10),
    (identity.Unavailable(UNKNOWN, "R", "m"), 8),
    (identity.DeadlineExceeded(UNKNOWN, "R", "m"), 8),
    (identity.RateLimited(UNKNOWN, "R", "m"), 9),
    (identity.Unimplemented(UNKNOWN, "R", "m"), 1),
    (identity.IdentityError(UNKNOWN, "R", "m"), 1),
    (InvalidSettings("m"), 10),
    (MissingPrivilege("m"), 5),
    (Failure(Exit.ALREADY_BOOTSTRAPPED, "R", "m"), 3),
    (RuntimeError("m"), 1),
]


@pytest.mark.parametrize(("error", "code"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS])
def test_exit_codes(error: Exception, code: int) -> None:
    """The numbers are a promise to scripts."""
    assert exit_of(error) == code


def test_every_client_error_is_tested() -> None:
    """A new class of the client's errors needs a row above."""
    kinds = {
        kind
        for kind in vars(client_errors).values()
        if isinstance(kind, type) and issubclass(kind, identity.IdentityError)
    }
    assert kinds == {type(error) for error, _ in ERRORS if isinstance(error, identity.IdentityError)}


def test_every_code_is_documented() -> None:
    """`--help` lists each code with its meaning."""
    assert set(MEANINGS) == set(Exit)
    said = CliRunner().invoke(main, ["--help"], terminal_width=200).output
    for code, meaning in MEANINGS.items():
        assert f"{int(code)}" in said
        assert meaning in said
    assert {code for _, code in BY_ERROR} <= set(MEANINGS)


def failing(error: Exception) -> click.Group:
    """A program whose one command fails."""

    @click.group(cls=EdgeGroup)
    @click.option("--traceback", is_flag=True)
    def root(traceback: bool) -> None: ...

    @root.command()
    @json_option
    def fail(as_json: bool) -> None:
        raise error

    return root


def test_an_error_is_one_sentence() -> None:
    """What the service said, when to try again, and the id of a denial."""
    error = identity.RateLimited(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "Too many requests.", (), timedelta(seconds=1.5), "den1"
    )
    result = CliRunner().invoke(failing(error), ["fail"])
    assert (result.exit_code, result.stdout) == (9, "")
    assert result.stderr == "Error: Too many requests. Try again in 1.5 s. (denial id den1)\n"


def test_an_error_as_json() -> None:
    """With --json a program finds everything in one object on standard error."""
    error = identity.InvalidRequest(
        grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "name is short.", (identity.Violation("name", "is short"),)
    )
    result = CliRunner().invoke(failing(error), ["fail", "--json"])
    assert (result.exit_code, result.stdout) == (10, "")
    assert json.loads(result.stderr) == {
        "error": {
            "reason": "INVALID_REQUEST",
            "message": "name is short.",
            "exit_code": 10,
            "code": "INVALID_ARGUMENT",
            "violations": [{"field": "name", "description": "is short"}],
        }
    }


def test_an_unexpected_error_hides_its_text() -> None:
    """Its text may hold a password; `--traceback` shows it to who asks."""
    error = RuntimeError("postgresql://user:hunter2@db")
    result = CliRunner().invoke(failing(error), ["fail"])
    assert result.exit_code == 1
    assert "hunter2" not in result.output
    assert result.stderr.startswith("Error: An unexpected error, RuntimeError;")
    assert CliRunner().invoke(failing(error), ["--traceback", "fail"]).exception is error


def test_a_message_can_not_steer_the_terminal() -> None:
    """Escape sequences in what a service says are replaced."""
    result = CliRunner().invoke(failing(identity.NotFound(UNKNOWN, "R", "\x1b[2Jgone\nreally")), ["fail"])
    assert result.stderr == "Error: \N{REPLACEMENT CHARACTER}[2Jgone\N{REPLACEMENT CHARACTER}really\n"


def test_usage_is_2() -> None:
    """Options that don't parse end with click's own code."""
    for arguments in (
        ["frobnicate"],
        ["token", "--no-such-option"],
        ["accounts", "create", "--name", "x"],
        ["accounts", "create", "--name", "abc", "--role", "emperor"],
        ["accounts", "create", "--name", "abc", "--role", "user", "--rate-limit", "0"],
        ["accounts", "rotate-secret", "id", "--overlap", "soon"],
        ["health", "--timeout", "0"],
    ):
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 2, arguments
        assert "Traceback" not in result.output


def test_no_account_given_is_10() -> None:
    """A command that needs an account says which variable is missing, as JSON where that was asked for."""
    env = dict.fromkeys(("ARTSTORE_CLIENT_ID", "ARTSTORE_CLIENT_SECRET", "ARTSTORE_CLIENT_SECRET_FILE"), "")
    result = CliRunner().invoke(main, ["accounts", "list", "--json"], env=env)
    assert result.exit_code == 10
    assert json.loads(result.stderr)["error"]["reason"] == "INVALID_SETTINGS"


def test_nobody_listens_is_8() -> None:
    """A service that can't be reached is named."""
    result = CliRunner().invoke(main, ["health", "--target", "127.0.0.1:1"])
    assert result.exit_code == 8
    assert result.stderr.startswith("Error: The service at 127.0.0.1:1 can't be reached")


def test_version() -> None:
    """`--version` is the distribution's."""
    result = CliRunner().invoke(main, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("artstore-grpc, version ")
