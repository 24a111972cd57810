"""Credentials in a file that is its owner's alone: read when it has changed, replaced in one piece.

What is written is in a new file that is on disk before it takes the old one's name (fsync(2), rename(2)): a reader and
a crash see the old document or the new one, never a part. Replicas on one machine, or on one volume, take turns by a
lock file (flock(2)). A link is followed, as Kubernetes mounts Secrets; what it points to is what must be private.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from artstore.identity.credentials import Credentials, CredentialsError
from artstore.identity.credentials_document import MAX_BYTES, Document, parsed, serialised

LOCK_SECONDS, LOCK_POLL_SECONDS = 5.0, 0.005
"""A replacement takes milliseconds; who holds the lock for longer was stopped, and must not stop others from ending."""
TOO_WIDE = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
"""What a group may do is to read: that is how a service gets a file whose owner is another user, such as the identity
service's sink (0640), or the kubelet with an `fsGroup` (0440)."""


class CredentialsFile:
    """A CredentialsProvider and a CredentialsStore. Safe to be used by several threads and processes."""

    def __init__(self, path: str | os.PathLike[str], *, issuer: str = "", rotates: bool = True) -> None:
        """`path` is read at the first use. A non-empty `issuer` must be the one that the file names. With `rotates` a
        token source replaces the secret in it before it expires; the folder must be writable for that."""
        self.path = Path(path)
        self.rotates = rotates
        self._issuer = issuer
        self._guard = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._document: Document | None = None

    def __repr__(self) -> str:
        return f"CredentialsFile({str(self.path)!r})"

    def current(self) -> Credentials:
        """What the file says; read again only when it is another file, or was written to. Raises CredentialsError."""
        with self._guard:
            if self._document is None or _signature(self._found()) != self._seen:
                self._read()
            assert self._document is not None
            return self._document.credentials

    def reread(self) -> Credentials:
        """What the file says now. Raises CredentialsError."""
        with self._guard:
            self._read()
            assert self._document is not None
            return self._document.credentials

    def read(self) -> tuple[Document, str]:
        """The document and its version, a digest of the file. Raises CredentialsError."""
        with self._guard:
            return self._read()

    def replace(self, document: Document, version: str) -> bool:
        """See CredentialsStore. Keeps the file's owner and mode. Raises CredentialsError."""
        try:
            target = self.path.resolve(strict=True)
            with _locked(target.with_name(f".{target.name}.lock")), self._guard:
                if self._read()[1] != version:
                    return False
                _sweep(target)
                _write(target, serialised(document))
                return True
        except (OSError, RuntimeError) as error:
            raise CredentialsError(
                f"{self.path} can't be replaced ({_why(error)}): make its folder writable for this service, or give "
                "CredentialsFile(…, rotates=False)."
            ) from error

    def _found(self) -> os.stat_result:
        try:
            return self.path.stat()
        except (OSError, RuntimeError) as error:
            raise self._unreadable(error) from error

    def _read(self) -> tuple[Document, str]:
        try:
            # Not blocking: a pipe in the file's place would have no end.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            found = os.fstat(descriptor)
            self._check(found)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                text = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        self._document, self._seen = parsed(text, str(self.path), issuer=self._issuer), _signature(found)
        return self._document, hashlib.sha256(text).hexdigest()

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise CredentialsError(f"{self.path} is not a file: name the credentials file itself.")
        if found.st_mode & TOO_WIDE:
            raise CredentialsError(
                f"{self.path} may be read by everybody, or written by others (mode {stat.S_IMODE(found.st_mode):04o}): "
                f"`chmod 600 {self.path}`, and rotate the secret if others had access."
            )

    def _unreadable(self, error: OSError | RuntimeError) -> CredentialsError:
        return CredentialsError(f"{self.path} can't be read ({_why(error)}): {_advice(error)}.")


def _signature(found: os.stat_result) -> tuple[int, ...]:
    """Differs for another file, and for one that was written to or whose mode was changed."""
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)


def _why(error: OSError | RuntimeError) -> str:
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)


def _advice(error: OSError | RuntimeError) -> str:
    match getattr(error, "errno", None):
        case errno.ENOENT | errno.ENOTDIR:
            return "write the account's credentials there, mode 0600"
        case errno.ELOOP:
            return "its links lead in a circle; let them lead to the file"
        case errno.EACCES | errno.EPERM:
            return "give it to the user that this service runs as"
        case _:
            return "see that it is a readable file"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the lock of one file against every other process. The lock file stays: without it two could hold it."""
    import fcntl  # not on every system, and only needed here

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + LOCK_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CredentialsError(
                        f"{path} is held by another process that doesn't go on: find it (`fuser {path}`), and end it."
                    ) from None
                time.sleep(LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Removes what a crash has left; only who holds the lock makes such files."""
    for left in target.parent.glob(f".{target.name}.*.new"):
        left.unlink(missing_ok=True)


def _write(target: Path, text: bytes) -> None:
    before = target.stat()
    new = target.with_name(f".{target.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            written = os.fstat(descriptor)
            if (written.st_uid, written.st_gid) != (before.st_uid, before.st_gid):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            os.fsync(descriptor)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # only then the new name is on disk
    finally:
        os.close(folder)
