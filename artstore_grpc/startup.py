"""What a start reads, and on the very first one makes, before there is a token; it waits for what is down."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from artstore_grpc import installation, root_key
from artstore_grpc.errors import KeyServiceUnavailable, StoreUnavailable
from artstore_grpc.installation import Administrator, AlreadyBootstrapped
from artstore_grpc.parts import Parts, utc_now
from artstore_grpc.settings import InvalidSettings, Settings
from artstore_grpc.store import schema
from artstore_grpc.telemetry.logs import Logger
from artstore_grpc.vault import WrongKey

LOAD_RETRY = timedelta(milliseconds=250)
"""How often a start with the database down tries again."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a start has read or made: the administrator, on the very first one of the embedded default."""

    administrator: Administrator | None


async def load(settings: Settings, made: Parts, logger: Logger) -> Loaded:
    """Reads what must be in memory before the first token, and makes the embedded default's first administrator; waits
    for a database or a key service that is down."""
    told: set[str] = set()
    while True:
        try:
            standing = await schema.check(settings.store_url)
            if standing.newer and "newer" not in told:
                logger.info("the schema is newer, and takes this program", schema=standing.found, own=standing.program)
                told.add("newer")
            if made.vault.locked:
                logger.info("root key opened", key=await unlock(made))
            await made.keyring.load()
            await made.notary.load()
            await made.replica.load()
            await made.signing_keys.raise_token_lifetime()
            return Loaded(await first_administrator(settings, made))
        except (StoreUnavailable, KeyServiceUnavailable) as down:
            waiting = "database" if isinstance(down, StoreUnavailable) else "key service"
            if isinstance(down, StoreUnavailable):
                made.replica.lose()
            if waiting not in told:
                logger.warning(f"waiting for the {waiting}", cause=str(down))
            told.add(waiting)
            await asyncio.sleep(LOAD_RETRY.total_seconds())
        except WrongKey as error:
            raise wrong_key(error) from None


async def unlock(made: Parts) -> str:
    """Opens the vault with the root key; returns the id of the key that it was encrypted under. Raises InvalidSettings
    for another installation's key-encryption key."""
    try:
        row, root = await root_key.row_and_root(made.store, made.encryption, utc_now)
        made.vault.unlock(root)
        return row.kek_id
    except WrongKey as error:
        raise wrong_key(error) from None


def wrong_key(error: WrongKey) -> InvalidSettings:
    return InvalidSettings(f"The key-encryption key isn't this database's. {error}")


async def first_administrator(settings: Settings, made: Parts) -> Administrator | None:
    """On the embedded default the very first start makes the administrator; None otherwise."""
    if not settings.embedded:
        return None
    try:
        return await installation.bootstrap(made.store, made.accounts)
    except AlreadyBootstrapped:
        return None
