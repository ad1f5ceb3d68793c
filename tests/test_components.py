"""Every network and every number around it against the golden data, float32 on the CPU."""

import mlx.core as mx
import numpy as np
import pytest
from support import Golden, Recorder, golden_cases, golden_file

from mlx_backend.conditioning.clip import encode_clip
from mlx_backend.conditioning.text import encode_text, tokenise
from mlx_backend.media.resize import halved
from mlx_backend.members.scail2.masks import packed
from mlx_backend.models.conditioning import Known
from mlx_backend.models.scail2 import Reference, Streams
from mlx_backend.pipelines.store import get_clip, get_dit, get_text_encoder, get_vae
from mlx_backend.sampling.noise import TorchNoise
from mlx_backend.sampling.solvers import make_solver
from mlx_backend.weights.checkpoints.tokenizer import load_tokenizer

DIT_BAR = 1e-4
VAE_BAR = 2e-4
TEXT_BAR = 1e-4
CLIP_BAR = 2e-4
MASK_BAR = 1e-6
SOLVER_BAR = 1e-5
NOISE_BAR = 2e-6


def error(found, expected) -> float:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).max())


@pytest.mark.parametrize("index", range(len(golden_cases("dit"))))
def test_dit_matches_the_golden(index, models, listener):
    case, golden = golden_cases("dit")[index], Golden(golden_file("dit"), index)

    def array(name):
        return None if golden(name) is None else mx.array(golden(name))

    mask, extras, extra_masks = array("ref_mask"), array("extra_refs"), array("extra_masks")
    references = [Reference(array("ref"), mask[:, :1])]
    references += [Reference(extras[:, i : i + 1], extra_masks[:, i : i + 1]) for i in range(case["extra"])]
    streams = Streams(
        references=tuple(references),
        driving=array("pose"),
        driving_mask=array("driving_mask"),
        replacement=case["replace"],
        video_mask=mask[:, 1:],
    )
    dit = get_dit(models.dit, listener)
    context = dit.embed_context(array("text"), array("clip")[0])
    x, history = array("x"), array("history_mask")
    known = None if history is None else Known(history[:1] > 0, mx.zeros(x.shape))
    out = dit(x, case["t"], dit.condition(context, x.shape[1:], streams, known), lambda: None)
    assert error(out, golden("out")) < DIT_BAR


def test_vae_encodes_a_clip_and_a_picture(models, listener):
    vae, golden = get_vae(models.vae, listener), golden_file("vae")
    for pixels, latent in (("video", "latent"), ("image", "image_latent")):
        found = vae.encode(mx.array(golden[pixels].transpose(1, 2, 3, 0)))
        assert error(found, golden[latent]) < VAE_BAR


def test_vae_decodes_a_clip_and_a_picture(models, listener):
    vae, golden = get_vae(models.vae, listener), golden_file("vae")
    clip = np.concatenate([np.array(piece) for piece in vae.decode(mx.array(golden["latent"]))]).transpose(3, 0, 1, 2)
    assert error(clip, golden["decoded_unclamped"]) < VAE_BAR
    assert error(clip.clip(-1, 1), golden["decoded"]) < VAE_BAR
    picture = [np.array(piece) for piece in vae.decode(mx.array(golden["image_latent"]))]
    assert [len(piece) for piece in picture] == [1]
    assert error(picture[0].transpose(3, 0, 1, 2).clip(-1, 1), golden["image_decoded"]) < VAE_BAR


@pytest.mark.parametrize("index", range(len(golden_cases("prompts"))))
def test_text_matches_the_golden(index, models, snapshot, listener):
    golden = Golden(golden_file("text"), index)
    ids = tokenise(load_tokenizer(snapshot.tokenizer), golden_cases("prompts")[index], listener)
    assert ids == golden("ids").tolist()
    (encoded,) = encode_text(get_text_encoder(models.text_encoder, listener), [ids], lambda: None)
    assert error(encoded, golden("embedding")) < TEXT_BAR


def test_clip_matches_the_golden(models, listener):
    golden = golden_file("clip")
    picture = (golden["image"].transpose(1, 2, 0) + 1) / 2
    assert error(encode_clip(get_clip(models.clip, listener), picture), golden["tokens"][0]) < CLIP_BAR


def test_masks_match_the_golden():
    golden = golden_file("masks")
    rgb, soft = ((golden[name].transpose(1, 2, 3, 0) + 1) / 2 for name in ("rgb", "soft"))
    assert error(packed(rgb), golden["packed"]) < MASK_BAR
    assert error(packed(soft), golden["soft_packed"]) < MASK_BAR
    assert error(packed(halved(rgb)), golden["half_packed"]) < MASK_BAR


@pytest.mark.parametrize("index", range(len(golden_cases("solvers"))))
def test_solver_follows_the_golden_path(index):
    case, golden = golden_cases("solvers")[index], Golden(golden_file("solvers"), index)
    solver = make_solver(case["solver"], case["steps"], case["shift"])
    sample, target = golden("noise"), golden("target")
    for i, expected in enumerate(golden("path")):
        t = solver.schedule.timesteps[i]
        velocity = 0.5 * np.tanh(sample) + (sample - target) / (t / 1000 + 0.2)
        solver, sample = solver.step(i, velocity.astype(np.float32), sample)
        assert error(sample, expected) < SOLVER_BAR


@pytest.mark.parametrize(
    ("solver", "steps", "shift", "timesteps"),
    [
        ("unipc", 8, 1, [999, 874, 749, 624, 499, 374, 249, 124]),
        ("dpm++", 8, 1, [1000, 875, 750, 625, 500, 375, 250, 125]),
        ("unipc", 6, 5, [999, 961, 908, 833, 713, 499]),
        ("euler", 6, 5, [1000, 961, 909, 833, 714, 500]),
    ],
)
def test_grids_are_the_official_ones(solver, steps, shift, timesteps):
    assert list(make_solver(solver, steps, shift).schedule.timesteps) == timesteps


def test_noise_is_torchs():
    golden, noise = golden_file("noise"), TorchNoise(1234)
    for name in ("seed_1234_a", "seed_1234_b"):
        assert error(noise.draw(golden[name].shape), golden[name]) < NOISE_BAR


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5, 2**64 - 1])
@pytest.mark.parametrize("count", [16, 17, 31, 32, 1000, 4096])
def test_noise_agrees_with_the_installed_torch(seed, count):
    torch = pytest.importorskip("torch")
    generator, noise = torch.Generator().manual_seed(seed), TorchNoise(seed)
    for _ in range(2):
        assert error(noise.draw((count,)), torch.randn(count, generator=generator)) < NOISE_BAR


def test_a_long_prompt_is_cut_and_told(snapshot):
    listener = Recorder()
    ids = tokenise(load_tokenizer(snapshot.tokenizer), "many words " * 400, listener)
    assert len(ids) == 512
    assert ids[-1] == 1
    assert "512" in listener.warnings[0]
