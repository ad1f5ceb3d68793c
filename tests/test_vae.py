"""How the VAE computes: convolutions on either device, frame by frame, in tiles; the goldens are in test_components."""

import gc
import os
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map
from support import ROOT, golden_file

from mlx_backend.interface.events import never
from mlx_backend.interface.sizes import VAEConfig
from mlx_backend.interface.tiling import Tiling
from mlx_backend.models import conv, vae_layers, vae_tiles
from mlx_backend.models.conv import convolve, convolve_doubled
from mlx_backend.models.vae21 import WanVAE21
from mlx_backend.models.vae_layers import AttentionBlock, Stream
from mlx_backend.pipelines.decode import decode_segment, last_frames
from mlx_backend.pipelines.store import get_vae

ROUNDING = 1e-5  # relative: sums of a few thousand float32 products in another order
SEAM_BAR = 1 / 255
TILED_BAR = 2e-5  # what tiles really differ by: rounding, through all layers


def normal(*shape):
    return mx.array(np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape, np.float32))


def relative(found, expected):
    assert found.shape == expected.shape
    return float(mx.abs(found - expected).max() / mx.abs(expected).max())


@pytest.fixture(scope="module")
def golden_vae(models):
    from support import Recorder

    return get_vae(models.vae, Recorder())


@pytest.fixture(scope="module")
def random_vae():
    """The published structure at a width of 8, random weights."""
    config = VAEConfig(
        dim=8, z_dim=16, dim_mult=(1, 2, 4, 4), num_res_blocks=2, temporal_downsample=(False, True, True)
    )
    vae = WanVAE21(config)
    keys = iter(range(1000))

    def drawn(weight):
        scale = 1 if weight.ndim < 4 else weight[0].size ** -0.5
        return scale * mx.random.normal(weight.shape, key=mx.random.key(next(keys)))

    vae.update(tree_map(drawn, vae.parameters()))
    mx.eval(vae.parameters())
    return vae


@pytest.fixture(params=["golden", "random"])
def vae(request):
    return request.getfixturevalue(f"{request.param}_vae")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Take the way of a GPU, computed by MLX's CPU kernels; return the convolutions that MLX is asked for."""
    asked, compute = [], mx.conv_general

    def convolution(x, weight, stride, padding):
        asked.append((x.shape, weight.shape, stride, padding))
        return compute(x, weight, stride, padding)

    monkeypatch.setattr(mx, "conv_general", convolution)
    monkeypatch.setattr(mx, "default_device", lambda: mx.Device(mx.gpu))
    return asked


@pytest.mark.parametrize("patch_bytes", [1, 20_000, conv.CPU_PATCH_BYTES])
@pytest.mark.parametrize(
    ("kernel", "padding", "stride"),
    [
        ((3, 3, 3), ((1, 1), (1, 1)), 1),
        ((3, 3, 3), ((0, 1), (1, 0)), 1),
        ((3, 1, 1), ((0, 0), (0, 0)), 1),
        ((1, 1, 1), ((0, 0), (0, 0)), 1),
        ((1, 3, 3), ((0, 1), (0, 1)), 2),
        ((1, 3, 3), ((0, 0), (0, 0)), 2),
        ((1, 2, 2), ((1, 0), (0, 1)), 1),
    ],
)
def test_a_convolution_by_rows_is_the_convolution(kernel, padding, stride, patch_bytes, monkeypatch):
    monkeypatch.setattr(conv, "CPU_PATCH_BYTES", patch_bytes)
    frames = [normal(13, 18, 5) + i for i in range(kernel[0])]
    weight, bias = normal(7, *kernel, 5), normal(7)
    padded = mx.pad(mx.stack(frames)[None], ((0, 0), (0, 0), *padding, (0, 0)))
    expected = mx.conv3d(padded, weight, stride=(1, stride, stride))[0, 0] + bias
    assert relative(convolve(frames, weight, bias, padding, stride), expected) < ROUNDING


