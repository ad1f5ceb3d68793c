"""The PyTorch twins are the project's own networks: same names, same numbers. And the small parts around them."""

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image, ImageFilter

torch = pytest.importorskip("torch")

from mlx_backend.interface.sizes import Scail2Config, VAEConfig  # noqa: E402
from mlx_backend.models.conditioning import Known  # noqa: E402
from mlx_backend.models.scail2 import Reference, Scail2Model, Streams  # noqa: E402
from mlx_backend.models.vae21 import WanVAE21  # noqa: E402
from training import dit, measures, snapshot, stage, vae  # noqa: E402
from world.scenes import MODES, Example, Group  # noqa: E402

BAR = 1e-4  # float32 both, summed in another order
TINY_VAE = VAEConfig(dim=8, z_dim=16, dim_mult=(1, 2, 4, 4), num_res_blocks=1, temporal_downsample=(False, True, True))
TINY_DIT = Scail2Config(
    dim=64,
    ffn_dim=96,
    freq_dim=32,
    num_heads=2,
    num_layers=2,
    in_dim=20,
    pose_dim=20,
    mask_dim=28,
    out_dim=16,
    text_dim=24,
    clip_dim=16,
)


def randomised(twin, seed):
    """Give every parameter random values, also those that begin at zero."""
    random = torch.Generator().manual_seed(seed)
    for parameter in twin.parameters():
        scale = 0.1 if parameter.ndim < 2 or parameter[0].numel() == 1 else parameter[0].numel() ** -0.5
        offset = parameter.detach() if parameter.ndim < 2 or parameter[0].numel() == 1 else 0
        parameter.data = offset + scale * torch.randn(parameter.shape, generator=random)
    return twin


def loaded(model, twin):
    """Load the twin's weights strictly into our module, in its layout."""
    weights = []
    for name, weight in twin.state_dict().items():
        array = weight.numpy()
        if isinstance(model, WanVAE21) and array.ndim >= 4 and name.endswith("weight"):
            array = np.moveaxis(array, 1, -1)
        weights.append((name, mx.array(np.ascontiguousarray(array))))
    model.load_weights(weights, strict=True)
    return model


@pytest.fixture(scope="module")
def vaes():
    twin = randomised(vae.VAE(TINY_VAE), 1)
    return twin, loaded(WanVAE21(TINY_VAE), twin)


@pytest.mark.parametrize("frames", [1, 9])
def test_the_vae_twin_encodes_and_decodes_as_ours(vaes, frames):
    twin, ours = vaes
    pixels = np.random.default_rng(0).uniform(-1, 1, (frames, 32, 48, 3)).astype(np.float32)
    with torch.no_grad():
        latent = twin.encode(torch.from_numpy(pixels).permute(3, 0, 1, 2)[None])
        made = twin.decode(latent)[0].permute(1, 2, 3, 0).numpy()
    latent = latent[0].numpy()
    assert np.abs(np.array(ours.encode(mx.array(pixels))) - latent).max() < BAR * np.abs(latent).max()
    back = np.concatenate([np.array(piece) for piece in ours.decode(mx.array(latent))])
    assert back.shape == made.shape == pixels.shape
    assert np.abs(back - made).max() < BAR * np.abs(made).max()


