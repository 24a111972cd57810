"""The vault: what is sealed opens only where and with what it was sealed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc.errors import StoreUnavailable
from artstore_grpc.vault import KEY_BYTES, Vault, WrongKey, framed, new_root

VAULT = Vault(new_root())


@given(st.binary(max_size=200))
def test_what_is_sealed_opens(value: bytes) -> None:
    """Sealing loses nothing, and never gives the same bytes twice."""
    sealed = VAULT.seal(value, "a", "b")
    assert VAULT.open(sealed, "a", "b") == value
    assert sealed != VAULT.seal(value, "a", "b")


def test_a_value_opens_only_in_its_context() -> None:
    """A sealed value that was moved to another row does not open there."""
    sealed = VAULT.seal(b"value", "a", "bc")
    for context in (("a", "b"), ("ab", "c"), ("a",), ()):
        with pytest.raises(WrongKey):
            VAULT.open(sealed, *context)


@given(at=st.integers(0, 36), bit=st.integers(0, 7))
def test_a_changed_bit_is_noticed(at: int, bit: int) -> None:
    """No bit of a sealed value can be changed."""
    sealed = bytearray(VAULT.seal(b"value", "a"))
    sealed[at] ^= 1 << bit
    with pytest.raises(WrongKey):
        VAULT.open(bytes(sealed), "a")


def test_another_key_is_named() -> None:
    """A value sealed under another key is refused with both keys' ids."""
    other = Vault(new_root())
    with pytest.raises(WrongKey, match=f"{VAULT.key_id.hex()}.*{other.key_id.hex()}"):
        other.open(VAULT.seal(b"value"))


@pytest.mark.parametrize("size", [0, 16, KEY_BYTES - 1, KEY_BYTES + 1])
def test_a_root_key_must_be_32_bytes(size: int) -> None:
    """A root key of another length is refused."""
    with pytest.raises(WrongKey, match="32 bytes"):
        Vault(bytes(size))


def test_a_locked_vault_does_nothing() -> None:
    """Until it has its root key all is StoreUnavailable, which callers are told as UNAVAILABLE; then it works."""
    vault = Vault()
    assert vault.locked
    for use in (
        lambda: vault.seal(b"x"),
        lambda: vault.open(b"x"),
        lambda: vault.seal_answer(b"x", "id"),
        lambda: vault.secret_tag("a", "b", "c"),
        lambda: vault.request_digest(b"x"),
        lambda: vault.denial_id("x"),
        lambda: vault.explain_denial("x"),
        lambda: vault.key_id,
    ):
        with pytest.raises(StoreUnavailable):
            use()
    root = new_root()
    vault.unlock(root)
    assert vault.open(Vault(root).seal(b"value", "a"), "a") == b"value"


def test_an_answer_needs_its_request_id() -> None:
    """The root key alone does not open an answer."""
    sealed = VAULT.seal_answer(b"secret", "one", "row")
    assert VAULT.open_answer(sealed, "one", "row") == b"secret"
    with pytest.raises(WrongKey):
        VAULT.open_answer(sealed, "two", "row")
    with pytest.raises(WrongKey):
        VAULT.open(sealed, "row")


@given(st.text(max_size=40), st.text(max_size=40))
def test_denials_have_one_length(one: str, other: str) -> None:
    """The length of a denial_id tells nothing of its cause."""
    assert len(VAULT.denial_id(one)) == len(VAULT.denial_id(other))


def test_a_denial_can_be_explained() -> None:
    """The cause comes back; a made-up id is refused."""
    assert VAULT.explain_denial(VAULT.denial_id("wrong secret")) == "wrong secret"
    for made_up in ("", "AAAA", "!", VAULT.denial_id("x")[:-4] + "AAAA"):
        with pytest.raises(WrongKey):
            VAULT.explain_denial(made_up)


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_framing_is_injective(one: list[bytes], other: list[bytes]) -> None:
    """Two lists frame alike only if they are alike: no part runs into the next."""
    assert (framed(*one) == framed(*other)) == (one == other)


def test_tags_differ_by_every_part() -> None:
    """A tag is of one client, one secret id, one secret and one key."""
    tags = {VAULT.secret_tag(*parts) for parts in (("a", "b", "c"), ("x", "b", "c"), ("a", "x", "c"), ("a", "b", "x"))}
    assert len(tags | {Vault(new_root()).secret_tag("a", "b", "c")}) == 5