@pytest.mark.parametrize("count", [1, 2, 3])
def test_frames_before_the_first_are_zero(count, as_on_a_gpu):
    frames = [normal(6, 7, 4) + i for i in range(count)]
    weight, bias, padding = normal(5, 3, 3, 3, 4), normal(5), ((1, 1), (1, 1))
    zeros = [mx.zeros_like(frames[0])] * (3 - count)
    expected = mx.conv3d(mx.stack(zeros + frames)[None], weight, padding=(0, 1, 1))[0, 0] + bias
    assert relative(convolve(frames, weight, bias, padding), expected) < ROUNDING
    with mx.stream(mx.cpu):
        assert as_on_a_gpu  # it went MLX's way
    assert relative(conv._by_rows(frames, weight[:, 3 - count :], bias, padding, 1), expected) < ROUNDING


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 8), (16, 9)])
def test_doubling_and_convolving_at_once_is_one_after_the_other(height, width):
    frame, weight, bias = normal(height, width, 6), normal(3, 3, 3, 6), normal(3)
    doubled = mx.repeat(mx.repeat(frame, 2, axis=0), 2, axis=1)
    expected = mx.conv2d(doubled[None], weight, padding=1)[0] + bias
    assert relative(convolve_doubled(frame, weight, bias), expected) < ROUNDING


def test_every_convolution_meets_the_conditions_of_the_fast_decomposition(vae, as_on_a_gpu):
    """mlx conv.cpp: several frames at once need batch 1, no stride and no padding in time; heights need no padding."""
    latent = normal(16, 3, 4, 6)
    pieces = [np.array(piece) for piece in vae.decode(latent)]
    encoded = vae.encode(mx.array(np.concatenate(pieces)))
    assert encoded.shape == latent.shape
    assert len(as_on_a_gpu) > 100
    over_time = [call for call in as_on_a_gpu if len(call[0]) == 5]
    assert over_time
    for x, weight, stride, (before, after) in as_on_a_gpu:
        assert x[0] == 1
        assert x[-1] == weight[-1]  # channels last, one group
        if len(x) == 5:
            assert (x[1], stride[0], before[0], after[0]) == (weight[1], 1, 0, 0)


def test_both_devices_ways_agree(vae, request):
    latent = normal(16, 2, 4, 6)
    by_rows = mx.concatenate(list(vae.decode(latent)))
    encoded = vae.encode(by_rows)
    request.getfixturevalue("as_on_a_gpu")
    assert relative(mx.concatenate(list(vae.decode(latent))), by_rows) < ROUNDING
    assert relative(vae.encode(by_rows), encoded) < ROUNDING


def test_the_norm_is_upstreams_also_of_nothing():
    norm = vae_layers.RMSNorm(6, 3)
    norm.gamma = normal(6, 1, 1, 1)
    x = normal(4, 5, 6).at[0].multiply(0)
    expected = x / mx.maximum(mx.linalg.norm(x, axis=-1, keepdims=True), 1e-12) * 6**0.5 * norm.gamma.reshape(-1)
    assert float(mx.abs(norm(x)[0]).max()) == 0
    assert relative(norm(x), expected) < ROUNDING


def test_attention_in_parts_is_attention_at_once(monkeypatch):
    block = AttentionBlock(24)
    block.update(tree_map(lambda weight: normal(*weight.shape), block.parameters()))
    frame = normal(9, 11, 24)
    asked, attend = [], mx.fast.scaled_dot_product_attention

    def attention(q, k, v, scale):
        asked.append(q.shape[2])
        return attend(q, k, v, scale=scale)

    monkeypatch.setattr(mx.fast, "scaled_dot_product_attention", attention)
    (whole,) = block(frame, Stream(never))
    monkeypatch.setattr(vae_layers, "ATTENTION_SCORE_BYTES", 4 * 99 * 20)
    (parts,) = block(frame, Stream(never))
    assert asked == [99, 20, 20, 20, 20, 19]
    assert relative(parts, whole) < ROUNDING


