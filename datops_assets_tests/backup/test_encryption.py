"""The encryption of artefacts: whatever is changed, moved or cut off does not open."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datops_assets.backup import encryption
from datops_assets.backup.encryption import DecryptingReader, EncryptingWriter, Keys, new_key, parse_key
from datops_assets.errors import BackupDamagedError, TerminalError

KEY = parse_key("K", new_key())
CHUNK = 64


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "_CHUNK_BYTES", CHUNK)


def seal(data: bytes, place: str = "erp/1/a") -> bytes:
    out = io.BytesIO()
    writer = EncryptingWriter(out, KEY, place)
    for start in range(0, len(data), 17):
        writer.write(data[start : start + 17])
    writer.close()
    return out.getvalue()


def unseal(sealed: bytes, place: str = "erp/1/a", keys: Keys | None = None) -> bytes:
    return DecryptingReader(io.BytesIO(sealed), keys or Keys.of(KEY), place).read()


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 1000])
def test_what_was_written_comes_back(size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    assert unseal(seal(data)) == data
    pieces = DecryptingReader(io.BytesIO(seal(data)), Keys.of(KEY), "erp/1/a")
    assert b"".join(iter(lambda: pieces.read(13), b"")) == data


@given(st.binary(max_size=400), st.data())
@settings(max_examples=200)
def test_no_changed_bit_passes(data: bytes, choose: st.DataObject) -> None:
    sealed = bytearray(seal(data))
    sealed[choose.draw(st.integers(0, len(sealed) - 1))] ^= 1 << choose.draw(st.integers(0, 7))
    with pytest.raises((BackupDamagedError, TerminalError)):
        unseal(bytes(sealed))


@given(st.integers(0, 400))
def test_nothing_cut_off_passes(kept: int) -> None:
    sealed = seal(b"x" * 300)
    with pytest.raises(BackupDamagedError):
        unseal(sealed[: min(kept, len(sealed) - 1)])


def test_swapped_and_repeated_chunks_do_not_pass() -> None:
    sealed, head, step = seal(b"a" * 256 + b"b" * 10), 52, CHUNK + 16
    chunks = [sealed[head + n * step : head + (n + 1) * step] for n in range(4)]
    for order in ([1, 0, 2, 3], [0, 0, 2, 3], [0, 1, 2]):
        with pytest.raises(BackupDamagedError):
            unseal(sealed[:head] + b"".join(chunks[n] for n in order) + sealed[head + 4 * step :])


def test_an_artefact_opens_at_its_own_place_only() -> None:
    with pytest.raises(BackupDamagedError):
        unseal(seal(b"rows"), "erp/2/a")


def test_another_key_is_named_not_tried() -> None:
    with pytest.raises(TerminalError, match="is not at hand"):
        unseal(seal(b"rows"), keys=Keys.of(parse_key("OTHER", new_key())))


def test_a_variable_without_a_key_is_said_without_its_value() -> None:
    with pytest.raises(TerminalError, match="datops backup key") as refused:
        parse_key("BACKUP_KEY", "hunter2hunter2")
    assert "hunter2" not in str(refused.value)
