"""How a server's coroutine is run: on uvloop where it is installed, and with its own errors turned into exits."""

from __future__ import annotations

import asyncio
import gc
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from artstore_grpc.cli.exits import Exit, Failure
from artstore_grpc.errors import CannotBind, KeyServiceUnavailable, StoreUnavailable
from artstore_grpc.settings import Settings

Answer = TypeVar("Answer")

COLLECTIONS = (5_000, 10, 50)
"""Each call of a gRPC client leaves a cycle of objects behind. By Python's own thresholds (700, 10, 10) the collector
looks for them every dozen calls, which is a twentieth of what a token costs a gateway; by these every few hundred."""
OTHER_FILES = 6000
"""gRPC's connections, the databases', logs, libraries."""


def loop_factory() -> Callable[[], AbstractEventLoop] | None:
    """uvloop's, which saves 7 % of a call; None, asyncio's own, where there is none, as on Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], AbstractEventLoop] = uvloop.new_event_loop
    return factory


def allow_files(settings: Settings) -> None:
    """Lets the process open as many files as its connections may take: the usual limit of 1,024 would have strangers
    keep it from its database. No more than the system allows, and nothing on Windows."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + OTHER_FILES
    if soft < wanted:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def quiet_collector() -> None:
    """Has Python's collector of cycles look at what comes from now on, and seldom: what there is by now stays. A full
    collection of it all takes 100 to 200 ms, in which nobody is answered, and comes every few thousand calls."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Runs it to its end. Raises Failure for what an operator can mend, InvalidSettings as it is."""
    # Imported late: the commands that are clients start without the server's libraries.
    from artstore_grpc.installation import AlreadyBootstrapped
    from artstore_grpc.root_key import RootKeyChanged
    from artstore_grpc.store.compatibility import ContractNeeded, OldPrograms
    from artstore_grpc.store.schema import SchemaMismatch, TablesInUse

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(work)
    except AlreadyBootstrapped as error:
        raise Failure(Exit.ALREADY_BOOTSTRAPPED, "ALREADY_BOOTSTRAPPED", str(error)) from error
    except SchemaMismatch as error:
        raise Failure(Exit.CONFLICT, "SCHEMA_MISMATCH", str(error)) from error
    except ContractNeeded as error:
        raise Failure(Exit.CONFLICT, "CONTRACT_NEEDED", str(error)) from error
    except OldPrograms as error:
        raise Failure(Exit.CONFLICT, "OLD_PROGRAMS", str(error)) from error
    except TablesInUse as error:
        raise Failure(Exit.UNAVAILABLE, "TABLES_IN_USE", str(error)) from error
    except CannotBind as error:
        raise cannot_bind(error) from error
    except RootKeyChanged as error:
        raise Failure(Exit.CONFLICT, "ROOT_KEY_CHANGED", str(error)) from error
    except KeyServiceUnavailable as error:
        raise Failure(Exit.UNAVAILABLE, "KEY_SERVICE_UNAVAILABLE", str(error)) from error
    except StoreUnavailable as error:
        raise Failure(Exit.UNAVAILABLE, "STORE_UNAVAILABLE", "The database can't be reached.") from error


def cannot_bind(error: CannotBind) -> Failure:
    return Failure(Exit.UNAVAILABLE, "CANNOT_BIND", str(error))
