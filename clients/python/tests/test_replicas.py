"""Replicas that crash, stall and meet at random: whatever happens, the document holds a secret that works."""

from __future__ import annotations

from datetime import timedelta

from artstore.identity import (
    FailedPrecondition,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from replicas import Replica, Service, Shelf


class Machine(RuleBasedStateMachine):
    """Three replicas that begin, stall, die and are replaced in any order, while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.service, self.shelf = Service(), Shelf()
        self.service.secrets[0].used = True
        self.seed = 0
        self.replicas = [self.fresh() for _ in range(3)]
        self.since = timedelta(0)

    def fresh(self) -> Replica:
        self.seed += 1
        return Replica(self.service, self.shelf, seed=self.seed)

    @rule(index=st.integers(0, 2), again=st.booleans())
    def begin(self, index: int, again: bool) -> None:
        if not self.replicas[index].busy:
            self.replicas[index].begin(again=again)

    @rule(index=st.integers(0, 2), count=st.integers(1, 5))
    def go_on(self, index: int, count: int) -> None:
        for _ in range(count):
            if self.replicas[index].busy:
                self.replicas[index].step()

    @rule(index=st.integers(0, 2))
    def die(self, index: int) -> None:
        self.replicas[index] = self.fresh()

    @precondition(lambda self: self.since < timedelta(hours=20))
    @rule(passed=st.sampled_from([timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=11)]))
    def wait(self, passed: timedelta) -> None:
        self.service.now += passed
        self.since += passed

    @rule(down=st.booleans())
    def outage(self, down: bool) -> None:
        self.service.down = down

    @rule()
    def all_end(self) -> None:
        """A replica that is left alone ends what is there: afterwards there is no claim, and a day may pass."""
        self.service.down = False
        self.service.now += timedelta(minutes=2)
        self.replicas = [self.fresh() for _ in range(3)]
        outcome = self.replicas[0].run(again=False)
        assert not isinstance(outcome, Exception) or isinstance(outcome, FailedPrecondition)
        assert self.shelf.document.rotation is None
        self.service.now += timedelta(hours=25)
        self.since = timedelta(0)

    @invariant()
    def the_secret_works(self) -> None:
        assert self.service.works(self.shelf.document.client_secret), "locked out"


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
