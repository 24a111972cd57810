"""Key-encryption keys that this process has: 32 bytes, from wherever; and the embedded default's file."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artstore_grpc import key_files
from artstore_grpc.key_encryption import LocalKey, Wrapped
from artstore_grpc.key_files import EmbeddedKey
from artstore_grpc.vault import Vault, WrongKey, new_key, new_root

KEY = new_key()
LOCAL = LocalKey(KEY)


@given(plain=st.binary(min_size=32, max_size=32), context=st.binary(max_size=50))
async def test_a_key_comes_back(plain: bytes, context: bytes) -> None:
    """What is wrapped unwraps, and is never twice the same bytes."""
    wrapped = await LOCAL.wrap(plain, context)
    assert await LocalKey(KEY + "\n").unwrap(wrapped, context) == plain
    assert wrapped.ciphertext != (await LOCAL.wrap(plain, context)).ciphertext
    assert wrapped.key_id == await LOCAL.current_key() == LOCAL.id


@given(one=st.binary(max_size=9), other=st.binary(max_size=9))
async def test_the_context_is_authenticated(one: bytes, other: bytes) -> None:
    """It opens for its own context alone."""
    wrapped = await LOCAL.wrap(bytes(32), one)
    if one == other:
        assert await LOCAL.unwrap(wrapped, other) == bytes(32)
        return
    with pytest.raises(WrongKey, match="belongs elsewhere"):
        await LOCAL.unwrap(wrapped, other)


@given(at=st.integers(0, 59), bit=st.integers(0, 7))
async def test_a_changed_bit_is_noticed(at: int, bit: int) -> None:
    """No bit can be changed."""
    wrapped = await LOCAL.wrap(new_root(), b"c")
    changed = bytearray(wrapped.ciphertext)
    changed[at] ^= 1 << bit
    with pytest.raises(WrongKey, match="damaged"):
        await LOCAL.unwrap(Wrapped(LOCAL.id, bytes(changed)), b"c")


@given(size=st.integers(0, 59))
async def test_a_cut_value_is_noticed(size: int) -> None:
    """Nothing can be cut off."""
    wrapped = await LOCAL.wrap(new_root(), b"c")
    with pytest.raises(WrongKey, match="damaged"):
        await LOCAL.unwrap(Wrapped(LOCAL.id, wrapped.ciphertext[:size]), b"c")


async def test_both_keys_are_named() -> None:
    """Wrapped under another key: refused with both ids, and no byte of either key."""
    other = LocalKey(new_key())
    with pytest.raises(WrongKey, match=f"{other.id}.*{LOCAL.id}") as caught:
        await LOCAL.unwrap(await other.wrap(bytes(32), b""), b"")
    assert KEY[:6] not in str(caught.value)


@pytest.mark.parametrize("key", ["", "short", "!!!!", "QUJD", "QUFB" * 9])
def test_a_key_must_be_32_bytes(key: str) -> None:
    """A key of another length, or that isn't base64, is refused."""
    with pytest.raises(WrongKey, match="32 bytes in base64"):
        LocalKey(key)


async def test_what_0_1_0_sealed_is_no_wrapped_key() -> None:
    """The same key sealed other things in release 0.1.0; none of them passes for a root key."""
    sealed = Vault(base64.b64decode(KEY)).seal(bytes(32), "context")
    with pytest.raises(WrongKey):
        await LOCAL.unwrap(Wrapped(LOCAL.id, sealed[4:]), b"context")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def text(path: Path) -> str:
    return path.read_text()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "key-encryption.key"


async def test_the_first_wrap_makes_the_file(file: Path) -> None:
    """There is no key before there is something to encrypt; then one of mode 0600, which another process takes up."""
    made = EmbeddedKey(file)
    with pytest.raises(WrongKey, match="missing"):
        await made.current_key()
    wrapped = await made.wrap(bytes(32), b"c")
    assert mode(file) == 0o600
    assert await EmbeddedKey(file).unwrap(wrapped, b"c") == bytes(32)
    assert (await EmbeddedKey(file).wrap(bytes(32), b"c")).key_id == wrapped.key_id
    assert names(file.parent) == [file.name]


@pytest.mark.parametrize("text", [b"", b"nonsense", b"\xff\xfe"])
def test_a_file_without_a_key_is_refused(file: Path, text: bytes) -> None:
    """A damaged file is refused at once, and left as it is."""
    file.write_bytes(text)
    with pytest.raises(WrongKey, match="32 bytes in base64"):
        EmbeddedKey(file)
    assert file.read_bytes() == text


async def test_a_missing_file_is_not_replaced(file: Path) -> None:
    """The key that is needed is named; no new one is made, which would open nothing."""
    with pytest.raises(WrongKey, match=f"{LOCAL.id}.*missing.*{file.name}"):
        await EmbeddedKey(file).unwrap(await LOCAL.wrap(bytes(32), b""), b"")
    assert not names(file.parent)


async def test_a_staged_key_is_taken_up_when_it_is_needed(file: Path) -> None:
    """Whether a rekey ended before its commit or before its rename: the key that the root key needs is the file then,
    and another that was staged is left alone."""
    embedded = EmbeddedKey(file)
    before = await embedded.wrap(bytes(32), b"c")
    key_files.stage(file, KEY)
    assert await embedded.unwrap(before, b"c") == bytes(32)
    assert LocalKey(text(file)).id == before.key_id
    after = await LOCAL.wrap(bytes(32), b"c")
    assert await embedded.unwrap(after, b"c") == bytes(32)
    assert text(file) == KEY + "\n"
    assert mode(file) == 0o600
    with pytest.raises(WrongKey, match=f"{before.key_id}.*{LOCAL.id}"):
        await embedded.unwrap(before, b"c")


@pytest.mark.parametrize("id", ["local:../../x", "kms:key", "local:", "local:0000000", "local:0000000g", ""])
def test_an_id_is_no_path(file: Path, id: str) -> None:
    """Ids come from the database; only one of ours becomes part of a file's name."""
    (file.parent / "x").write_text(KEY)
    assert not key_files.adopt(file, id)
    assert not file.exists()


def test_a_key_is_never_written_over_another(tmp_path: Path) -> None:
    """`write_new` leaves a file that there is, and nothing beside it."""
    path = tmp_path / "key"
    assert key_files.write_new(path, KEY)
    assert not key_files.write_new(path, new_key())
    assert path.read_text() == KEY + "\n"
    assert names(tmp_path) == ["key"]