# Latent rows and columns, tile, overlap, latent frames. The first has a tile with all four sides cut; 17 and 20 are no
# multiples of the tile; the last asks for more overlap than the layers reach.
SIZES = [(34, 34, 128, 64, 2), (17, 20, 128, 8, 3), (5, 40, 256, 128, 1)]


@pytest.mark.parametrize(("height", "width", "size", "overlap", "frames"), SIZES)
def test_tiles_decode_to_the_whole_frames(vae, height, width, size, overlap, frames):
    latent = np.array(normal(16, frames, height, width))
    shares = []
    whole = decode_segment(vae, latent, None, never, lambda _: None)
    tiled = decode_segment(vae, latent, Tiling(size, overlap), never, shares.append)
    assert whole.std() > 0.05
    assert len(shares) > frames
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert np.abs(tiled - whole).max() < min(TILED_BAR, SEAM_BAR)


@pytest.mark.parametrize(("height", "width", "size", "overlap", "frames"), SIZES)
def test_tiles_encode_to_the_latent_of_whole_frames(vae, height, width, size, overlap, frames):
    pixels = mx.clip(normal(4 * frames - 3, 8 * height, 8 * width, 3), -1, 1)
    whole = vae.encode(pixels)
    tiled = vae.encode(pixels, tiling=Tiling(size, overlap))
    assert whole.shape == (16, frames, height, width)
    assert float(mx.abs(tiled - whole).max()) < min(TILED_BAR, SEAM_BAR)


def test_a_tile_sees_what_the_layers_reach_and_no_more(golden_vae):
    """By hand, decoder: 7 pixels, then (7 + 1) / 2 + 6, (10 + 1) / 2 + 6 and (12 + 1) / 2, each rounded up."""
    decoder, encoder = golden_vae.decoder.needs, golden_vae.encoder.needs
    assert decoder(0, 8) == (-7, 8)  # a latent pixel is 8 pixels: 7 latent pixels to each side
    assert encoder(0, 1) == (-29, 8 + 36)
    first, middle, last = (tile.rows for tile in vae_tiles.decoder_tiles(decoder, (48, 1), 8, Tiling(128, 64)))
    assert (first.seen, middle.seen, last.seen) == (slice(0, 23), slice(9, 39), slice(25, 48))
    assert (first.cut, middle.cut, last.cut) == ((False, True), (True, True), (True, False))
    assert [span.inside for span in (first, middle, last)] == [slice(0, 128), slice(128, 256), slice(256, 384)]
    wider = vae_tiles.decoder_tiles(decoder, (96, 1), 8, Tiling(512, 256))
    assert wider[0].rows.seen.stop >= 48 + 16  # half of the overlap asked for to each side


def test_the_last_frames_are_those_of_the_whole_clip(golden_vae):
    latent = np.array(normal(16, 3, 5, 20))
    whole = decode_segment(golden_vae, latent, None, never, lambda _: None)
    for count in (9, 5, 1):
        assert np.array_equal(last_frames(golden_vae, latent, count, never), whole[-count:])
        tiled = last_frames(golden_vae, latent, count, never, Tiling(128, 64))
        assert np.abs(tiled - whole[-count:]).max() < TILED_BAR


def added_at_the_peak(work):
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    work()
    return mx.get_peak_memory() - before


def most_in_memory(work):
    """Return what `work(look)` adds to memory at most, seen between any two layers: `look` is its check_cancelled.

    MLX's thread frees a buffer now and then a moment late, so MLX's own peak depends on how busy the machine is; here
    the thread is waited for, and the least of three runs counts, because late buffers only add. What a layer takes on
    the way does not depend on the length.
    """

    def once():
        gc.collect()
        mx.synchronize()
        before, most = mx.get_active_memory(), 0

        def look():
            nonlocal most
            mx.synchronize()
            most = max(most, mx.get_active_memory() - before)

        work(look)
        assert most, "it looked"
        return most

    return min(once() for _ in range(3))


