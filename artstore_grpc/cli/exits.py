"""The exit codes that scripts may rely on, and which error ends in which; `artstore-grpc --help` shows them."""

from __future__ import annotations

from enum import IntEnum

from artstore import identity

from artstore_grpc.errors import MissingPrivilege
from artstore_grpc.settings import InvalidSettings


class Exit(IntEnum):
    """Why the command ended."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    """click's own, for options that don't parse."""
    ALREADY_BOOTSTRAPPED = 3
    AUTHENTICATION_FAILED = 4
    PERMISSION_DENIED = 5
    NOT_FOUND = 6
    CONFLICT = 7
    UNAVAILABLE = 8
    RATE_LIMITED = 9
    INVALID = 10
    BROKEN = 11
    INCOMPLETE = 12
    UNFIT = 13


MEANINGS: dict[Exit, str] = {
    Exit.OK: "done",
    Exit.UNEXPECTED: "an unexpected error, or interrupted",
    Exit.USAGE: "the command line is wrong",
    Exit.ALREADY_BOOTSTRAPPED: "the installation has its first administrator already",
    Exit.AUTHENTICATION_FAILED: "the client id or the secret was not accepted",
    Exit.PERMISSION_DENIED: "this account may not do this",
    Exit.NOT_FOUND: "there is no such account, secret or service",
    Exit.CONFLICT: "the name is taken, the etag is stale, or the state (of account or schema) does not allow it",
    Exit.UNAVAILABLE: "unreachable, unhealthy or too slow; a dependency is down, or an address to listen on is taken",
    Exit.RATE_LIMITED: "too many requests; try again later",
    Exit.INVALID: "a setting is wrong, or an argument that the service refused",
    Exit.BROKEN: "the ledger, or a file of it, is broken",
    Exit.INCOMPLETE: "a part of it failed, which the report tells; the rest was done",
    Exit.UNFIT: "the deployment has a problem, which the report tells",
}


class Failure(Exception):
    """An error of a command itself: how it ends, a stable reason for programs, and one sentence."""

    def __init__(self, exit: Exit, reason: str, message: str) -> None:
        self.exit = exit
        self.reason = reason
        self.message = message
        super().__init__(message)


BY_ERROR: tuple[tuple[type[Exception], Exit], ...] = (
    (identity.InvalidRequest, Exit.INVALID),
    (identity.Unauthenticated, Exit.AUTHENTICATION_FAILED),
    (identity.PermissionDenied, Exit.PERMISSION_DENIED),
    (identity.NotFound, Exit.NOT_FOUND),
    (identity.Conflict, Exit.CONFLICT),
    (identity.OutOfRange, Exit.INVALID),
    (identity.Unavailable, Exit.UNAVAILABLE),
    (identity.RateLimited, Exit.RATE_LIMITED),
    (InvalidSettings, Exit.INVALID),
    (MissingPrivilege, Exit.PERMISSION_DENIED),
)


def exit_of(error: Exception) -> Exit:
    """The exit code of an error; one that no row knows is unexpected."""
    if isinstance(error, Failure):
        return error.exit
    return next((code for kind, code in BY_ERROR if isinstance(error, kind)), Exit.UNEXPECTED)