def test_the_slope_of_the_norm_by_hand_is_that_of_autograd():
    norm = vae.RMSNorm(6, 3).double()
    norm.gamma.data.uniform_(0.5, 2)
    x = torch.randn(2, 6, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(norm, (x,))
    weight = torch.randn(2, 6, 3, 4, 5, dtype=torch.float64)
    (norm(x) * weight).sum().backward()
    by_hand = norm.gamma.grad.clone()
    norm.gamma.grad = None
    (torch.nn.functional.normalize(x, dim=1) * 6**0.5 * norm.gamma * weight).sum().backward()
    assert torch.allclose(by_hand, norm.gamma.grad, rtol=1e-5)


def test_rescaling_the_latents_changes_no_pixel():
    twin = randomised(vae.VAE(TINY_VAE), 2)
    pixels = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    with torch.no_grad():
        before = twin.encode(pixels)
        made = twin.decode(before)
        mean, deviation = before.mean(dim=(0, 2, 3, 4)), before.std(dim=(0, 2, 3, 4))
        twin.rescale(mean, deviation)
        after = twin.encode(pixels)
        again = twin.decode(after)
    assert torch.allclose(after.mean(dim=(0, 2, 3, 4)), torch.zeros(16), atol=1e-3)
    assert torch.allclose(after.std(dim=(0, 2, 3, 4)), torch.ones(16), atol=1e-3)
    assert torch.allclose(again, made, atol=BAR * made.abs().max().item())


@pytest.mark.parametrize("replacement", [False, True])
@pytest.mark.parametrize("extras", [0, 1])
@pytest.mark.parametrize("known", [0, 2])
def test_the_dit_twin_gives_our_velocity(replacement, extras, known):
    twin = randomised(dit.DiT(TINY_DIT), 3)
    ours = loaded(Scail2Model(TINY_DIT), twin)
    random = np.random.default_rng(4)
    frames, height, width = 3, 8, 12

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    x = normal(16, frames, height, width)
    references, masks = normal(1 + extras, 16, height, width), normal(1 + extras, 28, height, width)
    driving, driving_mask = normal(16, frames, height // 2, width // 2), normal(28, frames, height // 2, width // 2)
    text, clip = normal(7, TINY_DIT.text_dim), normal(5, TINY_DIT.clip_dim)
    history = (np.arange(frames) < known).astype(np.float32)
    batch = dit.Batch(
        *(torch.from_numpy(a)[None] for a in (references, masks, driving, driving_mask, history)),
        torch.tensor([replacement]),
        torch.from_numpy(text)[None],
        torch.from_numpy(clip)[None],
    )
    with torch.no_grad():
        wanted = twin(torch.from_numpy(x)[None], torch.tensor([731.0]), batch)[0].numpy()
    pairs = [Reference(mx.array(r[:, None]), mx.array(m[:, None])) for r, m in zip(references, masks, strict=True)]
    streams = Streams(
        references=(pairs[-1], *pairs[:-1]),
        driving=mx.array(driving),
        driving_mask=mx.array(driving_mask),
        replacement=replacement,
    )
    context = ours.embed_context(mx.array(text), mx.array(clip))
    clean = Known(mx.array(history)[None, :, None, None] > 0, mx.zeros(x.shape))
    conditioning = ours.condition(context, x.shape[1:], streams, clean)
    found = np.array(ours(mx.array(x), 731.0, conditioning, lambda: None))
    assert np.abs(found - wanted).max() < BAR * np.abs(wanted).max()


def test_packing_keeps_the_weights():
    weights = {"layer.weight": torch.randn(128, 256), "layer.bias": torch.randn(256)}
    small = snapshot.packed(weights)
    assert small["layer.weight"].dtype == torch.int8
    back = snapshot.unpacked(small)
    assert back.keys() == weights.keys()
    step = weights["layer.weight"].abs().amax(dim=1, keepdim=True) / 127
    assert ((back["layer.weight"] - weights["layer.weight"]).abs() <= 0.51 * step).all()
    assert torch.allclose(back["layer.bias"], weights["layer.bias"], atol=2e-3)  # float16


TIMES = np.arange(5)


def judged(seed, mode="animation", people=2):
    return Example.of(Group.random(seed, people), mode, TIMES, 96)


@pytest.mark.parametrize("mode", MODES)
def test_the_target_itself_passes_every_measure(mode):
    made = judged(1, mode)
    found = measures.verdict(made.target.pictures, made)
    assert found.motion == 0 and found.followed == pytest.approx(1)
    assert found.identity == 1 and found.kept == float("inf")
    assert found.other < 25


def test_a_result_that_copies_the_driving_clip_fails():
    made = judged(2)
    found = measures.verdict(made.driving, made)
    assert found.identity < 0.5
    assert found.kept < 22


def test_a_soft_result_is_where_it_is():
    """Three puppets share hues, so colours alone would have moved the very same clip."""
    made = judged(4, people=3)
    soft = [Image.fromarray(picture).filter(ImageFilter.GaussianBlur(2)) for picture in made.target.pictures]
    found = measures.verdict(np.stack(soft), made)
    assert found.motion < 0.005 and found.by_colour > 0.02


@pytest.mark.parametrize("move", [(0, 4), (-6, 3), (0, -20)])
def test_a_moved_result_is_as_far_off_as_it_was_moved(move):
    made = judged(2, people=1)
    noise = np.random.default_rng(1).normal(0, 12, made.target.pictures.shape)
    moved = np.roll(made.target.pictures, move, axis=(1, 2)) + noise
    for found, wanted, where in zip(moved, made.target.pictures, made.target.puppets() == 1, strict=True):
        assert tuple(measures.misplacement(found, wanted, where)) == move
    assert measures.verdict(moved, made).motion == pytest.approx(np.hypot(*move) / 96)


def test_a_still_result_fails_by_its_motion():
    group = Group.random(3, 1)
    made = Example.of(group, "animation", np.arange(0, 40, 8), 96)
    still = np.repeat(made.target.pictures[:1], 5, axis=0)
    found = measures.verdict(still, made)
    assert found.motion > 0.04 and abs(found.followed) < 1e-6


def test_routing_is_told_from_mixed_up_people():
    group = next(g for g in (Group.random(seed, 2) for seed in range(99)) if _same_reference(g))
    plain, turned = (Example.of(g, "animation", TIMES, 96) for g in (group, group.swapped()))
    right = [made.target.pictures.astype(np.float32) for made in (plain, turned)]
    assert measures.routed(*right, plain, turned)
    assert not measures.routed(*right[::-1], plain, turned)
    assert not measures.routed(right[0], right[0], plain, turned)


def _same_reference(group):
    pictures = [g.picture(1, 1, 0, 96).pictures for g in (group, group.swapped())]
    return np.array_equal(*pictures)


def test_seams_and_drift_are_found():
    made = Example.of(Group.random(4, 1), "animation", np.arange(17), 96)
    frames = made.target.pictures.astype(np.float32)
    assert measures.seam_ratio(frames, 9, 5) < 1.5
    assert measures.drift(frames, made) == 0
    jumped = frames.copy()
    jumped[9:] += 40
    assert measures.seam_ratio(jumped, 9, 5) > 1.5
    assert measures.drift(frames + np.arange(17)[:, None, None, None], made) > 0.02


def test_processes_share_the_work_and_all_get_all_of_it(monkeypatch):
    given = [torch.randn(4, 3), torch.randn(2, 5), torch.randn(6, 2)]
    alone = stage._shared(torch.exp, given)
    parts = []
    monkeypatch.setattr(stage, "processes", lambda: 2)
    monkeypatch.setattr(stage.dist, "all_reduce", lambda x: parts.append(x.clone()))
    for number in range(2):
        monkeypatch.setattr(stage, "rank", lambda number=number: number)
        stage._shared(torch.exp, given)
    assert not torch.equal(parts[0], parts[1])
    assert torch.allclose(sum(parts), torch.cat([x.flatten() for x in alone]))
