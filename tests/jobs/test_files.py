"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from minillm_lab.jobs.errors import LabError
from minillm_lab.jobs.files import check_sha256, sha256_of, write_text, written_whole


def test_a_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_text(target, "good\n")
    with pytest.raises(RuntimeError), written_whole(target) as part:
        part.write_text("half")
        raise RuntimeError
    assert target.read_text() == "good\n"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    for name in ("old", "new"):
        with written_whole(target) as part:
            part.mkdir()
            (part / name).touch()
    assert [file.name for file in target.iterdir()] == ["new"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"cannot write .*file"):
        write_text(tmp_path / "file" / "result.json", "x")


def test_a_wrong_checksum_says_which_file_and_both_sums(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    check_sha256(file, sha256_of(file).upper(), "weights")
    with pytest.raises(LabError, match=f"the wheel: sha256 is {sha256_of(file)}, expected 00"):
        check_sha256(file, "00" * 32, "the wheel")


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".result.json.abc.part"
    left.mkdir()
    (left / "result.json").write_text("half")
    write_text(tmp_path / "result.json", "good")
    assert [file.name for file in tmp_path.iterdir()] == ["result.json"]
