"""A credentials file: what is read, what is refused and with which words, and how it is replaced."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from artstore.identity import CredentialsError, CredentialsFile, CredentialsProvider, CredentialsStore, credentials_file
from artstore.identity.credentials_document import Claim, Document, parsed, serialised
from hypothesis import given, settings
from hypothesis import strategies as st

ISSUER = "https://identity.example"
CONTENT = {
    "version": 1,
    "issuer": ISSUER,
    "client_id": "sa_dev_test_00000000",
    "client_secret": "the-secret",
    "secret_expire_time": "2030-01-02T03:04:05Z",
}


def written(path: Path, content: object = CONTENT, mode: int = 0o600) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "credentials.json")


def test_what_a_file_says(path: Path) -> None:
    """Client id, secret, issuer and the time when the secret expires, as an aware one."""
    file = CredentialsFile(path, issuer=ISSUER)
    provider: CredentialsProvider = file
    found = provider.current()
    assert (found.client_id, found.client_secret, found.issuer) == ("sa_dev_test_00000000", "the-secret", ISSUER)
    assert found.secret_expire_time == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert isinstance(file, CredentialsStore)


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in CONTENT.items() if key != name}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "truncated"),
        (json.dumps(CONTENT)[:60], "truncated"),
        ("\x00\x00\x00", "truncated"),
        ("[]", "must hold a JSON object"),
        ("null", "must hold a JSON object"),
        (without("version"), "version must be 1"),
        (CONTENT | {"version": 2}, "newer program"),
        (CONTENT | {"version": True}, "version must be 1"),
        (without("client_id"), "client_id is missing"),
        (without("client_secret"), "client_secret is missing"),
        (CONTENT | {"client_secret": ""}, "client_secret must be a string"),
        (CONTENT | {"client_secret": ["a"]}, "client_secret must be a string"),
        (CONTENT | {"client_id": 7}, "client_id must be a string"),
        (CONTENT | {"issuer": 7}, "issuer must be a string"),
        (CONTENT | {"secret_expire_time": "tomorrow"}, "secret_expire_time must be a time"),
        (CONTENT | {"secret_expire_time": "2030-01-02T03:04:05"}, "offset from UTC"),
        (CONTENT | {"secret_expire_time": 1893553445}, "secret_expire_time must be a string"),
        (CONTENT | {"rotation": "soon"}, "rotation must be an object"),
        (CONTENT | {"rotation": {"owner": "a"}}, "rotation.started is missing"),
        (CONTENT | {"rotation": {"started": "2030-01-02T03:04:05Z", "request_id": "r"}}, "rotation.owner is missing"),
        (CONTENT | {"issuer": "https://other.example"}, "is expected: give the file that belongs to it"),
        (without("issuer"), "(none)"),
        ("[" * 70_000, "larger than"),
    ],
)
def test_content_that_is_refused(path: Path, content: object, says: str) -> None:
    """Each says which file, what is wrong and what to do, and nothing of the secret."""
    written(path, content)
    with pytest.raises(CredentialsError) as caught:
        CredentialsFile(path, issuer=ISSUER).current()
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "the-secret" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604, 0o620, 0o602, 0o601])
def test_a_file_that_is_not_private(path: Path, mode: int) -> None:
    """Readable by everybody, or writable by others: refused, with the command that mends it; then it is read."""
    path.chmod(mode)
    file = CredentialsFile(path)
    with pytest.raises(CredentialsError, match=f"chmod 600 {path}"):
        file.current()
    path.chmod(0o600)
    assert file.current().client_secret == "the-secret"


@pytest.mark.parametrize("mode", [0o640, 0o440])
def test_a_group_may_read(path: Path, mode: int) -> None:
    """As the service's sink hands a file to another user, and the kubelet a Secret to an fsGroup."""
    path.chmod(mode)
    assert CredentialsFile(path).current().client_secret == "the-secret"


