"""Drafts: half the size, the first frames, and the noise and framing of the full run."""

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from support import (
    GOLDENS,
    Golden,
    a_sampling,
    a_scene,
    generate,
    golden_cases,
    golden_file,
    golden_prompts,
    golden_scene,
    golden_settings,
)
from test_nodes import decoded, sampled

from mlx_backend.cli.main import main
from mlx_backend.interface.draft import DRAFT_FRAMES, draft_size
from mlx_backend.interface.geometry import LatentSize
from mlx_backend.members.scail2.draft import drafted
from mlx_backend.members.scail2.prepared import prepare_run
from mlx_backend.members.scail2.scene import prepare_scene
from mlx_backend.pipelines import denoising
from mlx_backend.pipelines.continuing import Continuing
from mlx_backend.sampling.noise import TorchNoise, drafted_noise

FULL = LatentSize.of_pixels(81, 832, 480).shape


@pytest.mark.parametrize(
    ("full", "draft"),
    [
        ((896, 512), (448, 256)),
        ((832, 480), (416, 224)),  # 240 is 7.5 times 32
        ((1280, 704), (640, 352)),
        ((480, 832), (224, 416)),
        ((96, 64), (32, 32)),
        ((64, 64), (32, 32)),
        ((32, 32), (32, 32)),
        ((512, 32), (512, 32)),  # one side cannot be halved, and the proportions stay
    ],
)
def test_sizes_are_halved_to_multiples_of_32(full, draft):
    assert draft_size(*full) == draft


# Noise


@pytest.fixture(scope="module")
def full_noise():
    return TorchNoise(5).draw(FULL)


def test_the_noise_of_a_draft_is_normal(full_noise):
    """About 210,000 independent values: bars are five standard errors of each statistic of a normal sample."""
    noise = drafted_noise(full_noise, LatentSize.of_pixels(33, 416, 224).shape)
    assert noise.shape == (16, 9, 28, 52)
    assert noise.dtype == np.float32
    bar = 5 / math.sqrt(noise.size)
    assert abs(noise.mean()) < bar
    assert abs((noise**2).mean() - 1) < bar * math.sqrt(2)
    assert abs((noise**3).mean()) < bar * math.sqrt(15)
    assert abs((noise**4).mean() - 3) < bar * math.sqrt(96)
    for a, b in ((noise[..., 1:], noise[..., :-1]), (noise[:, :, 1:], noise[:, :, :-1]), (noise[:, 1:], noise[:, :-1])):
        assert abs((a * b).mean()) < 1.1 * bar  # neighbours know nothing of each other; some have none


def test_the_noise_of_a_draft_is_that_of_the_run_at_the_same_place(full_noise):
    """Every value is half the sum of the four values there: all of their mean, and a correlation of 0.5 with each.

    832x480 has 60 latent rows, a half 30, the draft 28: one row is cut at each end, so draft row 0 is rows 2 and 3.
    """
    noise = drafted_noise(full_noise, LatentSize.of_pixels(33, 416, 224).shape)
    four = [full_noise[:, :9, 2 + dy : 58 : 2, dx::2] for dy in (0, 1) for dx in (0, 1)]
    assert np.abs(noise - sum(four) / 2).max() < 1e-6  # float32 sums of four in another order
    bar = 5 / math.sqrt(noise.size)
    for corner in four:
        assert abs(np.corrcoef(noise.ravel(), corner.ravel())[0, 1] - 0.5) < bar
    elsewhere = full_noise[:, 9:18, 2:58:2, ::2]
    assert abs(np.corrcoef(noise.ravel(), elsewhere.ravel())[0, 1]) < bar


def test_noise_that_is_not_halved_stays(full_noise):
    assert drafted_noise(full_noise, FULL) is full_noise or np.array_equal(drafted_noise(full_noise, FULL), full_noise)
    few = drafted_noise(full_noise, (16, 9, *FULL[2:]))
    assert np.array_equal(few, full_noise[:, :9])


