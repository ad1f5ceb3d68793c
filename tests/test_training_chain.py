"""From the world through both trainings to a snapshot that the pipeline runs, with networks that learnt nothing yet."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # autograd's threads wait by spinning, which a busy machine cannot spare

from support import a_sampling  # noqa: E402

from mlx_backend.weights.checkpoints.snapshot import Snapshot  # noqa: E402
from training import evaluate, prepare, train_dit, vae  # noqa: E402
from training.dit import DiT  # noqa: E402
from training.frozen import write_frozen  # noqa: E402
from training.groups import CELL, TEXT_ROWS, Groups, drawn_group, shards  # noqa: E402
from training.sizes import DIT, HELD_OUT, VAE  # noqa: E402
from training.snapshot import averaged, unpack, write_snapshot  # noqa: E402
from training.stage import Muon, Stage  # noqa: E402
from world.scenes import Group  # noqa: E402


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with two shards, of two groups and of one, encoded by an untrained VAE."""
    folder = tmp_path_factory.mktemp("run")
    write_frozen(folder / "frozen")
    torch.manual_seed(0)
    network = vae.VAE(VAE).eval()
    torch.save({"network": network.state_dict(), "step": 3}, folder / "vae.pt")
    seeds = range(HELD_OUT, HELD_OUT + 3)
    groups = [prepare.encoded(network, g, "cpu") for g in prepare.drawn_groups(folder / "frozen", seeds, 0)]
    for number, shard in enumerate((groups[:2], groups[2:])):
        together = {name: torch.stack([g[name] for g in shard]) for name in groups[0]}
        torch.save(together, folder / f"groups-000{number}.pt")
    return folder


def test_examples_are_what_the_modes_say(run):
    groups = Groups(shards(run)[:1], "cpu")
    drawn = groups.draw(64, torch.Generator().manual_seed(1), extras=1)
    batch = drawn.batch
    assert drawn.clean.shape == (64, 16, 3, 12, 12)
    assert batch.references.shape == (64, 2, 16, 12, 12) and batch.reference_masks.shape == (64, 2, 28, 12, 12)
    assert batch.driving.shape == (64, 16, 3, 6, 6) and batch.driving_mask.shape == (64, 28, 3, 6, 6)
    white = batch.reference_masks[:, -1, 0].amax(dim=(1, 2)) > 0  # channel 0: white, the background that is kept
    assert torch.equal(white, ~batch.replacement)
    assert torch.equal(batch.driving_mask[:, 0, 0].amax(dim=(1, 2)) > 0, batch.replacement)
    assert not batch.reference_masks[:, 0, 0].any()  # extra references stand on black
    assert batch.replacement.any() and not batch.replacement.all()
    assert (batch.history[:, -1] == 0).all() and batch.history.any()
    assert batch.text.any() and batch.text.shape[1] == TEXT_ROWS
    assert drawn.covered.shape == (64, 1, 3, 12, 12)
    assert 0.05 < drawn.covered.mean() < 0.5 and drawn.covered.max() == 1


def test_a_group_holds_what_its_world_has(run):
    seed = HELD_OUT + 1
    made = drawn_group(seed, prepare._encoders(run / "frozen"))
    group = Group.random(seed)
    assert np.array_equal(made["clips"][3], group.clip(1, 1, np.arange(9), 96).pictures)
    assert np.array_equal(made["pictures"][5], group.picture(1, 0, 1, 96).pictures)
    outside = ~(group.picture(1, 0, 1, 96).labels[0] > 0)
    assert not made["alone"][3][0][outside].any()
    cells = made["picture_masks"].astype(int).reshape(8, 4, 7, 1, 12, 12).sum(axis=2)
    assert (cells[1::2] == CELL).all()  # on white, every pixel has a colour
    assert (cells[0::2].sum() < cells[1::2].sum()) and made["text"].any()


def test_the_longest_caption_has_room():
    captions = (Group.random(seed, 3).caption(1, 1) for seed in range(300))
    assert max(len(caption.split()) for caption in captions) < TEXT_ROWS  # and one more for the end


def test_a_stage_continues_where_the_last_one_stopped(run, tmp_path):
    groups = Groups(shards(run)[:1], "cpu")

    def stage():
        torch.manual_seed(5)
        network = DiT(replace(DIT, num_layers=1))
        optimiser = Muon(network, lambda name: not name.startswith("blocks.") or "modulation" in name)
        made = Stage(network, optimiser, tmp_path / "dit.pt", 60, 1e-3)
        made.resume()
        return made

    first = stage()
    random = torch.Generator().manual_seed(0)
    examples = groups.draw(4, random, extras=0)
    before = train_dit.flow_loss(first.network, examples, torch.Generator().manual_seed(9)).item()
    for _ in range(3):
        first.advance(train_dit.flow_loss(first.network, examples, torch.Generator().manual_seed(9)))
    after = train_dit.flow_loss(first.network, examples, torch.Generator().manual_seed(9)).item()
    assert after < before
    first.save()
    second = stage()
    assert second.step == 3
    for mine, theirs in zip(first.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_training_tells_the_loss_on_what_it_keeps_back(run, tmp_path, monkeypatch, capsys):
    torch.manual_seed(5)
    network = DiT(replace(DIT, num_layers=1))
    stage = Stage(network, Muon(network, lambda name: True), tmp_path / "dit.pt", 0.02, 1e-3)
    stage.resume()
    monkeypatch.setattr(train_dit, "TELL_EVERY", 0)
    train_dit.train(stage, network, run, 2, "cpu")
    told = capsys.readouterr().out.splitlines()
    assert "on 1 groups" in told[0] and told[0].endswith("on the shard kept back")
    kept = Groups(shards(run)[:1], "cpu")
    assert len(kept) == 2 and train_dit.kept_loss(network, kept, 2) == train_dit.kept_loss(network, kept, 2)
    assert (tmp_path / "dit.pt").is_file()


def test_one_shard_is_not_enough_to_train_on(tmp_path):
    (tmp_path / "groups-0000.pt").touch()
    with pytest.raises(FileNotFoundError, match=r"holds 1 groups-\*.pt"):
        shards(tmp_path)


def test_what_is_exported_runs_in_the_pipeline(run, tmp_path, listener):
    torch.manual_seed(6)
    network = DiT(DIT)
    torch.save({"network": network.state_dict(), "step": 4}, run / "dit.pt")
    folder, again = tmp_path / "snapshot", tmp_path / "again"
    write_snapshot(run, folder, dense=False)
    assert Snapshot.open(folder).settings["num_heads"] == DIT.num_heads
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    unpack(folder, again)
    for component in ("vae", "dit"):
        ours, theirs = (averaged(where / f"{component}.pt") for where in (run, again))
        assert ours.keys() == theirs.keys()
        assert all((ours[name] - theirs[name]).abs().max() <= 0.005 * ours[name].abs().max() + 1e-6 for name in ours)
    made = evaluate.example(1, "replacement")
    judge = evaluate.Judge(folder, a_sampling(steps=1))
    assert judge.frames(made).shape == made.driving.shape
