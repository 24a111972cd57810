"""Expand and contract: which programs may run on which schema, what a migration of each kind may do, and what an
upgrade does with them. Those that only tests have come after this program's last one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from artstore_grpc.cli.database import upgraded
from artstore_grpc.installation import prepare
from artstore_grpc.settings import Settings
from artstore_grpc.store import compatibility, engine, schema
from artstore_grpc.store.compatibility import SCHEMA, ContractNeeded, Kind, OldPrograms, Standing, Version, version
from artstore_grpc.store.schema import SchemaMismatch, TablesInUse, check, standing, upgrade
from artstore_grpc.store.sql import SqlStore
from tests.installation import Installation
from tests.store.migrating import EXPANDING, HEAD, NEXT, add_migration, broken_promises, run
from tests.store.samples import account, add

ADD_COLUMN = 'op.add_column("accounts", sa.Column("trial", sa.Text()))'
DROP_COLUMN = 'op.drop_column("accounts", "trial")'
CONTRACTING = f"{NEXT + 1:04}_from_{NEXT:04}"
WIDER_CHECK = (
    'op.drop_constraint(op.f("ck_accounts_role"), "accounts")\n'
    'op.create_check_constraint(op.f("ck_accounts_role"), "accounts", "length(role) < 16")'
)

EXPANSIONS = {
    "a table": 'op.create_table("trials", sa.Column("id", sa.Integer(), primary_key=True))',
    "a column": ADD_COLUMN,
    "a column with a default": (
        'op.add_column("accounts", sa.Column("t", sa.Text(), nullable=False, server_default=""))'
    ),
    "an index": 'op.create_index("ix_trial", "accounts", ["update_time"])',
    "rows": "op.execute(\"UPDATE accounts SET description = 'seen'\")",
    "a reference to what is there": (
        'op.create_table("trials", sa.Column("id", sa.String(36), sa.ForeignKey("accounts.id"), primary_key=True))'
    ),
}
NO_EXPANSIONS = {
    "a table dropped": 'op.drop_table("assertions")',
    "a table renamed": 'op.rename_table("assertions", "used")',
    "a column dropped": 'op.drop_column("accounts", "told_expire_time")',
    "a column renamed": 'op.alter_column("accounts", "told_expire_time", new_column_name="told")',
    "a column that must be given": "op.execute(\"ALTER TABLE replays ADD COLUMN t TEXT NOT NULL DEFAULT ''\")\n"
    'op.execute("CREATE TABLE again (key VARCHAR, t TEXT NOT NULL)")\n'
    'op.drop_table("replays")\nop.rename_table("again", "replays")',
    "one secret an account": 'op.create_index("one", "secrets", ["account_id"], unique=True)',
}
ON_POSTGRESQL = {
    "a column that must be given now": (
        'op.execute("UPDATE accounts SET due_time = now()")\nop.alter_column("accounts", "due_time", nullable=False)'
    ),
    "a column that lost its default": 'op.alter_column("accounts", "certificate_subject", server_default=None)',
    "a narrower column": 'op.alter_column("accounts", "description", type_=sa.String(10))',
    "a wider column": 'op.alter_column("accounts", "description", type_=sa.Text())',
    "a check": 'op.create_check_constraint("ck_trial", "accounts", "description <> \'after\'")',
    "a wider check that isn't named": WIDER_CHECK,
    "a foreign key": 'op.execute("DELETE FROM revocations")\n'
    'op.create_foreign_key("fk_trial", "revocations", "accounts", ["account_id"], ["id"])',
}
"""What SQLite has no ALTER for."""


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose migrations come after this program's: with them it is a later program."""
    folder = tmp_path / "later"
    folder.mkdir()
    monkeypatch.setattr(schema, "VERSIONS", (*schema.VERSIONS, str(folder)))
    monkeypatch.setattr(engine, "PROGRAM", f"artstore-grpc schema {NEXT + 2:04}")
    return folder


