"""What an installation needs before it can serve: its folder, its key-encryption key, its schema, its administrator."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from artstore_grpc.accounts import Accounts, Draft
from artstore_grpc.errors import AlreadyExists
from artstore_grpc.model import Role
from artstore_grpc.settings import InvalidSettings, Settings
from artstore_grpc.store import schema
from artstore_grpc.store.protocol import Store
from artstore_grpc.vault import Vault, WrongKey, new_key

ADMINISTRATOR = "administrator"
ADMINISTRATOR_RATE_LIMIT = 10_000
"""An operator's scripts create accounts by the hundred."""


class AlreadyBootstrapped(Exception):
    """The installation has its first administrator; its secret was shown once and isn't kept."""


@dataclass(frozen=True, slots=True)
class Administrator:
    """The first administrator's credentials, to be shown once. `repr` hides the secret."""

    client_id: str
    client_secret: str = field(repr=False)


async def prepare(settings: Settings) -> Vault:
    """Opens the vault; on the embedded default it first makes the folder, the key and the schema. Raises
    InvalidSettings for a key that can't be used."""
    try:
        if not settings.embedded:
            return Vault(settings.key_encryption_key)
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        vault = Vault(settings.key_encryption_key or embedded_key(settings.key_encryption_key_path))
    except WrongKey as error:
        raise InvalidSettings(str(error)) from None
    except OSError as error:
        raise InvalidSettings(f"ARTSTORE_DATA_DIR can't be used: {error.strerror}: {error.filename}.") from None
    await schema.upgrade(settings.store_url)
    return vault


def embedded_key(path: Path) -> str:
    """The key in a file, made with mode 0600 if there is none; of processes that start at once one makes it."""
    if not path.exists():
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")  # 0600 from the start
        with os.fdopen(descriptor, "w") as file:
            file.write(new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # all or nothing: nobody reads half a key
        Path(temporary).unlink()
    return path.read_text()


async def bootstrap(store: Store, accounts: Accounts) -> Administrator:
    """Creates the first administrator. Raises AlreadyBootstrapped."""
    async with store.unit() as unit:
        if await unit.system_account_exists():  # asked before a hash is computed; the insert asks again
            raise AlreadyBootstrapped("The installation has its first administrator.")
    draft = Draft(
        ADMINISTRATOR,
        Role.ADMIN,
        description="The first administrator.",
        rate_limit=ADMINISTRATOR_RATE_LIMIT,
        is_system=True,
    )
    try:
        answer = await accounts.create(draft, caller=None)
    except AlreadyExists:
        raise AlreadyBootstrapped("The installation has its first administrator.") from None
    return Administrator(answer.account.client_id, answer.client_secret)
