"""Predicted against measured: `mx.get_peak_memory()` on the CPU, networks of random weights with peaks of 30 to 300 MB.

What is compared is a whole phase, weights included. 15 % is the bar: MLX frees some working arrays before an
evaluation ends, and small ones are not planned for.
"""

import gc
from dataclasses import dataclass, replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support import Recorder

from mlx_backend.conditioning.clip import encode_clip
from mlx_backend.conditioning.text import encode_text
from mlx_backend.models.clip_vision import ClipVision
from mlx_backend.models.scail2 import Reference, Scail2DiT, Streams
from mlx_backend.models.umt5 import UMT5Encoder
from mlx_backend.models.vae21 import WanVAE21
from mlx_backend.pipelines.decode import decode_segment
from mlx_backend.pipelines.store import ModelStore
from mlx_backend.sampling.loop import denoise
from mlx_backend.sampling.solvers import make_solver
from mlx_backend.spec.memory import CPU
from mlx_backend.spec.planner import Job, ModelSizes, predict
from mlx_backend.spec.sizes import ClipConfig, DiTConfig, UMT5Config, VAEConfig
from mlx_backend.spec.storage import Storage, block_matrices
from mlx_backend.spec.tiling import Tiling
from mlx_backend.weights.detect import dit_settings
from mlx_backend.weights.layouts import snapshot_name
from mlx_backend.weights.snapshot import Snapshot

BAR = 0.15
VAE = VAEConfig(dim=8, z_dim=16, dim_mult=(1, 2, 4, 4), num_res_blocks=2, temporal_downsample=(False, True, True))


def dit_sizes(dim, ffn_dim, heads, layers, **others):
    return DiTConfig(
        **{"freq_dim": 64, "text_dim": 256, "clip_dim": 160} | others,
        dim=dim,
        ffn_dim=ffn_dim,
        num_heads=heads,
        num_layers=layers,
        in_dim=20,
        pose_dim=20,
        mask_dim=28,
        out_dim=16,
    )


def tensors_of(component, network, storage, matrices=()):
    """Random numbers in the shapes of a network, under a snapshot's names; `matrices` are packed where asked."""
    dtype = getattr(mx, storage.dtype)
    made = {}
    for name, array in tree_flatten(network.parameters()):
        values = 0.02 * mx.random.normal(array.shape, key=mx.random.key(array.size))
        stem = name.removesuffix(".weight")
        if storage.bits and name != stem and any(stem.endswith(f".{matrix}") for matrix in matrices):
            packed = mx.quantize(values.astype(dtype), group_size=storage.group_size, bits=storage.bits)
            made |= dict(zip((name, f"{stem}.scales", f"{stem}.biases"), packed, strict=True))
        else:
            made[snapshot_name(component, name)] = values.astype(dtype)
    mx.eval(made)
    return made


def save(path, component, network, storage, matrices=()):
    mx.save_safetensors(str(path), tensors_of(component, network, storage, matrices))


@dataclass
class Measured:
    """Peaks of MLX's memory by phase, beyond what was there before."""

    peaks: dict

    def __enter__(self):
        gc.collect()  # what earlier tests left must not go while this one is measured
        mx.clear_cache()
        self._before = mx.get_active_memory()
        mx.reset_peak_memory()
        return self

    def __exit__(self, *error):
        pass

    def take(self, phase):
        """Note the peak since the last call for `phase`."""
        self.peaks[phase] = max(self.peaks.get(phase, 0), mx.get_peak_memory() - self._before)
        mx.reset_peak_memory()


def noise(*shape):
    return mx.array(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def assert_near(plan, phase, measured):
    predicted = plan.phases[phase].bytes
    terms = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in plan.phases[phase].terms)
    told = f"{phase}: predicted {predicted / 1e6:.1f} MB ({terms}), measured {measured / 1e6:.1f} MB"
    print(told, predicted/measured)
    assert abs(predicted / measured - 1) <= BAR, told


