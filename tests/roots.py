"""The root key of an installation, for tests that open what it has sealed."""

from __future__ import annotations

from datetime import UTC, datetime

from artstore_grpc import installation, root_key
from artstore_grpc.settings import Settings
from artstore_grpc.store.sql import SqlStore
from artstore_grpc.vault import Vault


def now() -> datetime:
    return datetime.now(UTC)


async def opened_vault(settings: Settings) -> Vault:
    """The vault as the service of these settings has it."""
    return Vault(await opened_root(settings))


async def opened_root(settings: Settings) -> bytes:
    """The root key itself."""
    encryption = installation.key_encryption(settings)
    store = SqlStore(settings.store_url, pool_size=1)
    try:
        return await root_key.opened(store, encryption, now)
    finally:
        await store.close()
        await encryption.close()