def test_a_file_that_is_made_public_while_it_is_used(path: Path) -> None:
    """It is refused from then on, though its content was read before."""
    file = CredentialsFile(path)
    file.current()
    path.chmod(0o644)
    with pytest.raises(CredentialsError, match="chmod 600"):
        file.current()


def no_file(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def a_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("b"))
    path.with_name("b").symlink_to(path)


def a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nothing"))


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (no_file, "write the account's credentials there"),
        (a_folder, "name the credentials file itself"),
        (a_loop, "links lead in a circle"),
        (a_dangling_link, "write the account's credentials there"),
        (a_pipe, "name the credentials file itself"),
    ],
)
def test_a_path_that_is_no_file(path: Path, change: Callable[[Path], None], says: str) -> None:
    """Each says what to do; nothing hangs; before the first read and after it, and when it is to be replaced."""
    known = CredentialsFile(path)
    document, version = known.read()
    change(path)
    for use in (
        CredentialsFile(path).current,
        known.current,
        known.reread,
        lambda: known.replace(document, version),
    ):
        with pytest.raises(CredentialsError) as caught:
            use()
        assert str(path) in str(caught.value)
    with pytest.raises(CredentialsError, match=says):
        known.current()


def test_a_link_is_followed(path: Path, tmp_path: Path) -> None:
    """As Kubernetes mounts Secrets; a replacement takes the place of the file, and the link stays."""
    link = tmp_path / "link"
    link.symlink_to(path)
    file = CredentialsFile(link)
    document, version = file.read()
    assert file.replace(replace(document, client_secret="new"), version)
    assert link.is_symlink()
    assert json.loads(path.read_text())["client_secret"] == "new"


def test_it_is_read_again_when_it_changed(path: Path) -> None:
    """Written to, or another file in its place; not while it is the same."""
    file = CredentialsFile(path)
    first = file._document
    assert file.current().client_secret == "the-secret"
    read = file._document
    assert first is None
    assert file.current().client_secret == "the-secret"
    assert file._document is read
    written(path, CONTENT | {"client_secret": "second"})
    assert file.current().client_secret == "second"
    written(path.with_name("other"), CONTENT | {"client_secret": "third!"}).replace(path)
    assert file.current().client_secret == "third!"


def test_compare_and_swap(path: Path) -> None:
    """A replacement succeeds on the version that was read, and on no other."""
    file, other = CredentialsFile(path), CredentialsFile(path)
    document, version = file.read()
    assert other.replace(replace(document, client_secret="theirs"), version)
    assert not file.replace(replace(document, client_secret="mine"), version)
    assert file.current().client_secret == "theirs"