# name: DiT, how it is stored, residency, the job
DIT_CASES = {
    "float32": (dit_sizes(512, 1024, 4, 3), Storage("float32"), "resident", Job(width=256, height=192, frames=9)),
    "bf16": (dit_sizes(512, 1024, 4, 3), Storage(), "resident", Job(width=256, height=192, frames=9)),
    "bf16 streamed": (dit_sizes(512, 1024, 4, 6), Storage(), "streamed", Job(width=256, height=192, frames=9)),
    "float32 streamed": (dit_sizes(768, 2048, 6, 4), Storage("float32"), "streamed", Job(width=128, height=128, frames=9)),
    "4 bits": (dit_sizes(768, 3072, 6, 4), Storage(bits=4), "resident", Job(width=128, height=128, frames=5)),
    "8 bits streamed": (dit_sizes(768, 3072, 6, 4), Storage(bits=8), "streamed", Job(width=128, height=192, frames=5)),
    "6 bits, groups of 32": (dit_sizes(512, 2048, 4, 2), Storage("float32", 6, 32), "resident", Job(width=128, height=128, frames=1)),
    "3 references": (dit_sizes(384, 1536, 6, 2), Storage(), "resident", Job(width=192, height=192, frames=5, references=3)),
    "many heads": (dit_sizes(256, 512, 16, 2), Storage("float32"), "resident", Job(width=256, height=192, frames=5)),
    "large picture": (dit_sizes(256, 256, 2, 1), Storage(), "resident", Job(width=512, height=448, frames=5)),
    "wide feed-forward": (dit_sizes(256, 8192, 2, 2), Storage("float32"), "resident", Job(width=256, height=256, frames=5)),
    "wide text": (dit_sizes(256, 256, 2, 1, text_dim=4096, clip_dim=1280), Storage(), "streamed", Job(width=64, height=64, frames=1)),
    "segments": (dit_sizes(512, 1024, 4, 2), Storage(), "streamed", Job(width=192, height=192, frames=21, segment_length=9)),
}


