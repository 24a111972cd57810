"""Files of accounts, as `accounts import` reads and `accounts export` writes them: CSV with a header, or JSON lines.

Both have the same fields (docs/importing.md); what they may hold is the service's to judge, and is read as the REST API
reads a body. A line that can't be read is told by its number and spoils no other; a file that is no CSV at all is
refused. No I/O.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from artstore.identity import ImportedServiceAccount, ServiceAccount, Violation

from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.cli.output import account_json
from artstore_grpc.errors import InvalidRequest
from artstore_grpc.gateway import bodies
from artstore_grpc.gateway.messages import Reader

MAX_ITEM_BYTES = 60_000
"""On the wire; the service takes 64 KiB at once."""


class Format(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSONL = "jsonl"


SUFFIXES = {".csv": Format.CSV, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL}


def format_of(path: str) -> Format | None:
    """The format that a file's name says."""
    return SUFFIXES.get(Path(path).suffix.lower())


def number(cell: str) -> Any:
    return int(cell) if cell.isascii() and cell.isdigit() and len(cell) < 20 else cell


def flag(cell: str) -> Any:
    return {"true": True, "false": False}.get(cell.lower(), cell)


def document(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell  # whatever else it is, its field will refuse it


COLUMNS: dict[str, Callable[[str], Any]] = {
    "client_id": str,
    "name": str,
    "role": str,
    "description": str,
    "rate_limit": number,
    "scopes": str.split,
    "audiences": str.split,
    "served_audiences": str.split,
    "introspection_only": flag,
    "public_keys": document,
    "certificate_subject": str,
    "rotation_policy": document,
    "secret_hash": str,
    "secret_expire_time": str,
}
"""The columns of CSV, and how a cell becomes what JSON would have there."""
REQUIRED = ("name", "role")
OF_SECRETS = ("secret_hash", "secret_expire_time")
EXPORTED = tuple(name for name in COLUMNS if name not in OF_SECRETS)
OF_THE_IMPORT = ("client_id", *OF_SECRETS)
"""What belongs to the import rather than to the account."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line's account; or what is wrong with it, by field. `repr` hides it: it may hold a hash."""

    number: int
    item: ImportedServiceAccount = field(repr=False)
    violations: tuple[Violation, ...] = ()
    problem: str = ""

    @property
    def client_id(self) -> str:
        return self.item.client_id

    @property
    def name(self) -> str:
        return self.item.service_account.name


def read(data: bytes, format: Format) -> list[Line]:
    """The accounts of a file, those that can't be imported included. Raises Failure for a file of another kind."""
    lines = list(csv_lines(data) if format is Format.CSV else json_lines(data))
    return list(unrepeated(lines))


def csv_lines(data: bytes) -> Iterator[Line]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise unreadable("The file isn't UTF-8.") from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = 1
    try:
        header = next(reader, [])
        check_header(header)
        first = reader.line_num + 1
        for row in reader:
            if row:
                yield csv_line(first, header, row)
            first = reader.line_num + 1
    except csv.Error:
        raise unreadable(f"Line {first} is no CSV: look at its quotation marks.") from None


def check_header(header: list[str]) -> None:
    """Raises Failure for a first line that doesn't name the columns."""
    unknown = [name for name in header if name not in COLUMNS]
    missing = [name for name in REQUIRED if name not in header]
    if unknown or missing or len(set(header)) != len(header):
        raise unreadable(
            f"The first line must name the columns, each once: {', '.join(REQUIRED)}, and any of "
            f"{', '.join(name for name in COLUMNS if name not in REQUIRED)}."
        )


def csv_line(number: int, header: list[str], row: list[str]) -> Line:
    if len(row) != len(header):
        problem = f"It has {len(row)} cells, the first line names {len(header)} columns."
        return Line(number, ImportedServiceAccount(), problem=problem)
    return line(number, {name: COLUMNS[name](cell) for name, cell in zip(header, row, strict=True) if cell})


def json_lines(data: bytes) -> Iterator[Line]:
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if raw.strip():
            try:
                yield line(number, bodies.json_object(raw))
            except InvalidRequest as error:
                yield Line(number, ImportedServiceAccount(), problem=error.message.replace("body", "line"))


def line(number: int, document: dict[str, Any]) -> Line:
    """An account from its document. The end of a secret that is not there is left out: `accounts list` shows one."""
    if not document.get("secret_hash"):
        document = {name: value for name, value in document.items() if name != "secret_expire_time"}
    item, reader = ImportedServiceAccount(), Reader()
    item.service_account.SetInParent()
    reader.document(item, {name: value for name, value in document.items() if name in OF_THE_IMPORT})
    account = {name: value for name, value in document.items() if name not in OF_THE_IMPORT}
    reader.document(item.service_account, account)
    violations = tuple(Violation(each.field, each.description) for each in reader.violations)
    if not violations and item.ByteSize() > MAX_ITEM_BYTES:
        return Line(number, item, problem=f"It has more than {MAX_ITEM_BYTES:,} bytes.")
    return Line(number, item, violations)


def unrepeated(lines: Iterable[Line]) -> Iterator[Line]:
    """The lines, a second one of the same client_id or name marked: which one the service took would be chance."""
    seen: dict[tuple[str, str], int] = {}
    for each in lines:
        keys = [("client_id", each.client_id)] if each.client_id else []
        keys += [("name", each.name)] if each.name else []
        again = next((key for key in keys if key in seen), None)
        if again and not each.violations and not each.problem:
            yield Line(each.number, each.item, problem=f"Its {again[0]} is that of line {seen[again]}.")
            continue
        seen.update((key, each.number) for key in keys if key not in seen)
        yield each


def unreadable(sentence: str) -> Failure:
    return Failure(Exit.INVALID, "FILE_UNREADABLE", sentence)


def exported(account: ServiceAccount) -> dict[str, Any]:
    """What of an account an import takes: no secrets, of which no hash ever leaves the service."""
    said = account_json(account)
    return {name: said[name] for name in EXPORTED if said.get(name) not in (None, "", [], False)}


def header_line(format: Format) -> bytes:
    """What comes before the first account."""
    return csv_text(EXPORTED) if format is Format.CSV else b""


def account_line(account: ServiceAccount, format: Format) -> bytes:
    said = exported(account)
    if format is Format.JSONL:
        return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return csv_text(cell(said.get(name, "")) for name in EXPORTED)


def cell(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return " ".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def csv_text(cells: Iterable[str]) -> bytes:
    written = io.StringIO(newline="")
    # Only what is in its line ending is quoted, and a bare carriage return would be read as one.
    csv.writer(written, lineterminator="\r\n").writerow(cells)
    return (written.getvalue().removesuffix("\r\n") + "\n").encode()
