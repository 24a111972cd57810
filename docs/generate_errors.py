"""docs/errors.md, from the code: every stable reason, what it comes as, and what a caller can do.

Reasons are read off the source: each `reason="…"` of an error that is made, each class's default, each refusal of
HTTP's own. What to do is said here, once; a reason without a line here, or a line without a reason, is an error.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown import BANNER

from artstore_grpc import errors
from artstore_grpc.gateway import answers

ROOT = Path(__file__).resolve().parents[1]
SERVER = ROOT / "artstore_grpc"
PAGE = ROOT / "docs" / "errors.md"

CLASSES = {kind.__name__: kind for kind in errors.OUTCOMES}
MAKERS = {"invalid": errors.InvalidRequest, "Places": errors.Overloaded}
"""What makes an error of a class when it is called, besides the class."""
NAMED_ELSEWHERE = {"error", "info", "refusal", "step", "self", "reason"}
"""Variables by which a reason is passed on."""

ADVICE = {
    "ACCOUNT_DELETED": "Undelete the account, or use another one.",
    "ACCOUNT_NOT_DELETED": "Nothing is to be undone.",
    "ACCOUNT_NOT_SUSPENDED": "It is active, or has expired: rotate its secret.",
    "ACCOUNT_SUSPENDED": "It is so already.",
    "ACTIVATE_ANOTHER_FIRST": "Activate another key, or rotate: that retires this one.",
    "ALREADY_BOOTSTRAPPED": "Ask the administrator that there is for an account.",
    "ALREADY_EXISTS": "Read what exists.",
    "BAD_DENIAL_ID": "Copy the `denial_id` whole; another installation's can't be opened here.",
    "BODY_TIMEOUT": "Send the request faster, or over a better connection.",
    "BODY_TOO_LARGE": "Send less.",
    "CANCELLED": "Only in the log: the caller went away.",
    "CLIENT_ID_TAKEN": "Import it under another client_id, or find out whose it is.",
    "DATABASE_UNAVAILABLE": "Try again after the time that is told; warm accounts get tokens meanwhile.",
    "DEADLINE_EXCEEDED": "Try again with more time; a change may have been made: use a `request_id`.",
    "DELIVERY_ABANDONED": "See the sink's message; a fresh secret is tried later.",
    "ETAG_MISMATCH": "Read the account again, and decide anew.",
    "FAILED_PRECONDITION": "Bring the account into a state that allows it.",
    "FELL_BEHIND": "Start over with sequence 0: a snapshot comes.",
    "HASHING_QUEUE_FULL": "Try again after the time that is told.",
    "HEADERS_TOO_LARGE": "Send fewer or shorter header fields.",
    "HEAD_ARCHIVED": "Verify the archive with `artstore-grpc audit verify FILE`.",
    "IMPORTS_COLLIDE": "Try again: another import touched the same accounts.",
    "INSUFFICIENT_SCOPE": "Ask for a token with the scope, if the account has it.",
    "INTERNAL": "A defect of ours: report it with the request id, by which the log has the traceback.",
    "INVALID_CLIENT": "Check client_id and secret; an administrator explains the `denial_id`.",
    "INVALID_PAGE_TOKEN": "Begin at the first page; filter and order must stay the same.",
    "INVALID_REQUEST": "Mend the fields that are named.",
    "INVALID_SCOPE": "Ask for scopes that the account has.",
    "INVALID_TARGET": "Ask for audiences that the account may ask for.",
    "INVALID_TOKEN": "Get a new token.",
    "KEY_NOT_FOUND": "List the keys.",
    "KEY_NOT_PREPARED": "Prepare a key first; only a prepared one is activated.",
    "KEY_NOT_PUBLISHED_LONG_ENOUGH": "Wait until the time that is told.",
    "LEDGER_REPLACED": "Start over with sequence 0: the database was restored.",
    "MALFORMED_AUTHORIZATION": "Send one scheme and its credentials.",
    "MALFORMED_BASIC": "Form-encode id and secret, join them by a colon, encode that in base64 (RFC 6749 §2.3.1).",
    "MALFORMED_FORM": "Send a form, with UTF-8 percent-encoded.",
    "MALFORMED_HTTP": "Use a library for HTTP/1.1.",
    "MALFORMED_JSON": "Send one JSON object.",
    "MALFORMED_PATH": "Escape the path as UTF-8.",
    "MALFORMED_RESOURCE": "Send an absolute URI without fragment, or use `audience`.",
    "MALFORMED_TEXT": "Leave NULs out.",
    "MALFORMED_UTF8": "Send UTF-8.",
    "MESSAGE_TOO_LARGE": "Send less.",
    "METHOD_NOT_ALLOWED": "Use a method that `Allow` names.",
    "MISSING_TOKEN": "Send `authorization: Bearer` and a token.",
    "NAME_TAKEN": "Choose another name; a deleted account keeps its own until it is purged.",
    "NOT_A_GATEWAY": "Ask over HTTP, or name the gateway in ARTSTORE_TRUSTED_PROXIES.",
    "NOT_FOUND": "List the accounts.",
    "NOT_YOUR_ACCOUNT": "Rotate by a token of an administrator.",
    "NOT_YOUR_TOKEN": "Only its own account, or an administrator, revokes a token.",
    "NO_SUCH_ROUTE": "See `/openapi.json`.",
    "OVERLOADED": "Try again after the time that is told.",
    "OWN_ACCOUNT": "Have another administrator do it.",
    "PARAMETERS_IN_URL": "Send them in the body (RFC 6749 §2.3.1): URLs are logged.",
    "PERMISSION_DENIED": "Use an account that may.",
    "RATE_LIMITED": "Try again after the time that is told, or have the account's `rate_limit` raised.",
    "REPEATED_AUTHORIZATION": "Send one.",
    "REPEATED_PARAMETER": "Send each once; `resource` and `audience` alone may repeat.",
    "REPLAY_CHECK_UNAVAILABLE": "Try again with a new assertion.",
    "REQUEST_ID_REUSED": "Use a new UUID for another request.",
    "REQUEST_ID_SPENT": "It was done; read the account, and rotate if its secret was lost.",
    "ROOT_KEY_CHANGED": "Restart the process, which was left running over a change of the root key.",
    "ROTATIONS_BUSY": "Try again in some seconds.",
    "SCOPE_NOT_HELD": "Use an administrator that holds every scope of the account.",
    "SECRET_NOT_FOUND": "Read the account: its secrets are listed.",
    "SECRET_REQUIRED": "Authenticate with the secret itself, or with the account's key.",
    "SEQUENCE_UNKNOWN": "Start over with sequence 0: a snapshot comes.",
    "SHUTTING_DOWN": "Try again: a balancer finds another server.",
    "SINK_FAILED": "See the message; it is tried again.",
    "SINK_UNKNOWN": "Name a sink of ARTSTORE_SINKS_FILE.",
    "STOPPING": "Follow another server from the same sequence.",
    "SYSTEM_ACCOUNT": "It can't be deleted; suspend it.",
    "TOKEN_ENDED": "Open the stream again with a new token.",
    "TOO_MANY_CALLS": "Try again after the time that is told; give the service more processes.",
    "TOO_MANY_CONNECTIONS": "Try again after the time that is told, and keep connections for further requests.",
    "TOO_MANY_FAILURES": "Mend the credentials; until the time that is told nothing from there is looked at.",
    "TOO_MANY_LISTS": "Try again after the time that is told, or follow the feed.",
    "TOO_MANY_PARAMETERS": "Send fewer.",
    "TOO_MANY_STREAMS": "Try again after the time that is told; share one feed in a process.",
    "TOO_MANY_VERIFICATIONS": "Try again after the time that is told.",
    "TWO_CLIENT_AUTHENTICATIONS": "Authenticate in one way (RFC 6749 §2.3).",
    "TWO_LIVE_SECRETS": "Revoke the one that is no longer used.",
    "UNAUTHORIZED_CLIENT": "Use an account that may have tokens.",
    "UNAVAILABLE": "Try again after the time that is told.",
    "UNDECODABLE_MESSAGE": "Generate the client from these protos.",
    "UNIMPLEMENTED": "See the protos for the methods that there are.",
    "UNSUPPORTED_GRANT_TYPE": "Send `grant_type=client_credentials`.",
    "UNSUPPORTED_MEDIA_TYPE": "Send the type that is asked for, in UTF-8, not compressed.",
    "WRONG_AUDIENCE": "Ask for a token whose only audience is the issuer.",
}


@dataclass(frozen=True, order=True)
class Row:
    """One reason in one form."""

    reason: str
    grpc: str
    http: int
    oauth: str


def rows() -> set[Row]:
    """Every reason that the code gives. Raises SystemExit for one that can't be read off it."""
    found = {row(kind.default_reason, kind) for kind in errors.OUTCOMES}
    for path in sorted(SERVER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                found |= set(made(node, path))
    for refusal in vars(answers).values():
        if isinstance(refusal, answers.Refusal):
            found.add(Row(refusal.reason, refusal.code, refusal.status, refusal.oauth))
    return found


def made(call: ast.Call, path: Path) -> Iterator[Row]:
    """The reason of an error that this makes."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    kind = CLASSES.get(name) or MAKERS.get(name)
    for keyword in call.keywords:
        if keyword.arg != "reason" or kind is None:
            continue
        if isinstance(keyword.value, ast.Constant):
            if keyword.value.value:
                yield row(keyword.value.value, kind)
        elif ast.unparse(keyword.value).split(".")[0] not in NAMED_ELSEWHERE:
            raise SystemExit(f"{path}:{call.lineno}: this reason can't be read off the code")


def row(reason: str, kind: type[errors.IdentityError]) -> Row:
    outcome = errors.OUTCOMES[kind]
    return Row(reason, outcome.grpc, outcome.http, outcome.oauth)


def page() -> str:
    """docs/errors.md. Raises SystemExit where reasons and advice differ."""
    found = rows()
    reasons = {each.reason for each in found}
    if missing := sorted(reasons - ADVICE.keys()):
        raise SystemExit(f"docs/generate_errors.py says nothing of {', '.join(missing)}")
    if unknown := sorted(ADVICE.keys() - reasons):
        raise SystemExit(f"docs/generate_errors.py has what no code gives: {', '.join(unknown)}")
    lines = [
        BANNER,
        "# Errors",
        "Each error has a reason that stays what it is: `google.rpc.ErrorInfo.reason` with the domain",
        f"`{errors.DOMAIN}` over gRPC, `reason` in the API's JSON, `error` (RFC 6749 §5.2) at the OAuth endpoints.",
        "The sentence that comes with it is for people, and may change. Where there is a time to wait it is",
        "`RetryInfo`, or `Retry-After`. A denied authentication has a `denial_id`, which `artstore-grpc audit explain`",
        "opens.",
        "",
        "| reason | gRPC | HTTP | OAuth | what to do |",
        "|---|---|--:|---|---|",
    ]
    lines += [
        f"| `{each.reason}` | {each.grpc} | {each.http} | `{each.oauth}` | {ADVICE[each.reason]} |"
        for each in sorted(found)
    ]
    return "\n".join(lines) + "\n"
