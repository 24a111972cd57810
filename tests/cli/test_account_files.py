"""Files of accounts: what is read comes out as it was meant, and whatever else there is is told by its line."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import pytest
from artstore.identity import ImportedServiceAccount, Role, ServiceAccount
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc.cli.account_files import (
    COLUMNS,
    EXPORTED,
    Format,
    Line,
    account_line,
    format_of,
    header_line,
    read,
)
from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.imports import BATCH, MAX_ITEM_BYTES, batched
from artstore_grpc.secrets import hash_cost
from tests.bcrypt_vectors import ABC

FULL = (
    b"client_id,name,role,description,rate_limit,scopes,audiences,introspection_only,secret_hash,secret_expire_time\n"
    b'old-1,"a, b",user,"two\nlines",7,storage.read storage.write,one two,true,'
    + ABC.encode()
    + b",2030-01-02T03:04:05Z\n"
)
AS_JSON = {
    "client_id": "old-1",
    "name": "a, b",
    "role": "user",
    "description": "two\nlines",
    "rate_limit": 7,
    "scopes": ["storage.read", "storage.write"],
    "audiences": ["one", "two"],
    "introspection_only": True,
    "secret_hash": ABC,
    "secret_expire_time": "2030-01-02T03:04:05Z",
}


def problems(data: bytes, format: Format = Format.CSV) -> list[tuple[int, str]]:
    """The lines that can't be imported, each with its problem or the fields at fault."""
    lines = read(data, format)
    return [
        (each.number, each.problem or ",".join(v.field for v in each.violations))
        for each in lines
        if each.problem or each.violations
    ]


def test_both_formats_say_the_same() -> None:
    """Every field of CSV and of JSON lines, a cell with a comma and a line break included."""
    (from_csv,) = read(FULL, Format.CSV)
    (from_json,) = read(json.dumps(AS_JSON).encode(), Format.JSONL)
    assert from_csv.item == from_json.item
    item = from_csv.item
    assert (item.client_id, item.secret_hash, item.secret_expire_time.seconds) == ("old-1", ABC, 1893553445)
    assert (item.service_account.name, item.service_account.role) == ("a, b", Role.ROLE_USER)
    assert list(item.service_account.scopes) == ["storage.read", "storage.write"]
    assert (item.service_account.rate_limit, item.service_account.introspection_only) == (7, True)


def test_lines_are_counted_as_editors_do() -> None:
    """A record's line is where it begins, whatever breaks are in its cells; empty lines and a byte order mark are no
    records; line ends may be Windows'."""
    text = '\ufeffname,role,description\r\nabc,user,"x\r\ny"\r\n\r\ndef,nobody,\r\n'
    assert [each.number for each in read(text.encode(), Format.CSV)] == [2, 5]
    assert problems(text.encode()) == [(5, "role")]


@pytest.mark.parametrize(
    "header",
    [b"", b"\n", b"name\n", b"name,role,secret\n", b"name,role,name\n", b"name;role\n", b"Name,role\n", b"\xff\xfe\n"],
)
def test_a_file_of_another_kind(header: bytes) -> None:
    """Without a header that names the columns, each once, or in another encoding, nothing is imported."""
    with pytest.raises(Failure) as caught:
        read(header + b"abc,user\n", Format.CSV)
    assert (caught.value.exit, caught.value.reason) == (Exit.INVALID, "FILE_UNREADABLE")


def test_quotation_marks_that_are_never_closed() -> None:
    """What follows them can't be told apart, so that the file is refused, with the line where that begins."""
    with pytest.raises(Failure, match="Line 3 "):
        read(b'name,role\nabc,user\n"def,user\nghi,user\n', Format.CSV)
    with pytest.raises(Failure, match="Line 2 "):
        read(b'name,role\n"abc"x,user\n', Format.CSV)


BAD_CELLS = [
    ("rate_limit", "many"),
    ("rate_limit", "-1x"),
    ("rate_limit", "99999999999"),
    ("rate_limit", "1.5"),
    ("introspection_only", "yes"),
    ("role", "root"),
    ("role", "ROLE_USER"),
    ("role", "0"),
    ("secret_expire_time", "tomorrow"),
    ("public_keys", "{"),
    ("public_keys", '"x"'),
    ("name", "a\0b"),
]


@pytest.mark.parametrize(("column", "text"), BAD_CELLS)
def test_bad_cells(column: str, text: str) -> None:
    """A cell that its field can't take is told by line and field, and spoils no other line."""
    cells = {"name": "abc", "role": "user", "secret_hash": ABC, column: text}
    written = io.StringIO()
    writer = csv.DictWriter(written, [*cells])
    writer.writeheader()
    writer.writerows([cells, {**dict.fromkeys(cells, ""), "name": "good", "role": "user"}])
    assert problems(written.getvalue().encode()) == [(2, column)]


BAD_LINES = [
    b"[]",
    b"{",
    b"nonsense",
    b'{"name": "abc", "name": "def"}',
    b'{"name": NaN}',
    b"\xff",
    b'{"a":' * 2000,
]


@pytest.mark.parametrize("bad", BAD_LINES)
def test_bad_lines(bad: bytes) -> None:
    """A line that is no JSON object is told by its number, and spoils no other."""
    data = b'{"name": "abc", "role": "user"}\n' + bad + b'\n\n{"name": "def", "role": "user"}'
    assert [number for number, _ in problems(data, Format.JSONL)] == [2]
    assert [each.number for each in read(data, Format.JSONL)] == [1, 2, 4]