@pytest.mark.parametrize("tiling", [None, Tiling(128, 64)])
def test_memory_does_not_grow_with_the_length(random_vae, tiling):
    """Untiled not at all, but for the latent; in tiles by one array of coarse features per latent frame."""

    def peak(frames):
        latent = normal(16, frames, 2, 20)  # only the width is cut: the rows are few
        mx.eval(latent)

        def decode(look):
            for tile in random_vae.decode_tiles(latent, tiling, look):
                mx.eval(tile.pixels)

        return most_in_memory(decode)

    coarse = 4 * 2 * 20 * 32  # float32
    latent = 2 * 4 * 2 * 20 * 16  # denormalised, before and after its axes are turned
    allowed = 4 * (latent + (coarse if tiling else 0))
    # What frees its arrays late in one of the two looks like growth: that does not happen time after time.
    assert any(peak(7) - peak(3) <= allowed for _ in range(3))


@pytest.mark.parametrize("tiling", [None, Tiling(128, 64)])
def test_memory_of_encoding_does_not_grow_with_the_length(random_vae, tiling):
    def peak(frames):
        pixels = normal(frames, 16, 160, 3)
        mx.eval(pixels)
        return most_in_memory(lambda look: random_vae.encode(pixels, look, tiling))

    short, long = peak(9), peak(25)
    coarse = 4 * 2 * 20 * 32
    latent = 3 * 4 * 2 * 20 * 16  # in pieces, joined, normalised
    assert long - short <= 4 * (latent + (coarse if tiling else 0))


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_few_frames_are_in_memory_beside_the_causal_cache(random_vae, direction, monkeypatch):
    """The largest layers hold `dim` channels at full size: five such frames, beside the pixels that go in or out."""
    streams = []

    class Counted(Stream):
        def __init__(self, *args):
            super().__init__(*args)
            streams.append(self)

    monkeypatch.setattr("mlx_backend.models.vae_tiles.Stream", Counted)
    monkeypatch.setattr("mlx_backend.models.vae.Stream", Counted)
    monkeypatch.setattr(conv, "CPU_PATCH_BYTES", 1 << 16)
    latent = normal(16, 2, 24, 24)
    pixels = normal(5, 192, 192, 3)
    mx.eval(latent, pixels)

    def work():
        for made in random_vae.decode(latent) if direction == "decode" else [random_vae.encode(pixels)]:
            mx.eval(made)

    peak = added_at_the_peak(work)
    cache = sum(frame.nbytes for stream in streams for held in stream.past.values() for frame in held)
    frame, picture = 4 * 192 * 192 * 8, 4 * 192 * 192 * 3
    assert cache > 8 * frame
    assert peak - cache < 5 * frame + 8 * picture  # four pictures of a piece, one by one and together


@pytest.mark.parametrize(("given", "kept", "warned"), [(None, "0", False), ("0", "0", False), ("1", "1", True)])
def test_tf32_is_off_unless_the_user_wants_it(given, kept, warned):
    code = (
        "import os\nfrom mlx_backend.runtime.device import require_mlx\nrequire_mlx()\n"
        "print(os.environ['MLX_ENABLE_TF32'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "MLX_ENABLE_TF32"}
    if given is not None:
        environment["MLX_ENABLE_TF32"] = given
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == kept
    assert ("MLX_ENABLE_TF32=1" in done.stderr) == warned


def test_latents_are_float32_whatever_comes_in(golden_vae):
    golden = golden_file("vae")
    half = golden_vae.encode(mx.array(golden["image"].transpose(1, 2, 3, 0)).astype(mx.bfloat16))
    assert half.dtype == mx.float32
    assert next(golden_vae.decode(half.astype(mx.bfloat16))).dtype == mx.float32
