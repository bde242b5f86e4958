"""``save`` and ``load``: the old file or the new one, never less; a damaged file changes nothing."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from oomguard.replay import Buffer, Column

ROW = {"state": 3, "action": Column((), "uint8")}


def filled(capacity, rows, first=0):
    buffer = Buffer(capacity, ROW)
    for number in range(first, first + rows):
        buffer.push([number] * 3, number % 256)
    return buffer


def states(buffer):
    return [int(state[0]) for piece in buffer.pieces() for state in buffer["state"][piece]]


@pytest.mark.parametrize(("capacity", "rows"), [(5, 0), (5, 3), (5, 5), (5, 8), (1, 1)])
def test_what_was_saved_is_loaded_oldest_first(tmp_path, capacity, rows):
    buffer = filled(capacity, rows)
    path = tmp_path / "history.npz"
    buffer.save(path)
    assert os.listdir(tmp_path) == ["history.npz"]
    for other in (filled(capacity, 2, first=100), Buffer(capacity + 4, ROW)):
        other.load(path)
        assert states(other) == states(buffer) == list(range(rows))[-capacity:]
        other.push([9, 9, 9], 9)
        assert states(other) == [*states(buffer), 9][-other.capacity :]
    with np.load(path, allow_pickle=False) as archive:
        assert archive["state"][:, 0].astype(int).tolist() == states(buffer)
        assert archive["action"].dtype == np.uint8


def test_the_same_rows_make_the_same_file(tmp_path):
    filled(4, 6).save(tmp_path / "one")
    filled(4, 6).save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_file_cut_anywhere_is_refused_and_nothing_is_lost(tmp_path):
    path = tmp_path / "history.npz"
    filled(20, 20).save(path)
    whole = path.read_bytes()
    buffer = filled(20, 7, first=100)
    for length in [*range(0, len(whole), 3), *range(len(whole) - 64, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cannot be loaded, and nothing was changed"):
            buffer.load(path)
        assert states(buffer) == list(range(100, 107))
    path.write_bytes(whole)
    buffer.load(path)
    assert states(buffer) == list(range(20))


def test_a_flipped_bit_is_refused_or_does_not_matter(tmp_path):
    path = tmp_path / "history.npz"
    filled(20, 20).save(path)
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        buffer = filled(20, 7, first=100)
        try:
            buffer.load(path)
        except ValueError:
            refused += 1
            assert states(buffer) == list(range(100, 107))
        else:
            assert states(buffer) == list(range(20)), f"byte {place}"
    assert refused > 20 * 13, "at least every byte of the rows"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_flipped_bit_far_inside_a_large_file_is_found_before_anything_changes(tmp_path, share):
    """In a small one reading the header already reads all."""
    path = tmp_path / "history.npz"
    large = Buffer(100_000, {"state": 3})
    large.extend(np.ones((100_000, 3)))
    large.save(path)
    with open(path, "r+b") as file:
        file.seek(int(share * path.stat().st_size))
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    other = Buffer(100_000, {"state": 3})
    other.push([7, 7, 7])
    with pytest.raises(ValueError, match=r"`state\.npy` has a wrong checksum"):
        other.load(path)
    assert states(other) == [7]


@pytest.mark.parametrize(
    ("columns", "said"),
    [({"state": 3}, "expected the columns state, found action, state"),
     ({"state": 4, "action": Column((), "uint8")}, r"column `state`: expected rows \(4,\) of float32, found \(3,\)"),
     ({"state": Column((3,), "float64"), "action": Column((), "uint8")}, "of float64, found .* of float32")],
)  # fmt: skip
def test_other_columns_are_refused(tmp_path, columns, said):
    filled(5, 5).save(tmp_path / "history.npz")
    with pytest.raises(ValueError, match=said):
        Buffer(5, columns).load(tmp_path / "history.npz")


def test_more_rows_than_the_capacity_are_refused(tmp_path):
    filled(5, 5).save(tmp_path / "history.npz")
    with pytest.raises(ValueError, match="it has 5 rows, and the capacity is 4"):
        Buffer(4, ROW).load(tmp_path / "history.npz")


def test_no_file_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Buffer(4, ROW).load(tmp_path / "absent")


KILLED = """
import os, signal, sys, zipfile
from oomguard.replay import Buffer
path, step = sys.argv[1], int(sys.argv[2])
buffer = Buffer(50, {"state": 3})
buffer.extend([[1, 1, 1]] * 50)
buffer.save(path)

