"""What a service's process does with its credentials file, for tests that kill it.

Run by a fork server that has imported everything and has used no gRPC, so that a hundred processes take seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from typing import Any

from artstore.identity import CredentialsFile, SelfRotationPolicy, SyncTokenSource
from artstore.identity.steps import Step, Steps

STOP_SECONDS = 30.0
AT_ONCE = SelfRotationPolicy(claim_timeout=timedelta(microseconds=1))
"""A dead replica's claim is taken over at once: the tests know that it is dead."""


def context() -> ForkServerContext:
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([__name__])
    return made


@contextmanager
def child(target: Any, *arguments: Any) -> Iterator[BaseProcess]:
    """A process that is killed when the test is done with it."""
    process = context().Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(STOP_SECONDS)
        process.close()


def source(target: str, path: str) -> SyncTokenSource:
    """One that rotates only when it is told to."""
    made = SyncTokenSource(target, credentials=CredentialsFile(path), rotation=AT_ONCE)
    made._rotating = True
    return made


def dies_after(target: str, path: str, steps: int) -> None:
    """Rotates, and dies by SIGKILL once so many steps are done; ends with 0 where there are fewer."""
    with source(target, path) as made:
        made.token()
        rotation = made.rotation
        assert rotation is not None
        rotate = rotation.rotate

        def counted() -> Steps[bool]:
            left, steps_of = steps, rotate()
            step: Step = next(steps_of)
            while True:
                answer, failure = None, None
                try:
                    answer = yield step
                except Exception as error:
                    failure = error
                left -= 1
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                try:
                    step = steps_of.send(answer) if failure is None else steps_of.throw(failure)
                except StopIteration as done:
                    return done.value  # type: ignore[no-any-return]

        rotation.rotate = counted  # type: ignore[method-assign]
        made.rotate_secret()


def rotates(target: str, path: str, ready: Any) -> None:
    """Says that it begins, and rotates."""
    with source(target, path) as made:
        ready.set()
        made.rotate_secret()


def serves(target: str, path: str, ahead: timedelta, stop: Any, told: Any) -> None:
    """A replica whose clock is ahead: gets tokens until it is stopped, then tells how many, by which secret at last,
    and how often it rotated. Fails where a token is refused."""
    policy = SelfRotationPolicy(check_interval=timedelta(seconds=0.2))
    credentials, now = CredentialsFile(path), lambda: datetime.now(UTC) + ahead
    with SyncTokenSource(target, credentials=credentials, rotation=policy, now=now) as made:
        count = 0
        while not stop.is_set():
            made.token(scope="storage.read" if count % 2 else "", audience=())
            for entry in made._cache._entries.values():
                entry.token = None  # each one is asked for: that is what would notice a secret that is dead
            count += 1
            time.sleep(0.005)
        assert made.rotation is not None
        told.put((count, CredentialsFile(path).current().client_secret, made.rotation.rotated))