@pytest.mark.parametrize("case", DIT_CASES)
def test_loading_and_denoising(case, tmp_path):
    config, storage, residency, job = DIT_CASES[case]
    save(tmp_path / "dit.safetensors", "dit", Scail2DiT(config), storage, block_matrices(config))
    save(tmp_path / "vae.safetensors", "vae", WanVAE21(VAE), Storage("float32"))
    files = {"dit": tmp_path / "dit.safetensors", "vae": tmp_path / "vae.safetensors"}
    store = ModelStore(Snapshot(files, tmp_path / "none", dit_settings(config)), "auto", residency)
    model = ModelSizes(dit=config, vae=VAE, dit_storage=storage)
    plan = predict(model, job, CPU, residency)
    size, frames = job.longest, job.longest.frames
    peaks = {}
    with Measured(peaks) as measured:
        dit = store.get_dit((), Recorder(), residency)
        store.get("vae", Recorder())
        measured.take("load")
        reference = (16, 1, size.height, size.width)
        streams = Streams(
            references=tuple(Reference(noise(*reference), None) for _ in range(job.references)),
            driving=noise(16, frames, size.height // 2, size.width // 2),
            driving_mask=None,
            history_mask=None,
            replacement=False,
        )
        text, picture = noise(12, config.text_dim), noise(257, config.clip_dim)
        contexts = [dit.embed_context(text, picture), dit.embed_context(text, picture)]  # with and without prompt
        segment = dit.prepare(streams)

        def velocity(x, t):
            return dit(x, t, segment, contexts[0], lambda: None)

        denoise(velocity, make_solver("unipc", 1, 3.0), noise(*size.shape), None, lambda step: None)
        measured.take("denoise")
    assert_near(plan, "load", peaks["load"])
    assert_near(plan, "denoise", peaks["denoise"])


# VAE width, the job, tile
VAE_CASES = {
    "wide": (32, Job(width=128, height=96, frames=5), 0),
    "longer": (16, Job(width=160, height=128, frames=9), 0),
    "tiles": (16, Job(width=256, height=192, frames=5), 128),
    "segments": (24, Job(width=96, height=96, frames=13, segment_length=9), 0),
}


@pytest.mark.parametrize("case", VAE_CASES)
def test_encoding_and_decoding(case, tmp_path):
    dim, job, tile = VAE_CASES[case]
    config = replace(VAE, dim=dim)
    save(tmp_path / "vae.safetensors", "vae", WanVAE21(config), Storage("float32"))
    store = ModelStore(Snapshot({"vae": tmp_path / "vae.safetensors"}, tmp_path / "none", {}), "auto")
    no_dit = dit_sizes(2, 1, 1, 0, freq_dim=1, text_dim=1, clip_dim=1)  # hundreds of bytes: only the VAE is looked at
    plan = predict(ModelSizes(dit=no_dit, vae=config), job, CPU, "resident", tile)
    tiling = Tiling(tile, 8) if tile else None
    segments, width, height = job.segments, job.width, job.height
    pictures = np.random.default_rng(0).random((segments.segments[0].frames, height, width, 3), np.float32)
    peaks = {}
    with Measured(peaks) as measured:
        vae = store.get("vae", Recorder())
        latent = np.array(vae.encode(mx.array(pictures[:1]), tiling=tiling))
        vae.encode(mx.array(pictures[:, ::2, ::2]), tiling=tiling)
        latent = np.repeat(latent, job.longest.frames, axis=1)
        if len(segments.segments) > 1:
            list(vae.decode(mx.array(latent)))
            vae.encode(mx.array(pictures[: segments.overlap]), tiling=tiling)
        measured.take("encode")
        decode_segment(vae, latent, tiling, lambda: None, lambda share: None)
        measured.take("decode")
    assert_near(plan, "encode", peaks["encode"])
    assert_near(plan, "decode", peaks["decode"])


TEXT_CASES = {
    "bf16": (UMT5Config(vocab_size=5000, dim=512, dim_attn=512, dim_ffn=1024, num_heads=8, num_layers=3, num_buckets=32), "bfloat16", (200, 1)),
    "float32": (UMT5Config(vocab_size=90, dim=384, dim_attn=512, dim_ffn=2048, num_heads=16, num_layers=4, num_buckets=32), "float32", (512,)),
    "two prompts": (UMT5Config(vocab_size=90, dim=768, dim_attn=768, dim_ffn=2048, num_heads=6, num_layers=3, num_buckets=32), "bfloat16", (300, 300)),
}


@pytest.mark.parametrize("case", TEXT_CASES)
def test_reading_the_prompt(case, tmp_path):
    config, dtype, lengths = TEXT_CASES[case]
    storage = Storage(dtype)
    save(tmp_path / "text.safetensors", "t5_encoder", UMT5Encoder(config), storage)
    store = ModelStore(Snapshot({"t5_encoder": tmp_path / "text.safetensors"}, tmp_path / "none", {}), "auto")
    job = Job(text_tokens=lengths)
    plan = predict(ModelSizes(text=config, text_storage=storage), job, CPU, "streamed")
    peaks = {}
    with Measured(peaks) as measured:
        encode_text(store.get("t5_encoder", Recorder()), [[i % 90 for i in range(n)] for n in lengths], lambda: None)
        measured.take("text")
    assert_near(plan, "text", peaks["text"])


CLIP_CASES = {
    "bf16": (ClipConfig(dim=640, num_heads=8, num_layers=3, mlp_dim=2560, out_dim=64, patch_size=14, image_size=224), "bfloat16"),
    "float32": (ClipConfig(dim=320, num_heads=4, num_layers=4, mlp_dim=1280, out_dim=64, patch_size=14, image_size=448), "float32"),
}


@pytest.mark.parametrize("case", CLIP_CASES)
def test_looking_at_the_reference(case, tmp_path):
    config, dtype = CLIP_CASES[case]
    storage = Storage(dtype)
    save(tmp_path / "clip.safetensors", "clip", ClipVision(config), storage)
    settings = {"clip_num_heads": config.num_heads}
    store = ModelStore(Snapshot({"clip": tmp_path / "clip.safetensors"}, tmp_path / "none", settings), "auto")
    plan = predict(ModelSizes(clip=config, clip_storage=storage), Job(), CPU, "resident")
    peaks = {}
    with Measured(peaks) as measured:
        encode_clip(store.get("clip", Recorder()), np.zeros((64, 64, 3), np.float32))
        measured.take("clip")
    assert_near(plan, "clip", peaks["clip"])