def counted(call):
    def wrapper(*args, **named):
        global step
        step -= 1
        if step == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **named)
    return wrapper

zipfile._ZipWriteFile.write = counted(zipfile._ZipWriteFile.write)
zipfile._ZipWriteFile.close = counted(zipfile._ZipWriteFile.close)
zipfile.ZipFile.close = counted(zipfile.ZipFile.close)
os.fsync, os.replace = counted(os.fsync), counted(os.replace)
buffer.extend([[2, 2, 2]] * 50)
buffer.save(path)
"""


def test_a_kill_at_any_step_of_a_save_leaves_the_old_or_the_new(tmp_path, run):
    """SIGKILL before every write, sync and rename of the second save, one after another, until it gets through."""
    path = tmp_path / "history.npz"
    buffer = Buffer(50, {"state": 3})
    found = []
    for step in range(1, 40):
        result = run(KILLED, str(path), str(step))
        buffer.load(path)
        assert len(buffer) == 50
        assert len(set(buffer["state"].reshape(-1).tolist())) == 1, "one version, whole"
        found.append(int(buffer["state"][0, 0]))
        assert set(os.listdir(tmp_path)) <= {"history.npz", "history.npz.part"}, "one leftover at most"
        if result.returncode == 0:
            break
        assert result.returncode == -signal.SIGKILL, result.stderr
    assert result.returncode == 0
    assert step > 6, "it was killed in the middle, too"
    assert found[0] == 1
    assert found == sorted(found), "old, old, ..., new"
    assert not (tmp_path / "history.npz.part").exists(), "the leftover was used"


def test_who_reads_the_old_file_reads_it_to_its_end(tmp_path):
    path = tmp_path / "history.npz"
    filled(5, 5).save(path)
    whole = path.read_bytes()
    with open(path, "rb") as reader:
        filled(50, 50, first=50).save(path)
        assert reader.read() == whole
    assert path.read_bytes() != whole


def test_a_leftover_of_a_killed_save_is_overwritten_whole(tmp_path):
    (tmp_path / "history.npz.part").write_bytes(b"x" * 100_000)
    filled(5, 5).save(tmp_path / "history.npz")
    filled(5, 5).save(tmp_path / "fresh.npz")
    assert (tmp_path / "history.npz").read_bytes() == (tmp_path / "fresh.npz").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["fresh.npz", "history.npz"]


def test_savers_of_one_file_take_turns(tmp_path):
    """Eight threads save different histories to one path: whole files only, nobody's error."""
    path = tmp_path / "history.npz"
    errors = []

    def save(number):
        try:
            for _ in range(5):
                filled(5, 5, first=10 * number).save(path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    buffer = Buffer(5, ROW)
    buffer.load(path)
    assert states(buffer)[0] % 10 == 0
    assert states(buffer) == list(range(states(buffer)[0], states(buffer)[0] + 5))
    assert os.listdir(tmp_path) == ["history.npz"]


def test_an_error_in_a_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "history.npz"
    filled(5, 5).save(path)
    whole = path.read_bytes()

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        filled(5, 5, first=50).save(path)
    assert path.read_bytes() == whole
    assert os.listdir(tmp_path) == ["history.npz"]


def test_a_link_in_the_place_of_the_part_is_not_emptied(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "replay.npz.part").symlink_to(tmp_path / "precious")
    buffer = Buffer(4, {"x": 1}, seed=0)
    buffer.push(x=np.zeros(1))
    with pytest.raises(OSError, match=r"replay\.npz\.part"):
        buffer.save(tmp_path / "replay.npz")
    assert (tmp_path / "precious").read_text() == "precious"