def noises(monkeypatch, models, listener, scene, settings):
    """Return the noise from which each segment starts; the solver and the history are left out."""
    seen = []

    def caught(velocity, solver, noise, *others):
        seen.append(np.array(noise))
        return noise

    monkeypatch.setattr(denoising, "denoise", caught)
    monkeypatch.setattr(Continuing, "history", lambda *arguments: None)  # costly, and of no matter here
    monkeypatch.setattr("mlx_backend.pipelines.generate.decode_latents", lambda *arguments: None)
    generate(models, golden_prompts(3), scene, settings, None, listener)
    monkeypatch.undo()
    return seen


def test_every_segment_of_a_draft_starts_from_its_full_segment(models, listener, monkeypatch):
    """24 + 24 frames in windows of 13: the draft has fewer and a shorter last one, whose noise is of a longer draw."""
    scene = golden_scene(3)
    scene = replace(
        scene,
        driving=np.concatenate([scene.driving] * 2),
        driving_mask=np.concatenate([scene.driving_mask] * 2),
        width=64,
        height=64,
    )
    full = noises(monkeypatch, models, listener, scene, golden_settings(3))
    draft = noises(monkeypatch, models, listener, replace(scene, draft=True), golden_settings(3))
    assert [noise.shape for noise in full] == [(16, 4, 8, 8)] * 5 + [(16, 3, 8, 8)]
    assert [noise.shape for noise in draft] == [(16, 4, 4, 4)] * 3 + [(16, 3, 4, 4)]  # 33 frames: 13, 13, 13, 9
    for whole, half in zip(full, draft, strict=False):
        pairs = whole.reshape(16, -1, 4, 2, 4, 2)
        assert np.abs(half - 2 * pairs.mean(axis=(3, 5))[:, : half.shape[1]]).max() < 1e-6


# Framing


def test_framing_and_masks_are_those_of_the_full_run(listener):
    """The draft's pictures are the full run's at half scale, 8 pixels cut from the ends of the side that needs it."""
    random = np.random.default_rng(1)
    mask = np.zeros((3, 300, 400, 3), np.float32)
    mask[:, 100:200, 150:250, 2] = 1
    upright = mask[:1].transpose(0, 2, 1, 3)
    scene = a_scene(
        references=random.random((1, 400, 300, 3), np.float32),  # upright: turns the size
        driving=random.random((3, 300, 400, 3), np.float32),
        reference_masks=np.where(upright[..., 2:] == 1, upright, np.float32(1)),
        driving_mask=mask,
        width=160,
        height=128,
    )
    full = prepare_scene(scene, listener)
    draft = drafted(prepare_scene(replace(scene, draft=True), listener))
    assert full.size == (128, 160)
    assert draft.size == (64, 64)
    for whole, half in ((full.driving, draft.driving), (full.references, draft.references)):
        means = whole.reshape(len(whole), 80, 2, 64, 2, 3).mean(axis=(2, 4))
        assert np.abs(means[:, 8:72] - half).max() < 1e-6
    assert set(np.unique(draft.driving_mask)) == {0, 1}
    pure = {tuple(colour) for colour in draft.reference_masks[0].reshape(-1, 3)}
    assert pure == {(0, 0, 1), (1, 1, 1)}
    people = (full.driving_mask[..., 2].mean(), draft.driving_mask[..., 2].mean() * 64 / 80)  # share of all pixels
    assert people[0] == pytest.approx(people[1], abs=0.02)  # a pixel along each edge


@pytest.mark.parametrize(("start", "most", "frames"), [(0, 0, 33), (2, 0, 33), (0, 40, 33), (0, 9, 9), (30, 0, 20)])
def test_a_draft_has_the_first_frames_of_its_run(start, most, frames):
    driving = np.zeros((50, 1, 1, 3), np.float32)
    scene = a_scene(references=driving[:1], driving=driving, start_frame=start, max_frames=most, draft=True)
    assert len(driving[scene.cut]) == frames
    assert scene.cut.start == start
    assert DRAFT_FRAMES == 33
    full = replace(scene, draft=False)
    assert full.cut == full.full_cut == scene.full_cut


