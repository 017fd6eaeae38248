"""Before anything runs, each thing amiss is one line that names it."""

import importlib.util
import os
import re
import shutil
from collections import namedtuple

import pytest

from hkd_core import check, stage
from hkd_core.common.errors import UserError
from hkd_core.common.root import find_root

GOOD = (find_root() / "params.yaml").read_text()

Usage = namedtuple("Usage", "total used free")


def test_a_good_place_passes():
    check.check(find_root())


def test_a_missing_package_is_named_with_what_to_do(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else found(name))
    with pytest.raises(UserError, match="missing package peft: .*make study"):
        check.check(find_root())


def test_a_folder_that_may_not_be_written_is_named(monkeypatch):
    root = find_root()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(str(root / "reports")))
    with pytest.raises(UserError, match="reports: no permission to write"):
        check.check(root)


def test_too_little_space_is_said_before_the_disk_is_full(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10, 10, 2**29))
    with pytest.raises(UserError, match="0.5 GiB free on this disk; the study needs 3"):
        check.check(find_root())


def test_a_stage_does_not_begin_where_its_outputs_and_their_copy_in_the_cache_do_not_fit(monkeypatch, tmp_path):
    (tmp_path / "dvc.lock").write_text("stages: {data@laptop: {outs: [{path: a, size: 104857600}, {path: b, size: 1048576}]}}")
    message = "120 MiB free on this disk; stage data@laptop needs 252, of which DVC's cache takes 101"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 120 * 2**20))
    with pytest.raises(UserError, match=message):
        stage.check_room(tmp_path, "data@laptop")
    stage.check_room(tmp_path, "figures@laptop")  # it never ran here
    (tmp_path / "reports/seeds").mkdir(parents=True)
    shutil.copy(tmp_path / "dvc.lock", tmp_path / "reports/seeds")
    with pytest.raises(UserError, match="stage reports/seeds/dvc.yaml:data@laptop needs 252"):
        stage.check_room(tmp_path, "reports/seeds/dvc.yaml:data@laptop")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 252 * 2**20))
    stage.check_room(tmp_path, "data@laptop")


@pytest.mark.parametrize("text", ["", "[]", "stages: 7", "stages: {a@b: 7}", "<<<<<<< ours", "stages: {a@b: {outs: [1]}}", "\t"])
def test_a_lock_file_that_is_none_is_named(tmp_path, text):
    (tmp_path / "dvc.lock").write_text(text)
    with pytest.raises(UserError, match=r"dvc\.lock: not a lock file of DVC"):
        stage.check_room(tmp_path, "a@b")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (GOOD, "", "empty"),
        (GOOD, "\0", "not YAML"),
        ("profile: laptop", "profile: [smoke]", "profile: expected one of"),
        ("profile: laptop", "profile: laptop\n7: 1", "7: expected a key that is text"),
        ("  laptop:", "  laptop: [1, 2]\n  old:", "profiles.laptop: expected keys and values, got [1, 2]"),
        ("seed: 0", f"seed: {2**70}", "seed: expected a whole number from 0 to 4294967295"),
        ("seed: 0", "seed: 0\nseed: 1", 'params.yaml:5: not YAML: key "seed" is given twice'),
        (
            "widths: {large: 128, medium: 96, small: 64}",
            "widths: {large: 128, small: 64}",
            "base_models.widths: expected at least the sizes",
        ),
        ("vision_width: 64", "vision_width: 7", "vision_width: expected a whole number of at least 32, a multiple of 32, got 7"),
        ("levels: [[large], [medium], [small]]", "levels: [[huge], [medium], [small]]", 'pyramid.levels: .*, got "huge"'),
        ("texts: [paraphrase,", "texts: [rhyme,", 'texts[0]: expected one of .*, got "rhyme"'),
        ("images: [jitter,", "images: [invert,", 'images[0]: expected one of .*, got "invert"'),
        ("labelled: 1600", "labelled: 12001", "labelled: expected at most train (12000), got 12001"),
        ("tuned: 480", "tuned: 1601", "tuned: expected at most labelled (1600), got 1601"),
        (
            "[noise, 900]",
            "[noise, 5000]",
            "distortions[1]: expected a whole number from 0 to 999 (a diffusion step) for noise, got 5000",
        ),
        ("[blur, 4]", "[blur, 0]", "distortions[2]: expected a sigma above 0 for blur, got 0"),
        ("noise: 0.2", "noise: .inf", "noise: expected a number from 0 to 1, got .inf"),
        ("gammas: [0.5,", "gammas: [.nan,", "gammas[0]: expected a number of at least 0, got .nan"),
    ],
)
def test_settings_that_would_fail_an_hour_later_are_refused_in_one_line(tmp_path, old, new, message):
    assert old in GOOD
    (tmp_path / "params.yaml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(message).replace(r"\.\*", ".*")) as error:
        check.check(tmp_path)
    assert "\n" not in str(error.value)
