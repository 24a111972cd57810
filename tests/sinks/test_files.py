"""A folder of credentials files: whole or absent at every moment, ours alone, and nowhere else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from artstore_grpc.errors import InvalidRequest
from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.credentials import encoded
from artstore_grpc.sinks.files import ABANDONED, FilesSink
from tests.sinks.deliveries import CLIENT_ID, delivery, failing, file_of

ROOT = Path(__file__).resolve().parents[2]
NAME = f"{CLIENT_ID}.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "credentials"
    made.mkdir(mode=0o700)
    return made


def names(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


def open_to_everybody(path: Path) -> None:
    path.chmod(0o777)


def moved_away(path: Path) -> Path:
    return path.rename(path.with_name("aside"))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
async def test_a_file_is_written(folder: Path, mask: int) -> None:
    """It is named after the client_id, holds the client's format, is 0600 whatever the umask, and is the only file."""
    sent = delivery()
    with umask(mask):
        await FilesSink(folder).deliver(sent)
    assert json.loads((folder / NAME).read_bytes()) == file_of(sent)
    assert mode(folder / NAME) == 0o600
    assert names(folder) == [NAME]


async def test_a_destination_names_it(folder: Path) -> None:
    """The policy's destination is the file's name."""
    sent = delivery(destination="ingester")
    await FilesSink(folder).deliver(sent)
    assert json.loads((folder / "ingester").read_bytes()) == file_of(sent)


async def test_a_delivery_replaces_the_one_before(folder: Path) -> None:
    """The next secret takes the place of the last; the same one again leaves the same file."""
    sink, first, second = FilesSink(folder), delivery(), delivery()
    for sent in (first, second, second):
        await sink.deliver(sent)
        assert json.loads((folder / NAME).read_bytes()) == file_of(sent)
    assert names(folder) == [NAME]


async def test_a_reader_keeps_what_it_opened(folder: Path) -> None:
    """Who has the old file open reads the old file to its end."""
    sink, first = FilesSink(folder), delivery()
    await sink.deliver(first)
    with (folder / NAME).open("rb") as opened:
        await sink.deliver(delivery())
        assert opened.read() == encoded(first)


async def test_a_group_may_read(folder: Path) -> None:
    """With a gid the file is that group's: 0640, never wider."""
    gid = 10002 if os.geteuid() == 0 else os.getgroups()[-1]  # others may give a file to a group of theirs only
    with umask(0o000):
        await FilesSink(folder, gid=gid).deliver(delivery())
    assert (folder / NAME).stat().st_gid == gid
    assert mode(folder / NAME) == 0o640


@pytest.mark.parametrize(
    "name",
    ["../x", "..", ".", ".x", "a/b", "/etc/passwd", "-rf", "a\0b", "a\nb", "a b", "é", "x" * 201, "a\n", "a\\b", "~"],
)
async def test_names_that_lead_elsewhere(folder: Path, name: str) -> None:
    """What is no plain name is refused in a policy, at a delivery, and as a client_id that was imported."""
    sink = FilesSink(folder)
    with pytest.raises(InvalidRequest) as caught:
        sink.check(name)
    assert [each.field for each in caught.value.violations] == ["rotation_policy.destination"]
    sent = delivery(destination=name)
    with failing(sent, permanent=True):
        await sink.deliver(sent)
    assert names(folder) == []


@pytest.mark.parametrize("client_id", ["../x", ".x", "a/b", ""])
async def test_client_ids_that_lead_elsewhere(folder: Path, client_id: str) -> None:
    """An imported client_id may be of any form; as a file's name it is held to the same rule."""
    sent = delivery(client_id=client_id)
    with failing(sent, permanent=True, says="client_id"):
        await FilesSink(folder).deliver(sent)
    assert names(folder) == []


@pytest.mark.parametrize("name", ["", "a", "A_b-c.json", "x" * 200, "0.1"])
def test_names_that_are_fine(folder: Path, name: str) -> None:
    """And the empty one, which is the default."""
    FilesSink(folder).check(name)


@pytest.mark.parametrize("adopt", [False, True])
async def test_links_are_not_followed(folder: Path, tmp_path: Path, adopt: bool) -> None:
    """A symbolic link in the file's place: nothing is written through it, and it isn't replaced silently either."""
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (folder / NAME).symlink_to(outside)
    sent = delivery()
    with failing(sent, permanent=True, says="link"):
        await FilesSink(folder, adopt=adopt).deliver(sent)
    assert outside.read_text() == "precious"
    assert (folder / NAME).is_symlink()


