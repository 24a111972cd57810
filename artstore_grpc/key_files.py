"""The key-encryption key of the embedded default: a file in DATA_DIR, made when the root key is, replaced by a rekey.

A rekey first writes the new key beside it, as `<file>.<id>`, on disk before the database names it; afterwards it
renames it over the old one. Whoever finds the root key encrypted under `local:<id>` and a file of that name renames it
too, so a crash in between costs nothing. A name is one key's alone: two rekeys at once can't overwrite each other's.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from artstore_grpc.files import settle
from artstore_grpc.key_encryption import LOCAL, LocalKey, Wrapped, another_key
from artstore_grpc.vault import WrongKey, new_key

LOCAL_ID = re.compile(r"local:[0-9a-f]{8}")
"""What may become part of a file's name; the id comes from the database."""


class EmbeddedKey:
    """A `key_encryption.KeyEncryption`. Raises WrongKey when the file there is holds no key, OSError when it can't be
    read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read()

    async def current_key(self) -> str:
        return self._present().id

    async def wrap(self, plain: bytes, context: bytes) -> Wrapped:
        """Makes the key if there is none; of processes that start at once one makes it."""
        if self._read() is None:
            write_new(self._path, new_key())
        return await self._present().wrap(plain, context)

    async def unwrap(self, wrapped: Wrapped, context: bytes) -> bytes:
        held = self._read()
        if held is None or held.id != wrapped.key_id:
            adopt(self._path, wrapped.key_id)  # if another process is first, the file is the right one just as well
            held = self._read()
        if held is None or held.id != wrapped.key_id:
            raise another_key(wrapped.key_id, held.id if held else f"missing: there is no {self._path}")
        return await held.unwrap(wrapped, context)

    def sealing_key(self) -> bytes | None:
        return self._present().sealing_key()

    async def close(self) -> None:
        return None

    def _present(self) -> LocalKey:
        held = self._read()
        if held is None:
            raise WrongKey(f"The file {self._path} is missing.")
        return held

    def _read(self) -> LocalKey | None:
        try:
            return LocalKey(self._path.read_text())
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise WrongKey(f"The file {self._path} must hold 32 bytes in base64.") from None


def stage(path: Path, key: str) -> None:
    """Puts a new key beside the file, durably, under a name of its own."""
    write_new(_beside(path, LocalKey(key).id), key)


def adopt(path: Path, id: str) -> bool:
    """Makes the staged key of this id the file; False when there is none, or another process was first."""
    if not LOCAL_ID.fullmatch(id):
        return False
    try:
        _beside(path, id).replace(path)
    except FileNotFoundError:
        return False
    settle(path.parent)
    return True


def unstage(path: Path, key: str) -> None:
    """Removes a staged key that nothing was encrypted under."""
    _beside(path, LocalKey(key).id).unlink(missing_ok=True)


def write_new(path: Path, key: str) -> bool:
    """Writes a key to a new file of mode 0600, whole and on disk when this returns. False when there is one, which
    stays."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # O_EXCL and 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key.strip() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # all or nothing: nobody reads half a key
    except FileExistsError:
        return False
    finally:
        Path(temporary).unlink()
        settle(path.parent)
    return True


def _beside(path: Path, id: str) -> Path:
    return path.with_name(f"{path.name}.{id.removeprefix(LOCAL)}")
