"""What is measured: one baseline (SQLite, RS256, no Redis, 16 connections), and one factor varied at a time.

A row's cost is compared with its floor's, pair by pair of runs; `must` and `aim` bound the ratio.
"""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS = 16
WORKERS_CONNECTIONS = 32
"""Enough that workers, among whom the kernel divides connections by chance, have nearly as many each."""
WORKERS_TIMES = 4
"""Until the scheduler has found a core for each process that may have any, a good part of a short run is over."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    target: str
    """What is called: a key of the rig."""
    operation: str
    """What is done: a key of `operations.MAKERS`."""
    floor: str = ""
    """The row that this one's CPU is given as a multiple of."""
    must: float = 0.0
    aim: float = 0.0
    connections: int = CONNECTIONS
    at_most: int = 0
    """Operations in one run, for those that take a long time each; 0: as many as fit."""
    times_seconds: int = 1
    """How many times longer than others its runs are, and those of its floor beside it."""
    quick: bool = True
    """Whether `make bench-quick` has it too."""


FLOOR = "floor: bare gRPC, one RS256"
FLOOR_ES256 = "floor: bare gRPC, one ES256"
FLOOR_EDDSA = "floor: bare gRPC, one EdDSA"
BARE = "floor: bare gRPC call"
FLOOR_HTTP = "floor: bare Starlette, one RS256"
BASELINE = "IssueToken"
ONE_WORKER = "IssueToken, every core"
GATEWAY = "IssueToken, gateway in process"

ROWS: tuple[Row, ...] = (
    Row(BARE, "floor", "bare"),
    Row(FLOOR, "floor", "floor RS256"),
    Row(BASELINE, "sqlite", "issue", FLOOR, 1.3, 1.1),
    Row(ONE_WORKER, "one worker", "issue", connections=WORKERS_CONNECTIONS),
    Row(
        "IssueToken, 2 workers",
        "two workers",
        "issue",
        ONE_WORKER,
        1.1,
        1.05,
        connections=WORKERS_CONNECTIONS,
        times_seconds=WORKERS_TIMES,
    ),
    Row("IssueToken, Redis limits", "redis", "issue", FLOOR, 1.45, 1.15),
    Row("IssueToken, Redis limits one by one", "redis one by one", "issue", FLOOR, quick=False),
    Row("IssueToken, PostgreSQL", "postgres", "issue", FLOOR, 1.3, 1.1, quick=False),
    Row("IssueToken, PostgreSQL and Redis", "postgres redis", "issue", FLOOR, 1.45, 1.15, quick=False),
    Row(FLOOR_HTTP, "floor http", "floor http"),
    Row(GATEWAY, "sqlite", "form", FLOOR_HTTP, 1.45, 1.2),
    Row("IssueToken, gateway alone", "gateway", "form", FLOOR, 2.3, 2.0),
    Row("IssueToken, gateway alone on the other core", "gateway apart", "form", FLOOR, quick=False),
    Row(FLOOR_EDDSA, "floor", "floor EdDSA"),
    Row("IssueToken, EdDSA", "eddsa", "issue", FLOOR_EDDSA, 1.6, 1.3),
    Row(FLOOR_ES256, "floor", "floor ES256", quick=False),
    Row("IssueToken, ES256", "es256", "issue", FLOOR_ES256, quick=False),
    Row("IntrospectToken", "sqlite", "introspect", BARE, 1.5, 1.25),
    Row("IntrospectToken, a token's first time", "sqlite", "introspect new", BARE, quick=False),
    Row(f"{FLOOR}, 1 connection", "floor", "floor RS256", connections=1, quick=False),
    Row("IssueToken, 1 connection", "sqlite", "issue", f"{FLOOR}, 1 connection", connections=1, quick=False),
    Row("IntrospectToken, 1 connection", "sqlite", "introspect", connections=1, quick=False),
    Row(f"{FLOOR}, 64 connections", "floor", "floor RS256", connections=64, quick=False),
    Row("IssueToken, 64 connections", "sqlite", "issue", f"{FLOOR}, 64 connections", connections=64, quick=False),
    Row("ListServiceAccounts, page 1", "sqlite", "list 1"),
    Row("ListServiceAccounts, page 1,000", "sqlite", "list 1000", "ListServiceAccounts, page 1", 1.5, 1.1),
    Row("ListServiceAccounts, page 1, PostgreSQL", "postgres", "list 1", quick=False),
    Row(
        "ListServiceAccounts, page 1,000, PostgreSQL",
        "postgres",
        "list 1000",
        "ListServiceAccounts, page 1, PostgreSQL",
        1.5,
        1.1,
        quick=False,
    ),
    Row("IssueToken, cold (bcrypt 12)", "cold", "cold", FLOOR, connections=4, at_most=4, quick=False),
    Row("CreateServiceAccount (bcrypt 12)", "sqlite", "create", FLOOR, connections=4, at_most=4, quick=False),
    Row("CreateServiceAccount (bcrypt 4)", "cheap sqlite", "create", FLOOR, quick=False),
    Row("CreateServiceAccount (bcrypt 4), PostgreSQL", "cheap postgres", "create", FLOOR, quick=False),
    Row("RotateSecret (bcrypt 4), PostgreSQL", "cheap postgres", "rotate", FLOOR, quick=False),
)


def rows(*, quick: bool) -> tuple[Row, ...]:
    return tuple(row for row in ROWS if row.quick or not quick)
