"""The planner by properties: what is to come of any account, and when to look at it, whatever happens meanwhile."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc import rotations
from artstore_grpc.model import (
    BY_HAND,
    Account,
    PendingDelivery,
    PublicKey,
    Role,
    RotationMode,
    RotationPolicy,
    Secret,
    State,
)
from artstore_grpc.rotations import SHORTEST_IDLE, Action

START = datetime(2030, 1, 1, tzinfo=UTC)
KEY = PublicKey("thumbprint", "", "ES256", {})
IDLE = timedelta(minutes=31)

moments = st.integers(-200 * 24 * 60, 200 * 24 * 60).map(lambda minutes: START + timedelta(minutes=minutes))
maybe = st.none() | moments
spans = st.integers(0, 30 * 24).map(lambda hours: timedelta(hours=hours))
policies = st.one_of(
    st.just(BY_HAND),
    st.builds(RotationPolicy, st.just(RotationMode.SELF), st.sampled_from(["", "0 3 * * 1"]), spans),
    st.builds(RotationPolicy, st.just(RotationMode.MANAGED), st.just("0 3 * * 1"), spans, st.just("shelf")),
)


@st.composite
def secrets(draw: st.DrawFn) -> tuple[Secret, ...]:
    """At most two, the newest first."""
    made = sorted(draw(st.lists(moments, max_size=2)), reverse=True)
    return tuple(
        Secret(
            str(number),
            "",
            time,
            time + draw(spans) * 3,
            last_used_time=draw(maybe),
            replace_time=draw(maybe) if number else None,
            warned=draw(st.booleans()),
        )
        for number, time in enumerate(made)
    )


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    held = draw(secrets())
    account = Account(
        "id",
        "client_id",
        "name",
        Role.USER,
        START,
        START,
        suspended=draw(st.booleans()),
        delete_time=draw(maybe),
        public_keys=draw(st.sampled_from([(), (KEY,)])),
        rotation_policy=draw(policies),
        next_rotate_time=draw(maybe),
        secrets=held,
    )
    if held and draw(st.booleans()):
        pending = PendingDelivery(held[0].id, b"", held[0].create_time, draw(moments), draw(moments))
        account = replace(account, delivery=pending)
    return replace(account, told_expire_time=draw(st.sampled_from([None, account.secret_expire_time])))


@given(accounts(), st.integers(0, 24 * 60).map(lambda minutes: timedelta(minutes=minutes)))
def test_nothing_comes_before_it_is_looked_for(account: Account, longer: timedelta) -> None:
    """`due_time` is not after the first step, however long tokens live; without one there is no step."""
    steps = rotations.steps(account, SHORTEST_IDLE + longer)
    due_time = rotations.due_time(account)
    assert due_time is not None or not steps
    assert due_time is None or all(due_time <= step.time for step in steps)


@given(accounts(), maybe, maybe)
def test_uses_don_t_bring_a_step_before_it_is_looked_for(
    account: Account, new: datetime | None, old: datetime | None
) -> None:
    """Secrets are used without anybody's saving the account: no use makes a step come before the `due_time` that was
    written when it was saved, except that of a new secret whose delivery waits."""
    due_time = rotations.due_time(account)
    uses = (new, old)
    used = replace(
        account, secrets=tuple(replace(secret, last_used_time=uses[n]) for n, secret in enumerate(account.secrets))
    )
    assert all(due_time is not None and due_time <= step.time for step in rotations.steps(used, IDLE))


@given(accounts(), moments)
def test_a_look_in_vain_is_not_repeated(account: Account, now: datetime) -> None:
    """Where nothing is due the next look is later, and never after the next step."""
    if rotations.due(account, now, IDLE):
        return
    later = rotations.look_time(account, now, IDLE)
    assert later is None or later > now
    assert all(later is not None and later <= step.time for step in rotations.steps(account, IDLE))


@given(accounts())
def test_steps(account: Account) -> None:
    """In the order of their times, each about something of its own, in a sentence; only a purge of a deleted account,
    nothing of a suspended one."""
    steps = rotations.steps(account, IDLE)
    assert [step.time for step in steps] == sorted(step.time for step in steps)
    assert len({step.about for step in steps}) == len(steps)
    assert all(step.reason.endswith(".") for step in steps)
    actions = {step.action for step in steps}
    if account.delete_time:
        assert actions == {Action.PURGE}
    elif account.suspended:
        assert not actions
    assert not {Action.ROTATE, Action.DELIVER} <= actions


@given(accounts(), moments)
def test_nobody_loses_the_last_secret(account: Account, now: datetime) -> None:
    """The newest secret is never retired, nor any while a new one waits to be delivered; one that works is retired
    early only where a newer one was used."""
    for step in rotations.due(account, now, IDLE):
        if step.action is not Action.RETIRE:
            continue
        assert account.delivery is None
        assert step.secret_id != account.secrets[0].id
        old = account.secrets[1]
        assert not old.live(now) or account.secrets[0].last_used_time is not None
        assert not old.live(now) or account.rotation_policy.mode is not RotationMode.MANUAL


@given(accounts(), moments)
def test_expiry_is_told_of_accounts_that_have_expired(account: Account, now: datetime) -> None:
    """EXPIRE is due exactly where the state is `expired` and that was not told yet; never together with a warning."""
    actions = [step.action for step in rotations.due(account, now, IDLE)]
    told = account.told_expire_time == account.secret_expire_time
    assert (Action.EXPIRE in actions) == (account.state(now) is State.EXPIRED and not told)
    assert not {Action.WARN, Action.EXPIRE} <= set(actions)


@given(accounts(), moments)
def test_a_new_secret_lives_as_its_policy_says(account: Account, now: datetime) -> None:
    """At most 90 days; under a `self` policy with a schedule until the next Monday and the overlap."""
    ends = rotations.secret_expire_time(account, now) - now
    policy = account.rotation_policy
    if policy.mode is RotationMode.SELF and policy.schedule:
        assert policy.overlap < ends <= policy.overlap + timedelta(days=7)
    else:
        assert ends == timedelta(days=90)
