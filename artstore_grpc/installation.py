"""What an installation needs before it can serve: its folder, its key-encryption key, its schema, its administrator."""

from __future__ import annotations

from dataclasses import dataclass, field

from artstore_grpc.accounts import Accounts, Draft
from artstore_grpc.errors import AlreadyExists
from artstore_grpc.key_encryption import KeyEncryption, LocalKey
from artstore_grpc.key_files import EmbeddedKey
from artstore_grpc.kms import KmsKey
from artstore_grpc.model import Role
from artstore_grpc.settings import InvalidSettings, Settings
from artstore_grpc.store import schema
from artstore_grpc.store.protocol import Store
from artstore_grpc.vault import WrongKey

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


async def prepare(settings: Settings, *, contract: bool) -> KeyEncryption:
    """What encrypts the root key; on the embedded default it first makes the folder and the schema. What an older
    program on the same file can't bear waits unless `contract` is said: by a service, which is alone on it as a rule.
    Raises InvalidSettings for a key that can't be used, and what `schema.upgrade` raises."""
    try:
        if settings.embedded:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        encryption = key_encryption(settings)
    except WrongKey as error:
        raise InvalidSettings(str(error)) from None
    except OSError as error:
        raise InvalidSettings(f"ARTSTORE_DATA_DIR can't be used: {error.strerror}: {error.filename}.") from None
    if settings.embedded:
        await schema.upgrade(settings.store_url, contract=contract)
    return encryption


def key_encryption(settings: Settings) -> KeyEncryption:
    """The key-encryption key that the settings name. Raises WrongKey for one that is malformed, OSError for a file that
    can't be read."""
    if settings.key_encryption_kms:
        return KmsKey(settings.key_encryption_kms)
    if settings.key_encryption_key:
        return LocalKey(settings.key_encryption_key)
    return EmbeddedKey(settings.key_encryption_key_path)


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
