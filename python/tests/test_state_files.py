"""What workers read of a state directory whose files were cut short or damaged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oomguard._owner import Owner
from oomguard._state import Deaths, Study, register, studies

ONE, TWO = (Study("/usr/bin/python3", "sqlite:///x.db", name, "/w") for name in ("first", "second"))


def death(number: int) -> str:
    line = {"job": f"r/w#{number}", "boot_id": "b", "pid": number, "start_time": 9, "cause": "limit", "own": True}
    return json.dumps({**line, "available_gb": 1.5, "usage_gb": None, "limit_gb": 8.0}) + "\n"


def owner(number: int) -> Owner:
    return Owner(host="h", machine="m", boot="b", pidns="n", pid=number, start=9)


def test_a_study_is_registered_after_a_line_that_was_cut_short_anywhere(tmp_path: Path) -> None:
    register(str(tmp_path), ONE)
    file = tmp_path / "studies.jsonl"
    whole = file.read_bytes()
    for end in range(len(whole) + 1):
        file.write_bytes(whole[:end])
        register(str(tmp_path), TWO)
        # Only its line feed may be missing of a line that is whole.
        assert studies(str(tmp_path)) == ([ONE, TWO] if end >= len(whole) - 1 else [TWO]), end


def test_a_flipped_byte_costs_a_study_only_its_own_line(tmp_path: Path) -> None:
    register(str(tmp_path), ONE)
    register(str(tmp_path), TWO)
    file = tmp_path / "studies.jsonl"
    whole = file.read_bytes()
    first = whole.index(b"\n")
    for at in range(len(whole)):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
            found = studies(str(tmp_path))
            assert at <= first or ONE in found, (at, flip)
            assert at >= first or TWO in found, (at, flip)


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"pid": 1e999, "start_time": 9, "cause": "limit", "boot_id": "b", "job": "x"}',
        '{"pid": 3, "start_time": 9, "cause": "limit", "boot_id": "b", "job": "x", "limit_gb": 1%s}' % ("0" * 400),
        '{"pid": [], "cause": {}}',
        "\x00\x01",
        "",
    ],
    ids=["deep", "no-pid", "no-size", "other-types", "control", "empty"],
)
def test_a_line_that_means_nothing_costs_no_other(tmp_path: Path, line: str) -> None:
    (tmp_path / "deaths.jsonl").write_text(death(1) + line + "\n" + death(2))
    deaths = Deaths(str(tmp_path))
    assert [deaths.of(owner(number)) is not None for number in (1, 2)] == [True, True]


def test_deaths_cut_short_anywhere_are_read_up_to_there(tmp_path: Path) -> None:
    whole = death(1) + death(2)
    for end in range(len(whole)):
        (tmp_path / "deaths.jsonl").write_text(whole[:end])
        deaths = Deaths(str(tmp_path))
        known = [deaths.of(owner(number)) is not None for number in (1, 2)]
        assert known == [end >= len(death(1)) - 1, end >= len(whole) - 1], end


def test_a_file_without_an_end_is_read_from_its_end_only(tmp_path: Path) -> None:
    file = tmp_path / "deaths.jsonl"
    with file.open("wb") as deaths:
        deaths.seek(1 << 32)  # a hole: 4 GiB that hold nothing
        deaths.write(b"\n" + death(7).encode())
    assert Deaths(str(tmp_path)).of(owner(7)) is not None


def test_a_link_in_the_place_of_the_studies_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "studies.jsonl").symlink_to(precious)
    with pytest.raises(OSError, match=r"studies\.jsonl"):
        register(str(tmp_path), ONE)
    assert precious.read_text() == "precious"