def test_clip_sees_the_picture_of_the_full_run(listener):
    scene = golden_scene(0)
    runs = [
        prepare_run(scene.references[:1], replace(scene, draft=draft), a_sampling(), listener)
        for draft in (False, True)
    ]
    assert np.array_equal(runs[0].seen_by_clip[0], runs[1].seen_by_clip[0])
    assert runs[0].noise == runs[1].noise


# Through the doors


def test_a_draft_through_the_nodes(nodes):
    vae, latent = sampled(nodes, 0, draft=True)
    assert tuple(latent["samples"].shape) == (1, 16, 3, 4, 4)
    assert tuple(decoded(nodes, vae, latent).shape) == (9, 32, 32, 3)


def test_economy_through_the_nodes(nodes, caplog):
    with caplog.at_level(logging.INFO, "scail2_mlx"):
        sampled(nodes, 0, steps=20, step_cache="magcache", cache_threshold=0.12, guidance_until=0.5)
    # 20 steps at 0.12: 4..7, 9..11, 13, 14, 16, 18 are left out, 9 run; the other branch ends before step 10, 5 run.
    assert "14 of 40 passes of the model were run." in caplog.messages


def test_workflows_saved_before_these_inputs_stay_valid(nodes):
    """The inputs that older workflows lack stand last, are optional and change nothing by default."""
    from demo.pack import load_pack

    sampler = next(cls for cls in load_pack().NODES if cls.GET_SCHEMA().node_id == "Scail2Sampler")
    widgets = [item for item in sampler.GET_SCHEMA().inputs if hasattr(item, "default")]
    last = widgets[[item.id for item in widgets].index("step_cache") :]
    assert {item.id: item.default for item in last} == {
        "step_cache": "off",
        "cache_threshold": 0.05,
        "guidance_until": 1.0,
        "draft": False,
        "grid": "upstream",
        "history": "pixels",
        "colour_anchor": "off",
        "segment_seed": "running",
        "resume": True,
        "driving_fps": 16.0,
        "pose_rope": "upstream",
    }
    assert all(item.optional for item in last)
    _, without = sampled(nodes, 2)
    _, given = sampled(nodes, 2, **{item.id: item.default for item in last})
    assert np.array_equal(without["samples"].numpy(), given["samples"].numpy())


def command(folder, *options):
    golden = Golden(golden_file("pipeline"), 0)
    case = golden_cases("pipeline")[0]
    for name in ("reference", "driving", "reference_mask", "driving_mask"):
        np.save(folder / f"{name}.npy", golden(name))
    pictures = [
        part
        for name in ("reference", "driving", "reference_mask", "driving_mask")
        for part in (f"--{name.replace('_', '-')}", str(folder / f"{name}.npy"))
    ]
    sizes = ["--width", "96", "--height", "64", "--steps", "2", "--seed", str(case["seed"])]
    return ["generate", "--model", str(GOLDENS / "snapshot"), *pictures, *sizes, *options]


def test_a_draft_on_the_command_line(tmp_path, nodes, capsys):
    prompt = golden_cases("pipeline")[0]["prompt"]
    out = tmp_path / "o.npy"
    assert main(command(tmp_path, "--draft", "--prompt", prompt, "--output", str(out))) == 0
    assert "4 of 4 passes of the model were run." in capsys.readouterr().err
    frames = np.load(out)
    assert frames.shape == (9, 32, 32, 3)
    images = decoded(nodes, *sampled(nodes, 0, draft=True, steps=2))
    assert np.abs(frames - images.numpy()).max() < 1e-5  # the same run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--step-cache", "teacache"), ("'teacache'", "easycache")),
        (("--cache-threshold", "-1"), ("-1.0", "0.05")),
        (("--guidance-until", "0"), ("0.0", "above 0")),
    ],
)
def test_bad_economy_on_the_command_line(options, words, tmp_path, capsys):
    assert main(command(tmp_path, *options, "--output", str(tmp_path / "o.npy"))) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words)
