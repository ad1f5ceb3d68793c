"""The VAE of Wan 2.2 against the published one at a tiny size, whole, streamed and in tiles."""

from functools import cache

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file
from wan_weights import WAN, drawn, recipe

from mlx_backend.interface.sizes import VAEConfig
from mlx_backend.interface.tiling import Tiling
from mlx_backend.models.vae22 import WanVAE22

BAR = 2e-4  # float32; the published program and diffusers differ by 2.5e-6 from the goldens
TILED = 1e-5  # the same sums in other shapes
SIZES = {"dim_mult": (1, 2, 4, 4), "num_res_blocks": 2, "temporal_downsample": (False, True, True), "patch": 2}


@cache
def vae():
    made = WanVAE22(VAEConfig(dim=6, decoder_dim=10, z_dim=48, **SIZES))
    weights = drawn("vae2.2", recipe()["parts"]["vae2.2"])
    last = {
        name: mx.array(w if w.ndim < 4 or "gamma" in name else np.moveaxis(w, 1, -1)) for name, w in weights.items()
    }
    made.load_weights(list(last.items()))
    return made


@cache
def golden():
    return load_file(WAN / "vae22.safetensors")


def pixels(name):
    """Return a golden clip [3, F, H, W] as the VAE takes it."""
    return mx.array(golden()[name].transpose(1, 2, 3, 0))


def decoded(latent, tiling=None):
    height, width = (16 * n for n in latent.shape[2:])
    out = np.empty((4 * (latent.shape[1] - 1) + 1, height, width, 3), np.float32)
    for tile in vae().decode_tiles(mx.array(latent), tiling):
        out[tile.frame : tile.frame + len(tile.pixels), tile.rows, tile.columns] = np.array(tile.pixels)
    return out.transpose(3, 0, 1, 2)


@pytest.mark.parametrize(("name", "latent"), [("video", "latent"), ("image", "image_latent")])
def test_encoding_is_the_published_one(name, latent):
    assert np.abs(np.array(vae().encode(pixels(name))) - golden()[latent]).max() < BAR


def test_decoding_is_the_published_one():
    ours = decoded(golden()["latent"])
    assert np.abs(ours - golden()["decoded_unclamped"]).max() < BAR
    assert np.abs(ours.clip(-1, 1) - golden()["decoded"]).max() < BAR
    still = decoded(golden()["image_latent"])
    assert np.abs(still.clip(-1, 1) - golden()["image_decoded"]).max() < BAR


def test_tiles_are_what_the_whole_is():
    rng = np.random.default_rng(0)
    clip = mx.array(rng.uniform(-1, 1, (5, 256, 288, 3)).astype(np.float32))
    whole = np.array(vae().encode(clip))
    tiled = np.array(vae().encode(clip, tiling=Tiling(128, 64)))
    assert np.abs(whole - tiled).max() < TILED
    latent = rng.standard_normal((48, 2, 16, 18)).astype(np.float32)
    in_tiles = decoded(latent, Tiling(128, 64))
    assert np.abs(decoded(latent) - in_tiles).max() < TILED * np.abs(in_tiles).max()


def test_the_published_sizes_have_the_published_number_of_weights():
    from mlx.utils import tree_flatten

    made = WanVAE22(VAEConfig(dim=160, decoder_dim=256, z_dim=48, **SIZES))
    named = tree_flatten(made.parameters())
    assert len(named) == 196
    assert sum(array.size for _, array in named) == pytest.approx(704.7e6, abs=0.05e6)