async def test_a_link_put_there_in_between(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a link that appears after the look at the file is replaced, not followed."""
    outside = tmp_path / "outside"
    outside.write_text("precious")

    def check_then_swap(*_: object) -> None:
        (folder / NAME).symlink_to(outside)

    monkeypatch.setattr(FilesSink, "_check_present", check_then_swap)
    await FilesSink(folder).deliver(delivery())
    assert outside.read_text() == "precious"
    assert not (folder / NAME).is_symlink()


async def test_pipes_and_folders(folder: Path) -> None:
    """Nor is anything else in the file's place opened, which might never end."""
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    for name in ("pipe", "folder"):
        sent = delivery(destination=name)
        with failing(sent, permanent=True, says="no plain file"):
            await asyncio.wait_for(FilesSink(folder, adopt=True).deliver(sent), 10)


@pytest.mark.parametrize("content", [b"", b"ssh-rsa AAAA", encoded(delivery(client_id="sa_other")), b"x" * 100_000])
async def test_what_is_somebody_elses_stays(folder: Path, content: bytes) -> None:
    """A file that isn't this account's credentials is left alone, unless the sink may adopt it."""
    (folder / NAME).write_bytes(content)
    sent = delivery()
    with failing(sent, permanent=True, says="adopt"):
        await FilesSink(folder).deliver(sent)
    assert (folder / NAME).read_bytes() == content
    await FilesSink(folder, adopt=True).deliver(sent)
    assert json.loads((folder / NAME).read_bytes()) == file_of(sent)


async def test_a_folder_that_anybody_may_write_to(folder: Path) -> None:
    """Refused at the start, and at a delivery if it became so since."""
    sink = FilesSink(folder)
    open_to_everybody(folder)
    sent = delivery()
    with failing(sent, permanent=True, says="Everybody may write"):
        await sink.deliver(sent)
    assert names(folder) == []
    with pytest.raises(InvalidSettings, match="Everybody may write"):
        FilesSink(folder)


async def test_a_folder_that_went_away(folder: Path) -> None:
    """A mount that is lost may come back: the failure isn't permanent, and the folder isn't made anew."""
    sink, sent = FilesSink(folder), delivery()
    aside = moved_away(folder)
    with failing(sent, says="can't be opened"):
        await sink.deliver(sent)
    aside.rename(folder)
    await sink.deliver(sent)


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_no_folder(folder: Path, tmp_path: Path, kind: str) -> None:
    """What is no folder refuses the start; a link to one does too, since it may point elsewhere tomorrow."""
    path = tmp_path / kind
    if kind == "file":
        path.write_text("")
    if kind == "link":
        path.symlink_to(folder)
    with pytest.raises(InvalidSettings, match="can't be opened"):
        FilesSink(path)


FULL = """
import asyncio, resource, sys
from pathlib import Path
from artstore_grpc.sinks.files import FilesSink
from artstore_grpc.sinks.protocol import SinkFailed
from tests.sinks.deliveries import delivery

async def main():
    sink = FilesSink(Path(sys.argv[1]))
    await sink.deliver(delivery())
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    try:
        await sink.deliver(delivery())
    except SinkFailed as failed:
        print(failed.permanent, failed.message, len(list(Path(sys.argv[1]).iterdir())))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await sink.deliver(delivery(client_secret="another"))

asyncio.run(main())
"""


def test_a_full_disk(folder: Path) -> None:
    """A write that stops after 100 bytes: the old file stays, nothing half-written does, and a retry helps once there
    is room."""
    said = subprocess.run(
        [sys.executable, "-c", FULL, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert said.startswith("False ")
    assert "File too large" in said
    assert said.endswith(" 1\n")
    assert names(folder) == [NAME]
    written = json.loads((folder / NAME).read_bytes())
    assert (written["client_id"], written["client_secret"]) == (CLIENT_ID, "another")


async def test_what_a_crash_left_is_swept(folder: Path) -> None:
    """A temporary file of a crash, secret and all, goes with a later delivery; a fresh one may be a writer's."""
    sink = FilesSink(folder)
    fresh, old, others = (folder / each for each in (f".{NAME}.{'0' * 16}", f".{NAME}.{'1' * 16}", f".x.{'0' * 16}"))
    for each in (fresh, old, others):
        each.write_text("secret")
    long_ago = fresh.stat().st_mtime - ABANDONED.total_seconds() - 60
    for each in (old, others):
        os.utime(each, (long_ago, long_ago))
    await sink.deliver(delivery())
    assert names(folder) == sorted([fresh.name, others.name, NAME])


async def test_it_is_on_disk_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before it has the name, the name before the delivery returns."""
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def renamed(*arguments: str, **folders: int) -> None:
        steps.append("rename")
        rename(*arguments, **folders)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    await FilesSink(folder).deliver(delivery())
    assert steps == ["file", "rename", "folder"]


async def test_the_loop_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs holds up the delivery, and nothing else."""
    hanging, reached = threading.Event(), threading.Event()

    def hang(descriptor: int) -> None:
        reached.set()
        hanging.wait(30)

    monkeypatch.setattr(os, "fsync", hang)
    task = asyncio.create_task(FilesSink(folder).deliver(delivery()))
    assert await asyncio.to_thread(reached.wait, 30)
    assert not task.done()
    hanging.set()
    await task


TURNS = 12

WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from artstore_grpc.sinks.files import FilesSink
from artstore_grpc.sinks.protocol import Delivery

async def main():
    sink, number = FilesSink(Path(sys.argv[1])), 0
    while True:
        secret = f"{number:09}" * 2000
        await sink.deliver(Delivery("", sys.argv[2], secret, "", datetime.now(UTC), ""))
        print(flush=True)
        number += 1

asyncio.run(main())
"""


@pytest.mark.slow
def test_killed_while_writing(folder: Path) -> None:
    """SIGKILL in the middle of a loop of deliveries, again and again: every read meanwhile and after finds a whole
    file, and the next start goes on."""
    whole, stop, reads = [True], threading.Event(), [0]

    def watch() -> None:
        while not stop.is_set():
            if (folder / NAME).exists():
                secret = json.loads((folder / NAME).read_bytes())["client_secret"]
                whole[0] &= secret == secret[:9] * 2000
                reads[0] += 1

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for turn in range(TURNS):
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, folder, CLIENT_ID], cwd=ROOT, stdout=subprocess.PIPE
            )
            assert writer.stdout is not None
            for _ in range(1 + turn % 3):
                assert writer.stdout.readline(), "a delivery failed"
            writer.send_signal(signal.SIGKILL)
            writer.stdout.close()
            writer.wait(30)
    finally:
        stop.set()
        watcher.join()
    assert whole[0]
    assert reads[0] > TURNS
    assert json.loads((folder / NAME).read_bytes())["client_id"] == CLIENT_ID
    assert mode(folder / NAME) == 0o600