def as_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the later migrations are unknown."""
    monkeypatch.setattr(engine, "PROGRAM", compatibility.PROGRAM)
    monkeypatch.setattr(schema, "VERSIONS", schema.VERSIONS[:1])


# What an id says


def test_this_program_s_schema_is_its_last_migration() -> None:
    """What its connections tell is what its migrations lead to."""
    known = version(HEAD)
    assert known is not None
    assert known.number == SCHEMA


def test_every_migration_says_what_it_is() -> None:
    """Ids count up, say the oldest program, and fit their column; since 0.2.0 none is a break."""
    before = None
    for number, script in enumerate(reversed(list(schema._scripts().walk_revisions())), 1):
        known = version(script.revision)
        assert known is not None, script.revision
        assert known.number == number
        assert len(script.revision) <= 32
        assert Path(script.path).stem.endswith(f"_{number:04}")
        if number > 5:
            assert compatibility.kind(before, script.revision) is not Kind.BREAK
            assert (earlier := version(before)) is not None
            assert known.oldest >= earlier.oldest
        before = script.revision


@pytest.mark.parametrize(
    ("before", "revision", "kind"),
    [
        (None, "0001", Kind.BREAK),
        ("0004", "0005", Kind.BREAK),
        ("0005", "0006_from_0005", Kind.EXPAND),
        ("0006_from_0005", "0007_from_0005", Kind.EXPAND),
        ("0006_from_0005", "0007_from_0006", Kind.CONTRACT),
    ],
)
def test_kinds(before: str | None, revision: str, kind: Kind) -> None:
    """An expansion admits what was admitted before; a contraction fewer, a break none but its own."""
    assert compatibility.kind(before, revision) is kind


@pytest.mark.parametrize(("oldest", "program", "admitted"), [(5, 5, True), (5, 6, True), (6, 5, False), (5, 7, False)])
def test_admission(oldest: int, program: int, admitted: bool) -> None:
    """Admitted are the programs from the oldest one up to the schema's own, which knows it anyhow."""
    assert Version(7, oldest).admits(program) is admitted


@pytest.mark.parametrize("found", ["future", "7_from_5", "0007", "0007_from_0006", "0004_from_0003", "0007_from_0005x"])
def test_what_says_nothing_or_not_us_is_refused(found: str) -> None:
    """A schema that a program doesn't know and that doesn't admit it: one sentence that names both."""
    refusal = Standing(found, "0005", newer=True).refusal
    assert refusal == (
        f"The database's schema ({found}) is newer than this program's (0005): install a newer artstore-grpc."
    )
    assert Standing("0007_from_0005", "0005", newer=True).refusal == ""


# What a migration may do


@pytest.mark.parametrize("revision", [script.revision for script in schema._scripts().walk_revisions()])
async def test_every_expansion_keeps_its_promise(empty_url: str, revision: str) -> None:
    """Of each migration of this program: programs of the oldest schema that it admits find every table and column that
    they know, and their statements read and write them. Of a break, which those up to 0005 are, they are its own, and
    it is tried that statements go."""
    assert await broken_promises(empty_url, schema._scripts(), revision) == []


@pytest.mark.parametrize("what", EXPANSIONS)
async def test_what_expands(empty_url: str, later: Path, what: str) -> None:
    """These are expansions, and pass that test."""
    revision = add_migration(later, EXPANSIONS[what])
    assert await broken_promises(empty_url, schema._scripts(), revision) == []


@pytest.mark.parametrize("what", NO_EXPANSIONS)
async def test_what_does_not_expand(empty_url: str, later: Path, what: str) -> None:
    """These are not, and the test says why."""
    revision = add_migration(later, NO_EXPANSIONS[what])
    assert await broken_promises(empty_url, schema._scripts(), revision)


@pytest.mark.parametrize("what", ON_POSTGRESQL)
async def test_what_does_not_expand_on_postgresql(postgres_empty_url: str, later: Path, what: str) -> None:
    """Nor these."""
    revision = add_migration(later, ON_POSTGRESQL[what])
    assert await broken_promises(postgres_empty_url, schema._scripts(), revision)


async def test_a_wider_check_is_named(postgres_empty_url: str, later: Path) -> None:
    """No test can tell that a check is wider than the one that leaves: who names it says so."""
    named = add_migration(later, WIDER_CHECK, leaves=("accounts.ck_accounts_role",))
    assert await broken_promises(postgres_empty_url, schema._scripts(), named) == []


async def test_what_leaves_is_named(empty_url: str, later: Path) -> None:
    """A contraction names what it takes away; what it doesn't name must stay."""
    add_migration(later, ADD_COLUMN)
    named = add_migration(later, DROP_COLUMN, CONTRACTING, EXPANDING, leaves=("accounts.trial",))
    assert await broken_promises(empty_url, schema._scripts(), named) == []


