"""A sink that is a folder: a credentials file for each account, replaced whole or not at all.

A reader sees the old file or the new one, never a part of either: the new one is written beside it, is on disk, and
then takes its name. Every step goes by the descriptor of the folder and follows no symbolic link, so that nobody who
can rename things outside can have a secret written elsewhere. A file that isn't this account's credentials is
left alone. Who may enter the folder is the operator's to decide; that anybody may write to it is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from artstore_grpc.settings import InvalidSettings
from artstore_grpc.sinks.credentials import encoded, holder
from artstore_grpc.sinks.protocol import Delivery, SinkFailed, refused

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
"""No separator, and no dot to begin with: neither a way out of the folder nor one of our temporary names. Names
that begin with a dash are options to the next shell command."""
MAX_BYTES = 64 * 1024
"""Of a file that is looked at before it is replaced; a credentials file has some 300."""
ABANDONED = timedelta(minutes=10)
"""A temporary file this much older than a new one is a crash's."""

OWNER_ONLY = 0o600
GROUP_READS = 0o640

NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""A retry is no more allowed than the first try; a full disk may be emptied, a lost mount may come back."""

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Not blocking, since somebody may have put a pipe there."""
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FilesSink:
    """A `protocol.Sink`. Files have mode 0600; where `gid` is given they are that group's, and it may read them.
    `adopt` replaces files that hold something else, too. Raises InvalidSettings for a folder that can't be used."""

    def __init__(self, folder: Path, *, gid: int | None = None, adopt: bool = False) -> None:
        self._path = folder
        self._gid = gid
        self._adopt = adopt
        try:
            with self._folder():
                pass
        except SinkFailed as error:
            raise InvalidSettings(error.message) from None

    def check(self, destination: str) -> None:
        if destination and not NAME.fullmatch(destination):
            raise refused("must be a file's name: at most 200 of A-Z a-z 0-9 . _ -, the first none of . and -")

    async def deliver(self, delivery: Delivery) -> None:
        await asyncio.to_thread(self._deliver, delivery)

    async def close(self) -> None:
        return None

    def _deliver(self, delivery: Delivery) -> None:
        name = delivery.destination or f"{delivery.client_id}.json"
        if not NAME.fullmatch(name):
            raise SinkFailed("The destination, or the client_id in place of one, is no file's name.", permanent=True)
        with self._folder() as folder:
            try:
                self._check_present(folder, name, delivery.client_id)
                self._replace(folder, name, encoded(delivery))
            except OSError as error:
                raise SinkFailed(
                    f"{name} in the folder {self._path} can't be written: {error.strerror}.",
                    permanent=error.errno in NOT_ALLOWED,
                ) from None

    @contextmanager
    def _folder(self) -> Iterator[int]:
        """The folder's descriptor. Raises SinkFailed for one that can't be used."""
        try:
            folder = os.open(self._path, FOLDER)
        except OSError as error:
            raise SinkFailed(f"The folder {self._path} can't be opened: {error.strerror}.") from None
        try:
            if os.fstat(folder).st_mode & stat.S_IWOTH:
                raise SinkFailed(f"Everybody may write to the folder {self._path}; take that away.", permanent=True)
            yield folder
        finally:
            os.close(folder)

    def _check_present(self, folder: int, name: str, client_id: str) -> None:
        """Raises SinkFailed when what has the name is no plain file, or not this account's."""
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode):
            raise SinkFailed(f"{name} in the folder {self._path} is a link, or no plain file.", permanent=True)
        if not self._adopt and holder(read(folder, name)) != client_id:
            raise SinkFailed(
                f"{name} in the folder {self._path} doesn't hold this account's credentials; remove it, or "
                "let the sink adopt it.",
                permanent=True,
            )

    def _replace(self, folder: int, name: str, content: bytes) -> None:
        """Writes the file; after a return, or a crash at any time, the name is that of a whole file."""
        temporary = f".{name}.{secrets.token_hex(8)}"
        try:
            with os.fdopen(os.open(temporary, NEW, OWNER_ONLY, dir_fd=folder), "wb") as file:
                os.fchmod(file.fileno(), OWNER_ONLY)  # whatever the umask took away
                file.write(content)
                file.flush()
                if self._gid is not None:
                    os.fchown(file.fileno(), -1, self._gid)
                    os.fchmod(file.fileno(), GROUP_READS)
                os.fsync(file.fileno())
                written = os.fstat(file.fileno()).st_mtime
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        sweep(folder, name, older_than=written - ABANDONED.total_seconds())
        os.fsync(folder)


def read(folder: int, name: str) -> bytes:
    """The beginning of a file, its link not followed. Raises OSError."""
    with os.fdopen(os.open(name, READ, dir_fd=folder), "rb") as file:
        return file.read(MAX_BYTES)


def sweep(folder: int, name: str, older_than: float) -> None:
    """Removes the temporary files that crashes have left, secrets and all. `older_than` is the file system's time."""
    form = re.compile(rf"\.{re.escape(name)}\.[0-9a-f]{{16}}")
    for each in filter(form.fullmatch, os.listdir(folder)):
        with contextlib.suppress(OSError):  # another process is at it, or it is another user's
            if os.stat(each, dir_fd=folder, follow_symlinks=False).st_mtime < older_than:
                os.unlink(each, dir_fd=folder)
