"""Nothing half-written is taken for whole, and what was done before is not done again."""

import json
import os

import pytest

from hkd_core.common.errors import UserError
from hkd_core.common.files import fingerprint, read_jsonl, resumed, write_folder, write_text


def test_a_failed_write_leaves_the_old_folder_as_it_was(tmp_path):
    write_text(tmp_path / "models/old.txt", "old")

    def fail(folder):
        (folder / "half.txt").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_folder(tmp_path / "models", fail)
    assert [p.name for p in tmp_path.iterdir()] == ["models"] and (tmp_path / "models/old.txt").read_text() == "old"


def test_a_folder_is_swapped_whole_and_comes_back_if_the_swap_fails(tmp_path, monkeypatch):
    place = tmp_path / "models"
    for name in ("old", "new"):
        write_folder(place, lambda folder, name=name: write_text(folder / name, ""))
    assert [p.name for p in tmp_path.iterdir()] == ["models"] and [p.name for p in place.iterdir()] == ["new"]
    rename, done = os.replace, []

    def stumble(source, target):
        done.append(source)
        if len(done) == 2:  # the old folder is aside, the new one not yet in its place
            raise OSError("disk gone")
        rename(source, target)

    monkeypatch.setattr(os, "replace", stumble)
    with pytest.raises(UserError, match="models: cannot be written: disk gone"):
        write_folder(place, lambda folder: (folder / "third").write_text(""))
    assert [p.name for p in tmp_path.iterdir()] == ["models"] and [p.name for p in place.iterdir()] == ["new"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/results.csv: cannot be written"):
        write_text(tmp_path / "file/results.csv", "a,b")


def test_lines_end_at_newlines_alone(tmp_path):
    rows = [{"text": "one\u2028two\x85three"}, {"text": "four"}]
    path = write_text(tmp_path / "a.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert [row for _, row in read_jsonl(path)] == rows


def test_done_work_is_taken_up_again_only_under_the_same_key(tmp_path):
    done = []

    def work():
        done.append(1)
        return [{"answer": "Yes"}]

    for key, times in (("a", 1), ("a", 1), ("b", 2), ("a", 3)):
        assert resumed(tmp_path / "kept.jsonl", key, work) == [{"answer": "Yes"}]
        assert len(done) == times


def test_a_fingerprint_changes_with_a_file_its_name_and_the_settings(tmp_path):
    write_text(tmp_path / "a/x.txt", "1")
    found = {fingerprint(tmp_path / "a", seed=0)}
    assert found == {fingerprint(tmp_path / "a", seed=0)}
    found.add(fingerprint(tmp_path / "a", seed=1))
    write_text(tmp_path / "a/x.txt", "2")
    found.add(fingerprint(tmp_path / "a", seed=0))
    (tmp_path / "a/x.txt").rename(tmp_path / "a/y.txt")
    found.add(fingerprint(tmp_path / "a", seed=0))
    assert len(found) == 4