async def test_what_leaves_unnamed_is_missed(empty_url: str, later: Path) -> None:
    """The same without its name."""
    add_migration(later, ADD_COLUMN)
    unnamed = add_migration(later, DROP_COLUMN, CONTRACTING, EXPANDING)
    assert "accounts.trial is gone" in await broken_promises(empty_url, schema._scripts(), unnamed)


# What an upgrade does


async def test_this_program_runs_on_an_expanded_schema(
    store_url: str, later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later release's expansion, then this program again: check, upgrade and store take it, and change nothing."""
    add_migration(later, ADD_COLUMN)
    with pytest.raises(SchemaMismatch, match=rf"\({HEAD}\) is older than .*: run `artstore-grpc db upgrade`\.$"):
        await check(store_url)
    assert (await upgrade(store_url)).pending == ()
    as_this_program(monkeypatch)
    found = await check(store_url)
    assert (found.newer, found.found) == (True, EXPANDING)
    assert (await upgrade(store_url, contract=True)).found == EXPANDING
    store = SqlStore(store_url)
    await add(store, made := account())
    assert await store.account(made.id) == made
    await store.close()


@pytest.mark.slow
def test_this_program_serves_an_expanded_schema(
    sqlite_url: str, later: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole service starts on it, says so in its log, and issues."""
    add_migration(later, ADD_COLUMN)
    asyncio.run(upgrade(sqlite_url))
    as_this_program(monkeypatch)
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    own = {"database_url": sqlite_url, "issuer": "http://issuer.test", "key_encryption_key": key}
    with Installation(tmp_path / "data", **own) as service:
        made = service.account()
        assert service.token(made.client_id, made.secret)
        assert EXPANDING in service.log.getvalue()


async def test_a_role_keeps_what_a_newer_program_gave(
    postgres_url: str, run_role: str, later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old release's `db upgrade --run-role`, which a roll-back runs, takes nothing from the role."""
    add_migration(later, EXPANSIONS["a table"])
    await upgrade(postgres_url, run_role)
    await run(postgres_url, lambda c: c.execute(text(f"GRANT SELECT ON trials TO {run_role}")))
    as_this_program(monkeypatch)
    await upgrade(postgres_url, run_role)
    asked = text(f"SELECT has_table_privilege('{run_role}', 'trials', 'SELECT')")
    assert await run(postgres_url, lambda c: c.execute(asked).scalar())


def contracting(folder: Path) -> None:
    add_migration(folder, ADD_COLUMN)
    add_migration(folder, DROP_COLUMN, CONTRACTING, EXPANDING, leaves=("accounts.trial",))


async def test_a_contract_step_waits(store_url: str, later: Path) -> None:
    """An upgrade does the expansion, and leaves the contraction, which no program needs; `contract` does it."""
    contracting(later)
    waiting = await upgrade(store_url)
    assert [(step.revision, step.kind) for step in waiting.pending] == [(CONTRACTING, Kind.CONTRACT)]
    assert (await check(store_url)).found == EXPANDING
    assert (await upgrade(store_url, contract=True)).pending == ()
    assert (await standing(store_url)).found == CONTRACTING


async def test_a_contract_step_waits_on_the_embedded_default(tmp_path: Path, later: Path) -> None:
    """`db upgrade` leaves it, since an older program may serve from that file; a start does it."""
    settings = Settings(data_dir=tmp_path / "data")
    assert (await upgraded(settings, "", contract=False)).found == HEAD
    contracting(later)
    waiting = await upgraded(settings, "", contract=False)
    assert [step.revision for step in waiting.pending] == [CONTRACTING]
    await prepare(settings, contract=True)
    assert (await standing(settings.store_url)).found == CONTRACTING


async def test_a_contracted_schema_refuses_this_program(
    store_url: str, later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is contracted there is no way back to a program that is too old."""
    contracting(later)
    await upgrade(store_url, contract=True)
    as_this_program(monkeypatch)
    for refuses in (check, upgrade):
        with pytest.raises(SchemaMismatch, match=rf"\({CONTRACTING}\) is newer than"):
            await refuses(store_url)


async def test_a_release_can_not_be_left_out(store_url: str, later: Path) -> None:
    """An expansion behind a contraction: nothing is done before the latter is allowed, and the sentence says it."""
    contracting(later)
    last = f"{NEXT + 2:04}_from_{NEXT:04}"
    add_migration(later, EXPANSIONS["a table"], last, CONTRACTING)
    with pytest.raises(ContractNeeded, match=rf"Programs of a schema before {NEXT:04} can't run on {last}: nothing"):
        await upgrade(store_url)
    assert (await standing(store_url)).found == HEAD
    assert (await upgrade(store_url, contract=True)).found == last


async def test_an_old_database_asks_for_all_to_be_stopped(empty_url: str) -> None:
    """Release 0.1.0's schema: its programs can't run on this one, and the upgrade says so before it does it."""
    await run(empty_url, lambda connection: schema._migrate(connection, "0003"))
    with pytest.raises(ContractNeeded, match=r"before 0005 can't run on 0005: nothing was changed"):
        await upgrade(empty_url)
    assert (await upgrade(empty_url, contract=True)).found == HEAD


# Who is connected


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url, server_settings={"application_name": name} if name else {})
    try:
        yield connection
    finally:
        await connection.close()


async def until_connected(url: str, holds: Callable[[dict[str, int]], bool]) -> None:
    """Waits for what the server says of its connections: it forgets one only a moment after its end."""
    for _ in range(1000):
        if holds(found := await schema.connections(url)):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(found)


@pytest.mark.parametrize(("name", "said"), [("", "1 of no name"), (f"artstore-grpc schema {SCHEMA:04}: x", "1 of sch")])
async def test_old_programs_are_heard_of(postgres_url: str, later: Path, name: str, said: str) -> None:
    """PostgreSQL knows who is connected: while programs are that a step would break, it is refused, and nothing is
    changed; once they are gone it is done."""
    contracting(later)
    async with connected(postgres_url, name):
        with pytest.raises(OldPrograms, match=said):
            await upgrade(postgres_url, contract=True)
        assert (await upgrade(postgres_url)).found == EXPANDING  # an expansion doesn't mind them
    await until_connected(postgres_url, lambda found: name not in found)
    assert (await upgrade(postgres_url, contract=True)).found == CONTRACTING


async def test_others_are_not_minded(postgres_url: str, later: Path) -> None:
    """Neither programs that know the schema nor an operator's psql hold a contraction up."""
    contracting(later)
    async with connected(postgres_url, "psql"), connected(postgres_url, f"artstore-grpc schema {NEXT:04}"):
        assert (await upgrade(postgres_url, contract=True)).found == CONTRACTING


async def test_the_service_s_connections_have_their_name(postgres_url: str, run_role: str, run_url: str) -> None:
    """A program's connections say its schema, and another role sees it; a name that the URL gives comes behind."""
    await upgrade(postgres_url, run_role)
    store = SqlStore(f"{run_url}{'&' if '?' in run_url else '?'}application_name=storage")
    assert await store.head()
    named = {f"artstore-grpc schema {SCHEMA:04}: storage": 1}
    await until_connected(postgres_url, lambda found: found == named)
    await store.close()


# Locks


async def test_a_migration_does_not_hold_others_up(
    postgres_url: str, later: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long transaction holds a table: the migration gives up soon, lets the others have their turn, and gets its lock
    once that has ended."""
    monkeypatch.setattr(schema, "LOCK_PAUSE_SECONDS", 0.1)
    add_migration(later, ADD_COLUMN)
    async with connected(postgres_url, "psql") as holder, connected(postgres_url, "psql") as reader:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT count(*) FROM accounts")
        upgrading = asyncio.create_task(upgrade(postgres_url))
        slowest, until = 0.0, time.monotonic() + 30
        while slowest < 1 and time.monotonic() < until:  # until it has waited behind the migration
            began = time.monotonic()
            await reader.execute("SELECT count(*) FROM accounts")
            slowest = max(slowest, time.monotonic() - began)
        assert not upgrading.done()
        await transaction.commit()
        assert (await upgrading).found == EXPANDING
    assert 1 < slowest < schema.LOCK_TIMEOUT.total_seconds() + 10


async def test_a_table_that_stays_locked(postgres_url: str, later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many attempts the upgrade says so, and nothing was changed."""
    monkeypatch.setattr(schema, "LOCK_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(schema, "LOCK_ATTEMPTS", 2)
    add_migration(later, ADD_COLUMN)
    async with connected(postgres_url, "psql") as holder, holder.transaction():
        await holder.execute("LOCK TABLE accounts IN SHARE MODE")
        with pytest.raises(TablesInUse, match="nothing was changed"):
            await upgrade(postgres_url)
    assert (await standing(postgres_url)).found == HEAD
