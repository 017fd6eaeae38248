"""Several seeds: each in a clone of its own, and what they say together."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import binomtest, ttest_1samp

from hkd_core.common.errors import UserError
from hkd_core.evaluation.over_seeds import claim_rows, differences, gathered, seeds_markdown, spread, summary

STAGE = """\
stages:
  tables:
    cmd: mkdir -p reports/tiny/tables && python -c "import yaml; print('seed', yaml.safe_load(open('params.yaml'))['seed'])" > reports/tiny/tables/results.csv && cd reports/tiny/tables && cp results.csv comparisons.csv && cp results.csv outcomes.csv
    params: [seed]
    outs: [reports/tiny/tables/results.csv: {cache: false}, reports/tiny/tables/comparisons.csv: {cache: false}, reports/tiny/tables/outcomes.csv: {cache: false}]
"""
OUTCOMES = ", reports/tiny/tables/outcomes.csv: {cache: false}"


def command(*arguments, folder):
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True)


def committed(folder, message):
    assert command("git", "add", ".", folder=folder).returncode == 0
    assert command("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", message, folder=folder).returncode == 0


@pytest.fixture
def project(tmp_path):
    """A project of one stage, whose tables hold the seed."""
    (tmp_path / "dvc.yaml").write_text(STAGE)
    (tmp_path / "params.yaml").write_text("# settings\nseed: 0\nprofile: tiny\nprofiles: {tiny: {}}\n")
    (tmp_path / ".gitignore").write_text("build/\n")
    for step in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        assert command(*step, folder=tmp_path).returncode == 0
    committed(tmp_path, "begin")
    return tmp_path


def seeds_of(project, *seeds):
    return command(sys.executable, "-m", "hkd_core.seeds", "study", *map(str, seeds), folder=project)


def test_every_seed_runs_what_is_committed_and_its_tables_come_back(project):
    done = seeds_of(project, 3, 4)
    assert done.returncode == 0, done.stderr
    assert [(project / f"reports/tiny/seeds/study/{seed}-results.csv").read_text() for seed in (3, 4)] == ["seed 3\n", "seed 4\n"]
    assert (project / "params.yaml").read_text().startswith("# settings\nseed: 0\n")
    # With a later commit that changes no code, and other results in it, each seed keeps its own and runs nothing again.
    (project / "reports/tiny/tables").mkdir(parents=True)
    (project / "reports/tiny/tables/results.csv").write_text("seed 0\n")
    committed(project, "results of seed 0")
    again = seeds_of(project, 3)
    assert again.returncode == 0 and "Running stage" not in again.stdout
    assert (project / "reports/tiny/seeds/study/3-results.csv").read_text() == "seed 3\n"
    (project / "dvc.yaml").write_text(STAGE.replace("print('seed'", "print('grain'"))
    committed(project, "other code")
    assert seeds_of(project, 3).returncode == 0
    assert (project / "reports/tiny/seeds/study/3-results.csv").read_text() == "grain 3\n"


def test_seeds_refuse_what_is_not_committed_and_name_the_seed_that_failed(project):
    params = project / "params.yaml"
    params.write_text(params.read_text() + "# more\n")
    done = seeds_of(project, 1)
    assert done.returncode == 2 and done.stderr == "error: params.yaml: not committed; every seed runs what is committed\n"
    (project / "dvc.yaml").write_text(STAGE.replace("mkdir", "false && mkdir"))
    committed(project, "break")
    done = seeds_of(project, 1)
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: seed 1: stopped, see above")


def test_a_table_that_no_stage_wrote_is_named_in_one_line(project):
    (project / "dvc.yaml").write_text(STAGE.replace(" && cp results.csv outcomes.csv", "").replace(OUTCOMES, ""))
    committed(project, "no outcomes")
    done = seeds_of(project, 5)
    expected = "error: seed 5: expected the run to write build/seeds/5/reports/tiny/tables/outcomes.csv, it did not"
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == expected and "Traceback" not in done.stderr


def test_the_interval_over_seeds_is_students():
    values = [0.05, 0.02, 0.06]
    reference = ttest_1samp(values, 0).confidence_interval(0.95)
    found = spread(values)
    assert found["low"] == pytest.approx(reference.low) and found["high"] == pytest.approx(reference.high)
    with pytest.raises(ValueError, match="two seeds or more, got 1"):
        spread([0.1])


def test_only_what_every_seed_has_is_put_together():
    rows = pd.DataFrame({"model": ["b", "a", "b", "c"], "value": [1.0, 4.0, 3.0, 9.0], "seed": [0, 0, 1, 1]})
    found = summary(rows, ["model"], "value")
    assert list(found.model) == ["b"]
    assert found.loc[0, ["mean", "seed_0", "seed_1"]].to_list() == [2.0, 1.0, 3.0]


def test_pictures_of_all_seeds_are_tested_together():
    one = {"family": "others", "question": "better?", "a": "x", "b": "y"}
    rows = [
        one
        | {
            "benchmark": name,
            "difference": d,
            "fixed": 2 * fixed,
            "broken": 2 * broken,
            "better": fixed,
            "worse": broken,
            "seed": seed,
        }
        for name, pairs in {"task1": [(9, 1), (8, 2)], "task2": [(3, 3), (2, 4)]}.items()
        for seed, ((fixed, broken), d) in enumerate(zip(pairs, (0.1, 0.2), strict=True))
    ]
    found = differences(pd.DataFrame(rows)).set_index("benchmark")
    assert found.loc["task1", ["fixed", "broken", "better", "worse"]].to_list() == [34, 6, 17, 3]
    assert found.loc["task1", "p"] == pytest.approx(binomtest(17, 20).pvalue, rel=1e-3)
    # A family is what is asked of one benchmark; here each has one question.
    assert found.loc["task1", "p_holm"] == pytest.approx(found.loc["task1", "p"], abs=1e-4)


def test_one_seed_is_not_several(tmp_path: Path):
    (tmp_path / "0-results.csv").write_text("model,value\na,1\n")
    with pytest.raises(UserError, match="two seeds or more, found 1"):
        gathered(tmp_path, "results")


def test_seeds_made_by_different_code_are_not_put_together(tmp_path: Path):
    for seed, code in ((0, "x"), (10, "x"), (2, "x")):
        (tmp_path / f"{seed}-results.csv").write_text(f"model,value\na,{seed}\n")
        (tmp_path / f"{seed}-code.txt").write_text(code)
    assert list(gathered(tmp_path, "results").seed) == [0, 2, 10]
    (tmp_path / "2-code.txt").write_text("y")
    with pytest.raises(UserError, match="not all seeds were made by the same code"):
        gathered(tmp_path, "results")


def test_a_reader_sees_means_with_deviations_goals_met_and_every_comparison():
    row = {"model": "m", "decoding": "shift", "benchmark": "task1", "metric": "macro_f1"}
    values = summary(pd.DataFrame([row | {"value": v, "seed": s} for s, v in enumerate((0.5, 0.7))]), list(row), "value")
    goals = [{"check": "gain (goal: above 0)", "value": v, "met": met, "seed": s} for s, (v, met) in enumerate(((0.2, "yes"), (-0.1, "no")))]
    one = {"family": "others", "question": "better?", "a": "x greedy", "b": "y greedy", "benchmark": "task1"}
    one |= {"fixed": 20, "broken": 2, "better": 20, "worse": 2}
    changes = differences(pd.DataFrame([one | {"difference": d, "seed": s} for s, d in enumerate((0.1, 0.3))]))
    means, outcomes, compared = (table.splitlines()[2:] for table in seeds_markdown(values, pd.DataFrame(goals), changes).split("\n\n"))
    assert means[0].startswith("| `m` + shift | 0.600 ± 0.141 |  |")
    assert outcomes == ["| gain (goal: above 0) | 0.050 | 0.200 | -0.100 | 1 of 2 seeds |"]
    assert compared[0].startswith("| better? | x greedy | y greedy | task1 | +0.200 | ") and "| +0.100 | +0.300 | 40 / 4 |" in compared[0]
    [claim] = claim_rows(changes, [("x greedy", "y greedy", "x over y")], ["task1"])
    assert claim["task1"]["mean"] == pytest.approx(0.2) and list(claim) == ["task1"]
