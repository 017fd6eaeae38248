"""Before anything runs, each thing amiss is one line that names it."""

import importlib.util
import os
import shutil
from collections import namedtuple

import pytest

from hkd_core import check
from hkd_core.common.errors import UserError
from hkd_core.common.root import find_root

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
