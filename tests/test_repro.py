"""`dvc repro` under another profile: the profile reaches the pipeline, and params.yaml is put back."""

import subprocess
import sys

import pytest

from hkd_core.common.errors import UserError
from hkd_core.repro import with_profile

PARAMS = '# settings\nprofile: "large"  # the usual one\nseed: 0\nprofiles:\n  large: {}\n  tiny: {}\n'
STAGE = """\
stages:
  note:
    matrix: {profile: ["${profile}"]}
    cmd: COMMAND
    outs: ["reports/${profile}/note": {cache: false}]
"""


@pytest.fixture
def project(tmp_path):
    """Makes a project whose one stage runs a shell command."""

    def make(command):
        (tmp_path / "dvc.yaml").write_text(STAGE.replace("COMMAND", command))
        (tmp_path / "params.yaml").write_text(PARAMS)
        for step in (["init", "-q", "--no-scm"], ["config", "core.autostage", "false"]):
            subprocess.run([sys.executable, "-m", "dvc", *step], cwd=tmp_path, check=True)
        return tmp_path

    return make


def repro(folder, *arguments):
    return subprocess.run([sys.executable, "-m", "hkd_core.repro", *arguments], cwd=folder, capture_output=True, text=True)


def test_the_pipeline_runs_with_the_profile_and_params_yaml_is_put_back(project):
    folder = project("mkdir -p reports/${profile} && grep ^profile params.yaml > reports/${profile}/note")
    done = repro(folder, "tiny")
    assert done.returncode == 0, done.stderr
    assert (folder / "reports/tiny/note").read_text().startswith("profile: tiny")
    assert (folder / "params.yaml").read_text() == PARAMS
    assert "Running stage" not in repro(folder, "tiny").stdout


def test_a_run_that_fails_puts_params_yaml_back_and_keeps_what_was_written_meanwhile(project):
    folder = project("echo '# a note' >> params.yaml && false")
    assert repro(folder, "tiny").returncode != 0
    assert (folder / "params.yaml").read_text() == PARAMS + "# a note\n"


def test_an_unknown_profile_is_one_line(project):
    done = repro(project("true"), "huge")
    assert done.returncode == 2 and done.stderr == 'error: profile: expected one of large, tiny, got "huge"\n'


def test_a_file_without_one_line_for_the_profile_is_refused():
    with pytest.raises(UserError, match="one line that begins with `profile:`, found 0"):
        with_profile("seed: 0\n", "tiny")