@pytest.mark.parametrize("field", ["nonsense", "serviceAccount", "clientId", "service_account"])
def test_unknown_fields(field: str) -> None:
    """What the file says that nobody reads is a fault: an import must not drop it silently."""
    assert problems(json.dumps({"name": "abc", "role": "user", field: "x"}).encode(), Format.JSONL) == [(1, field)]


def test_what_a_list_shows_is_read() -> None:
    """Output-only fields are passed over, the end of a secret that is not there too."""
    shown = {"name": "abc", "role": "user", "id": "x", "state": "active", "secret_expire_time": "2030-01-01T00:00:00Z"}
    (line,) = read(json.dumps(shown).encode(), Format.JSONL)
    assert not line.problem
    assert not line.violations
    assert not line.item.HasField("secret_expire_time")


def test_the_same_twice() -> None:
    """The second line of a client_id or a name fails: which one the service took would be chance."""
    data = b"client_id,name,role\na,one,user\na,two,user\nb,one,user\nc,two,user\n"
    assert problems(data) == [(3, "Its client_id is that of line 2."), (4, "Its name is that of line 2.")]


def test_rows_of_other_lengths() -> None:
    """A row with more or fewer cells than columns has lost its order."""
    assert [number for number, _ in problems(b"name,role\nabc\ndef,user,x\nghi,user\n")] == [2, 3]


def test_a_hash_is_never_shown() -> None:
    """Neither a line's repr nor what is wrong with it repeats a hash."""
    (line,) = read(FULL.replace(b"user", b"root").replace(b"true", ABC.encode()), Format.CSV)
    assert line.violations
    assert ABC not in repr(line)
    assert ABC not in repr(line.violations)


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.csv", Format.CSV), ("a.CSV", Format.CSV), ("a.jsonl", Format.JSONL), ("a.ndjson", Format.JSONL), ("-", None)],
)
def test_the_format_of_a_name(name: str, format: Format | None) -> None:
    """By the ending, in either case."""
    assert format_of(name) is format


def test_batches_fit() -> None:
    """At most a hundred lines and 60,000 bytes together, in order, none left out."""
    small = [Line(n, ImportedServiceAccount(client_id=f"{n}")) for n in range(250)]
    large = [Line(n, ImportedServiceAccount(client_id="x" * 20_000)) for n in range(250, 260)]
    batches = list(batched([*small, *large]))
    assert [line.number for batch in batches for line in batch] == list(range(260))
    assert max(map(len, batches)) == BATCH
    assert all(sum(line.item.ByteSize() for line in batch) <= MAX_ITEM_BYTES for batch in batches)
    assert problems(b"name,role,description\nabc,user," + b"x" * 61_000 + b"\n")[0][0] == 2


printable = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=50)
words = st.lists(st.from_regex(r"[!-~]{1,20}", fullmatch=True), max_size=5)
keys = st.builds(lambda kid: {"kid": kid, "kty": "RSA", "n": "x", "e": "AQAB"}, printable)
accounts = st.builds(
    lambda **fields: ServiceAccount(**fields),
    name=printable.filter(lambda text: bool(text)),
    description=printable,
    role=st.sampled_from([Role.ROLE_ADMIN, Role.ROLE_USER, Role.ROLE_AUDITOR, Role.ROLE_READONLY]),
    rate_limit=st.integers(1, 1_000_000),
    scopes=words,
    audiences=words,
    served_audiences=words,
    introspection_only=st.booleans(),
    client_id=st.from_regex(r"[!-~]{1,100}", fullmatch=True),
    public_keys=st.lists(keys, max_size=2),
)


@pytest.mark.parametrize("format", list(Format))
@given(account=accounts)
def test_what_is_written_is_read(format: Format, account: ServiceAccount) -> None:
    """An exported account is imported as it was, whatever its texts hold."""
    account.id, account.secret_expire_time.seconds = "an id", 5
    (line,) = read(header_line(format) + account_line(account, format), format)
    assert not line.problem
    assert not line.violations
    expected = ServiceAccount()
    expected.CopyFrom(account)
    for name in ("id", "client_id", "secret_expire_time"):
        expected.ClearField(name)
    assert line.item == ImportedServiceAccount(service_account=expected, client_id=account.client_id)


@pytest.mark.parametrize("format", list(Format))
@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_anything_is_read_or_refused(format: Format, data: bytes) -> None:
    """No file raises anything but a refusal in one sentence."""
    for content in (data, b"name,role,public_keys\n" + data):
        with contextlib.suppress(Failure):
            assert all(line.number >= 1 for line in read(content, format))


def test_the_documented_file() -> None:
    """The example of docs/importing.md is read, and its table names every column."""
    page = (Path(__file__).parents[2] / "docs/importing.md").read_text()
    (line,) = read(page.partition("```csv\n")[2].partition("```")[0].encode(), Format.CSV)
    assert (line.client_id, line.problem, line.violations) == ("billing", "", ())
    assert hash_cost(line.item.secret_hash) == 10
    assert all(f"`{name}`" in page for name in COLUMNS)


def test_exports_have_no_secrets() -> None:
    """No column of an export could hold one."""
    assert set(COLUMNS) - set(EXPORTED) == {"secret_hash", "secret_expire_time"}