def test_of_many_only_one_swaps(path: Path) -> None:
    """Sixteen threads with sixteen files of one path, ten times each: every version is replaced exactly once."""
    swapped: list[str] = []

    def swap(number: int) -> None:
        file = CredentialsFile(path)
        for turn in range(10):
            document, version = file.read()
            if file.replace(replace(document, client_secret=f"{number}-{turn}"), version):
                swapped.append(version)

    threads = [threading.Thread(target=swap, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(swapped) == len(set(swapped)) > 0


def test_a_lock_that_is_never_given_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that was stopped while it wrote keeps nobody for ever; reading needs no lock."""
    monkeypatch.setattr(credentials_file, "LOCK_SECONDS", 0.05)
    file = CredentialsFile(path)
    document, version = file.read()
    with credentials_file._locked(path.with_name(f".{path.name}.lock")):
        with pytest.raises(CredentialsError, match="fuser"):
            CredentialsFile(path).replace(document, version)
        assert file.reread().client_secret == "the-secret"
    assert file.replace(replace(document, client_secret="new"), version)


def test_a_replacement_keeps_mode_owner_and_what_it_does_not_know(path: Path) -> None:
    """Also members of a newer program; nothing is left beside the file but its lock, nor what a crash had left."""
    written(path, CONTENT | {"note": {"a": [1]}}, 0o400 if os.geteuid() == 0 else 0o600)
    left = path.with_name(f".{path.name}.0123456789abcdef.new")
    left.write_text("half a")
    before = path.stat()
    file = CredentialsFile(path)
    document, version = file.read()
    assert file.replace(replace(document, client_secret="new"), version)
    after = path.stat()
    assert json.loads(path.read_text()) == CONTENT | {"note": {"a": [1]}, "client_secret": "new"}
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert sorted(each.name for each in path.parent.iterdir()) == [f".{path.name}.lock", path.name]
    assert stat.S_IMODE(path.with_name(f".{path.name}.lock").stat().st_mode) == 0o600


def test_a_folder_that_can_not_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement says so and what to do; the file is as it was. (Root may write anywhere: the system is asked.)"""
    file = CredentialsFile(path)
    document, version = file.read()
    opening = os.open

    def read_only(name: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(30, "Read-only file system")
        return opening(name, flags, *rest, **more)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(CredentialsError, match="rotates=False"):
        file.replace(replace(document, client_secret="new"), version)
    monkeypatch.undo()
    assert file.reread().client_secret == "the-secret"


@pytest.mark.parametrize("call", ["fsync", "fchmod"])
def test_a_disk_that_fails(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """A full disk leaves the old file whole, and nothing beside it."""
    file = CredentialsFile(path)
    document, version = file.read()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(CredentialsError, match="No space left"):
        file.replace(replace(document, client_secret="new"), version)
    monkeypatch.undo()
    assert CredentialsFile(path).current().client_secret == "the-secret"
    assert not list(path.parent.glob("*.new"))


def test_what_is_synced_before_the_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file is on disk before it takes the name, and the name before the replacement is said to be done."""
    order: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def noted(descriptor: int) -> None:
        order.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", lambda new, old: (order.append("rename"), rename(new, old))[1])
    file = CredentialsFile(path)
    document, version = file.read()
    assert file.replace(replace(document, client_secret="new"), version)
    assert order[0].endswith(".new")
    assert order[1:] == ["rename", path.parent.name]


def test_nothing_shows_the_secret(path: Path) -> None:
    """Neither the file's repr nor the document's, its claim's or its credentials'."""
    file = CredentialsFile(path)
    document, _ = file.read()
    claim = Claim("a-request-id", datetime.now(UTC), "owner", 60, client_secret="a-new-secret")
    said = repr((file, replace(document, rotation=claim), document.credentials))
    assert not [each for each in ("the-secret", "a-new-secret", "a-request-id") if each in said]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
TIMES = st.none() | st.datetimes(timezones=st.just(UTC))
CLAIMS = st.builds(
    Claim,
    request_id=TEXTS,
    started=st.datetimes(timezones=st.just(UTC)),
    owner=TEXTS,
    overlap_seconds=st.integers(0, 10**7),
    client_secret=st.just("") | TEXTS,
    secret_create_time=TIMES,
    secret_expire_time=TIMES,
)


@settings(deadline=None)
@given(
    st.builds(
        Document,
        client_id=TEXTS,
        client_secret=TEXTS,
        issuer=st.just("") | TEXTS,
        secret_create_time=TIMES,
        secret_expire_time=TIMES,
        rotation=st.none() | CLAIMS,
    )
)
def test_a_document_is_what_was_written(document: Document) -> None:
    """Whatever it holds comes back."""
    assert parsed(serialised(document), "here") == document


NAMES = st.sampled_from([*CONTENT, "rotation", "started", "request_id", "overlap_seconds"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.dictionaries(NAMES, st.text(max_size=5))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=50) | st.dictionaries(NAMES, LEAVES).map(lambda value: json.dumps(value).encode()))
def test_no_content_is_another_error(text: bytes) -> None:
    """Whatever is in the file, it is credentials, or CredentialsError."""
    with contextlib.suppress(CredentialsError):
        parsed(text, "here").credentials.client_id.encode()
