"""A training that is killed goes on from its last checkpoint, and ends with the bytes of one that was never disturbed."""

import random

import pytest
import torch
from torch import nn

from hkd_core.common.files import CHECKPOINTS
from hkd_core.common.params import chosen_profile
from hkd_core.common.root import find_root
from hkd_core.stage import checkpoints_of
from hkd_core.training import checkpoints
from hkd_core.training.trainer import LossTerm, Schedule, train


class Noisy(nn.Module):
    """A training in which everything that must be kept matters: dropout, noise of two kinds, buffers, momentum of both optimisers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 4)])
        self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, batch):
        x = batch["x"] + 0.1 * torch.randn_like(batch["x"]) + 0.1 * random.random()
        for layer in self.layers:
            x = layer(x)
        return {"squares": LossTerm((x - self.frozen).square().sum())}


class Killed(Exception):
    pass


STEPS = 30
SCHEDULE = Schedule(STEPS, 8, 1e-2, optimizer="muon")


def points(indices):
    x = torch.tensor([[i / 50, (i % 7) / 7, (i % 5) / 5, 1.0] for i in indices])
    return {"x": x, "tokens": len(x)}


def trained(*, kill_at=None, seed=0, schedule=SCHEDULE, until=0.0, steps_seen=None):
    """(weights and buffers, history, state of the random numbers afterwards)."""

    def callback(step):
        if steps_seen is not None:
            steps_seen.append(step)
        if step == kill_at:
            raise Killed

    torch.manual_seed(3)
    random.seed(4)
    model = Noisy()
    history = train(model, points, 50, schedule, seed=seed, callback=callback, until=until)
    return model.state_dict(), history, torch.get_rng_state(), random.getstate()


def same(one, two):
    weights = all(torch.equal(tensor, two[0][name]) for name, tensor in one[0].items())
    return weights and one[1] == two[1] and torch.equal(one[2], two[2]) and one[3] == two[3]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CHECKPOINTS, str(tmp_path / "kept"))
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    return tmp_path / "kept"


@pytest.mark.parametrize("kill_at", [0, 1, 2, 13, STEPS - 1])
def test_a_killed_training_resumes_to_the_same_bytes(folder, monkeypatch, kill_at):
    with monkeypatch.context() as without:
        without.delenv(CHECKPOINTS)
        expected = trained()
    with pytest.raises(Killed):
        trained(kill_at=kill_at)
    seen = []
    assert same(trained(steps_seen=seen), expected)
    # The checkpoint is written after the callback, so the step in which it was killed is done again.
    assert seen == list(range(max(kill_at - 1, 0), STEPS))


def test_a_training_that_ended_is_not_done_again(folder):
    expected, seen = trained(), []
    assert same(trained(steps_seen=seen), expected) and seen == [STEPS - 1]
    assert [path.name for path in folder.rglob("*.pt")] == [f"step-{STEPS:09d}.pt"]


def test_a_training_that_stops_early_is_not_prolonged(folder):
    expected, seen = trained(until=1e9), []
    assert len(expected[1]) == 1 and same(trained(until=1e9, steps_seen=seen), expected) and seen == [STEPS - 1]


def test_the_last_two_checkpoints_are_kept_and_a_corrupt_one_is_named(folder, capsys):
    expected = trained()
    for path in folder.rglob("*.pt"):
        path.unlink()
    with pytest.raises(Killed):
        trained(kill_at=9)
    older, newer = sorted(folder.rglob("*.pt"))
    assert (older.name, newer.name) == ("step-000000008.pt", "step-000000009.pt")
    damaged = bytearray(newer.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newer.write_bytes(damaged)
    seen = []
    assert same(trained(steps_seen=seen), expected) and seen[0] == 7
    assert f"warning: {newer}: not used: its checksum is wrong\n" in capsys.readouterr().err


def test_with_every_checkpoint_cut_off_training_starts_anew(folder):
    expected = trained()
    for path in folder.rglob("*.pt"):
        path.write_bytes(path.read_bytes()[:10])
    seen = []
    assert same(trained(steps_seen=seen), expected) and seen == list(range(STEPS))


@pytest.mark.parametrize("change", [{"seed": 1}, {"schedule": Schedule(STEPS, 8, 2e-2, optimizer="muon")}])
def test_another_training_does_not_resume_from_it(folder, change):
    with pytest.raises(Killed):
        trained(kill_at=9)
    seen = []
    trained(**change, steps_seen=seen)
    assert seen == list(range(STEPS))


class Aimed(Noisy):
    def __init__(self, aim, how):
        super().__init__()
        self.aim, self.how = aim, how

    def forward(self, batch):
        return {"squares": LossTerm((super().forward(batch)["squares"].total - self.aim).square())}


def test_trainings_of_one_title_that_differ_in_a_setting_or_in_their_data_do_not_share_a_checkpoint(folder):
    """As the variants of an ablation do, one after the other in one stage."""

    def done(aim=5.0, how=(), scale=1.0):
        torch.manual_seed(3)
        model, seen = Aimed(aim, how), []
        train(model, lambda rows: {"x": points(rows)["x"] * scale, "tokens": len(rows)}, 50, SCHEDULE, seed=0, callback=seen.append)
        return len(seen)

    changes = [{}, {"aim": -5.0}, {"how": ("gate",)}, {"scale": 2.0}]
    assert [done(**change) for change in changes] == [STEPS] * 4
    assert [done(**change) for change in changes] == [1] * 4  # each finds the one that it left


def test_another_precision_or_number_of_threads_does_not_resume(folder, monkeypatch):
    before = torch.get_num_threads()
    for change in ({}, {"precision": "bf16"}, {"threads": before + 1}):
        monkeypatch.setenv("HKD_PRECISION", change.get("precision", "float32"))
        torch.set_num_threads(change.get("threads", before))
        seen = []
        trained(steps_seen=seen)
        torch.set_num_threads(before)
        assert seen == list(range(STEPS))


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_training(folder, capsys):
    folder.write_text("a file where the folder should be")
    seen = []
    trained(steps_seen=seen)
    assert seen == list(range(STEPS)) and "the training goes on without a checkpoint" in capsys.readouterr().err


def test_without_the_pipeline_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv(CHECKPOINTS, raising=False)
    monkeypatch.chdir(tmp_path)
    trained()
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def project(tmp_path):
    for name in ("hkd_core/a.py", "build/code/05_pyramid.py", "data/smoke/x", "models/smoke/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    text = (find_root() / "params.yaml").read_text().replace(f"profile: {chosen_profile()}", "profile: smoke")
    (tmp_path / "params.yaml").write_text(text)
    return tmp_path


def interrupted(root, *more, stage="pyramid@smoke"):
    """The folder that a stage which is killed leaves."""
    with pytest.raises(Killed), checkpoints_of(root, stage, more) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        raise Killed
    return folder


def test_a_stage_finds_its_checkpoints_again_and_removes_them_when_it_ends(project):
    folder = interrupted(project)
    assert folder == interrupted(project) and folder.is_dir()
    (project / "models/smoke/.half").write_text("what a killed write has left")
    with checkpoints_of(project, "pyramid@smoke", ()) as again:
        assert again == folder and folder.is_dir()
    assert not folder.exists()


@pytest.mark.parametrize("changed", ["hkd_core/a.py", "build/code/05_pyramid.py", "data/smoke/x", "models/smoke/y", "params.yaml", None])
@pytest.mark.parametrize("stage", ["pyramid@smoke", "reports/seeds/dvc.yaml:ablations@smoke"])
def test_a_stage_does_not_find_those_of_a_run_with_anything_else(project, changed, stage):
    folder = interrupted(project, stage=stage)
    if changed == "params.yaml":
        (project / changed).write_text((project / changed).read_text().replace("seed: 0", "seed: 1"))
    elif changed:
        (project / changed).write_text("after")
    assert interrupted(project, *[] if changed else ["overrides.steps=3"], stage=stage) != folder
    assert not folder.exists()
