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
from support import GOLDENS, Recorder, a_job, a_sampling, a_scene, generate

from mlx_backend.conditioning.clip import encode_clip
from mlx_backend.conditioning.text import encode_text
from mlx_backend.interface.events import LogListener
from mlx_backend.interface.sizes import ClipConfig, Scail2Config, UMT5Config, VAEConfig
from mlx_backend.interface.tiling import Tiling
from mlx_backend.models.clip_vision import ClipVision
from mlx_backend.models.scail2 import Reference, Scail2Model, Streams
from mlx_backend.models.umt5 import UMT5Encoder
from mlx_backend.models.vae21 import WanVAE21
from mlx_backend.pipelines.decode import decode_segment
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.pipelines.text import Prompts
from mlx_backend.planning.memory import CPU
from mlx_backend.planning.planner import PHASES, Job, ModelSizes, predict
from mlx_backend.planning.storage import Storage
from mlx_backend.planning.weights import weights
from mlx_backend.runtime.crossover import few_rows
from mlx_backend.sampling.loop import denoise
from mlx_backend.sampling.solvers import make_solver
from mlx_backend.weights.checkpoints.detect import dit_settings
from mlx_backend.weights.checkpoints.snapshot import Snapshot
from mlx_backend.weights.names.layouts import snapshot_name

BAR = 0.15
VAE = VAEConfig(dim=8, z_dim=16, dim_mult=(1, 2, 4, 4), num_res_blocks=2, temporal_downsample=(False, True, True))


def dit_sizes(dim, ffn_dim, heads, layers, **others):
    return Scail2Config(
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


class Peaks(dict):
    """The most that MLX held in each phase, beyond what it held when the measuring began."""

    def __init__(self):
        super().__init__()
        gc.collect()  # what earlier tests left must not go while this one is measured
        mx.clear_cache()
        self._before = mx.get_active_memory()
        mx.reset_peak_memory()

    def take(self, phase):
        """Count the peak since the last call to `phase`."""
        self[phase] = max(self.get(phase, 0), mx.get_peak_memory() - self._before)
        mx.reset_peak_memory()


def noise(*shape):
    return mx.array(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def assert_near(plan, phase, measured):
    predicted = plan.phases[phase].bytes
    terms = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in plan.phases[phase].terms)
    told = f"{phase}: predicted {predicted / 1e6:.1f} MB ({terms}), measured {measured / 1e6:.1f} MB"
    assert abs(predicted / measured - 1) <= BAR, told


@dataclass(frozen=True)
class Case:
    """A DiT (width, feed-forward, heads, layers), how it is stored and run, and what it is to make."""

    sizes: tuple[int, int, int, int]
    storage: Storage
    residency: str
    job: Job
    text_dim: int = 256
    clip_dim: int = 160
    groups: int = 1

    @property
    def dit(self):
        return dit_sizes(*self.sizes, text_dim=self.text_dim, clip_dim=self.clip_dim)


def job(width, height, frames, **others):
    return a_job(width=width, height=height, frames=frames, **others)


F32, BF16 = Storage("float32"), Storage("bfloat16")
DIT_CASES = {
    "float32": Case((512, 1024, 4, 3), F32, "resident", job(256, 192, 9)),
    "bf16": Case((512, 1024, 4, 3), BF16, "resident", job(192, 192, 9)),
    "bf16, streamed": Case((512, 1024, 4, 6), BF16, "streamed", job(256, 128, 9)),
    "float32, streamed": Case((768, 2048, 6, 4), F32, "streamed", job(128, 128, 9)),
    "float16, streamed": Case((640, 1280, 5, 3), Storage("float16"), "streamed", job(96, 160, 5)),
    "4 bits": Case((768, 3072, 6, 2), Storage(bits=4), "resident", job(128, 128, 5)),
    "8 bits, streamed": Case((640, 2560, 5, 3), Storage(bits=8), "streamed", job(128, 128, 5)),
    "6 bits, groups of 32": Case((512, 2048, 4, 2), Storage("float32", 6, 32), "resident", job(128, 128, 1)),
    "3 references": Case((384, 1536, 6, 2), BF16, "resident", job(192, 192, 5, references=3)),
    "groups of heads": Case((512, 512, 8, 2), BF16, "resident", job(320, 256, 9), groups=4),
    "two groups, packed": Case((512, 1024, 4, 2), Storage(bits=8), "streamed", job(256, 256, 9), groups=2),
    "many heads": Case((256, 512, 16, 2), F32, "resident", job(256, 192, 5)),
    "several chunks": Case((256, 256, 2, 1), BF16, "resident", job(512, 448, 5)),
    "wide feed-forward": Case((256, 8192, 2, 2), F32, "resident", job(256, 256, 5)),
    "wide text": Case((256, 256, 2, 1), BF16, "streamed", job(64, 64, 1), text_dim=4096, clip_dim=1280),
    "segments": Case((512, 1024, 4, 2), BF16, "streamed", job(192, 192, 21, segment_length=9)),
}


@pytest.mark.parametrize("case", DIT_CASES)
def test_loading_and_denoising(case, tmp_path):
    found = DIT_CASES[case]
    config, storage, residency, job = found.dit, found.storage, found.residency, found.job
    save(tmp_path / "dit.safetensors", "dit", Scail2Model(config), storage, weights(config).matrices)
    save(tmp_path / "vae.safetensors", "vae", WanVAE21(VAE), Storage("float32"))
    files = {"dit": tmp_path / "dit.safetensors", "vae": tmp_path / "vae.safetensors"}
    store = ModelStore(Snapshot(files, tmp_path / "none", dit_settings(config)), "auto", residency)
    model = ModelSizes(dit=config, vae=VAE, dit_storage=storage)
    plan = predict(model, job, replace(CPU, head_groups=found.groups), residency)
    few_rows.cache_clear()  # loading measures a packed product once per process and shape
    size, frames = job.longest, job.longest.frames
    peaks = Peaks()
    dit = store.get_dit((), Recorder(), residency)
    dit.attend_in_groups(found.groups)
    store.get("vae", Recorder())
    peaks.take("load")
    reference = (16, 1, size.height, size.width)
    streams = Streams(
        references=tuple(Reference(noise(*reference), None) for _ in range(job.references)),
        driving=noise(16, frames, size.height // 2, size.width // 2),
        driving_mask=None,
        replacement=False,
    )
    text, picture = noise(12, config.text_dim), noise(257, config.clip_dim)
    contexts = [dit.embed_context(text, picture), dit.embed_context(text, picture)]  # with and without prompt
    conditioning = dit.condition(contexts[0], size.shape[1:], streams)

    def velocity(x, t):
        return dit(x, t, conditioning, lambda: None)

    denoise(velocity, make_solver("unipc", 1, 3.0), noise(*size.shape), None, lambda *_: None)
    peaks.take("denoise")
    assert_near(plan, "load", peaks["load"])
    assert_near(plan, "denoise", peaks["denoise"])


# Width of the VAE, what it is to make, tiles in pixels.
VAE_CASES = {
    "wide": (32, job(128, 96, 5), 0),
    "longer": (16, job(160, 128, 9), 0),
    "tiles": (16, job(256, 128, 5), 128),
    "segments": (24, job(96, 64, 13, segment_length=9), 0),
}


@pytest.mark.parametrize("case", VAE_CASES)
def test_encoding_and_decoding(case, tmp_path):
    dim, job, tile = VAE_CASES[case]
    config = replace(VAE, dim=dim)
    save(tmp_path / "vae.safetensors", "vae", WanVAE21(config), Storage("float32"))
    store = ModelStore(Snapshot({"vae": tmp_path / "vae.safetensors"}, tmp_path / "none", {}), "auto")
    no_dit = dit_sizes(2, 1, 1, 1, freq_dim=1, text_dim=1, clip_dim=1)  # hundreds of bytes: only the VAE is looked at
    plan = predict(ModelSizes(dit=no_dit, vae=config), job, CPU, "resident", tile)
    tiling = Tiling(tile, 8) if tile else None
    segments, width, height = job.segments, job.width, job.height
    pictures = np.random.default_rng(0).random((segments.segments[0].frames, height, width, 3), np.float32)
    peaks = Peaks()
    vae = store.get("vae", Recorder())
    latent = np.array(vae.encode(mx.array(pictures[:1]), tiling=tiling))
    vae.encode(mx.array(pictures[:, ::2, ::2]), tiling=tiling)
    latent = np.repeat(latent, job.longest.frames, axis=1)
    if len(segments.segments) > 1:
        list(vae.decode(mx.array(latent)))
        vae.encode(mx.array(pictures[: segments.overlap]), tiling=tiling)
    peaks.take("encode")
    decode_segment(vae, latent, tiling, lambda: None, lambda share: None)
    peaks.take("decode")
    assert_near(plan, "encode", peaks["encode"])
    assert_near(plan, "decode", peaks["decode"])


def umt5_sizes(dim, dim_attn, dim_ffn, heads, layers):
    sizes = {"dim": dim, "dim_attn": dim_attn, "dim_ffn": dim_ffn, "num_heads": heads, "num_layers": layers}
    return UMT5Config(vocab_size=5000, num_buckets=32, **sizes)


TEXT_CASES = {  # sizes, how they are stored, tokens of the prompts
    "bf16": (umt5_sizes(512, 512, 1024, 8, 3), BF16, (200, 1)),
    "float32": (umt5_sizes(384, 512, 2048, 16, 4), F32, (512,)),
    "two prompts": (umt5_sizes(768, 768, 2048, 6, 3), BF16, (300, 300)),
}


@pytest.mark.parametrize("case", TEXT_CASES)
def test_reading_the_prompt(case, tmp_path):
    config, storage, lengths = TEXT_CASES[case]
    save(tmp_path / "text.safetensors", "t5_encoder", UMT5Encoder(config), storage)
    store = ModelStore(Snapshot({"t5_encoder": tmp_path / "text.safetensors"}, tmp_path / "none", {}), "auto")
    job = a_job(text_tokens=lengths)
    plan = predict(ModelSizes(text=config, text_storage=storage), job, CPU, "streamed")
    peaks = Peaks()
    encode_text(store.get("t5_encoder", Recorder()), [[i % 90 for i in range(n)] for n in lengths], lambda: None)
    peaks.take("text")
    assert_near(plan, "text", peaks["text"])


def clip_sizes(dim, heads, layers, image_size):
    sizes = {"dim": dim, "mlp_dim": 4 * dim, "num_heads": heads, "num_layers": layers, "image_size": image_size}
    return ClipConfig(out_dim=64, patch_size=14, **sizes)


CLIP_CASES = {
    "bf16": (clip_sizes(640, 8, 3, 224), BF16),
    "float32": (clip_sizes(320, 4, 4, 448), F32),
}


@pytest.mark.parametrize("case", CLIP_CASES)
def test_looking_at_the_reference(case, tmp_path):
    config, storage = CLIP_CASES[case]
    save(tmp_path / "clip.safetensors", "clip", ClipVision(config), storage)
    settings = {"clip_num_heads": config.num_heads}
    store = ModelStore(Snapshot({"clip": tmp_path / "clip.safetensors"}, tmp_path / "none", settings), "auto")
    plan = predict(ModelSizes(clip=config, clip_storage=storage), a_job(), CPU, "resident")
    peaks = Peaks()
    encode_clip(store.get("clip", Recorder()), np.zeros((64, 64, 3), np.float32))
    peaks.take("clip")
    assert_near(plan, "clip", peaks["clip"])


class PeakListener(LogListener):
    """Tells from the events of a run which phase a peak belongs to."""

    PHASES = {
        "loading t5_encoder": "text",
        "encoding the prompt": "text",
        "loading clip": "clip",
        "showing the reference to CLIP": "clip",
        "loading dit": "load",
        "loading vae": "load",
        "encoding the reference": "encode",
        "encoding the driving video": "encode, and the first step",
        "sampling": "denoise",
    }

    def __init__(self):
        self.peaks = Peaks()
        self._phase = "before"

    def progress(self, event):
        self.peaks.take("decode" if event.phase == "decoding" else self._phase)
        self._phase = self.PHASES.get(event.phase, "decode")

    def note(self, message):
        pass


def test_a_whole_run_from_prompt_to_frames(tmp_path):
    text, clip = umt5_sizes(512, 512, 1024, 8, 3), clip_sizes(320, 4, 3, 224)
    config, vae = dit_sizes(384, 1024, 3, 4, text_dim=text.dim, clip_dim=clip.dim), replace(VAE, dim=16)
    files = {name: tmp_path / f"{name}.safetensors" for name in ("dit", "vae", "t5_encoder", "clip")}
    save(files["dit"], "dit", Scail2Model(config), Storage(bits=8), weights(config).matrices)
    save(files["vae"], "vae", WanVAE21(vae), F32)
    save(files["t5_encoder"], "t5_encoder", UMT5Encoder(text), BF16)
    save(files["clip"], "clip", ClipVision(clip), BF16)
    settings = dit_settings(config) | {"clip_num_heads": clip.num_heads}
    store = ModelStore(Snapshot(files, GOLDENS / "snapshot" / "tokenizer.json", settings), "auto", "streamed")
    asked = job(160, 128, 5, text_tokens=(120, 1))
    pictures = np.random.default_rng(0).random((asked.frames, asked.height, asked.width, 3), np.float32)
    scene = a_scene(references=pictures[:1], driving=pictures, width=asked.width, height=asked.height)
    prompts, steps = Prompts("x" * 118), a_sampling(steps=2, cfg=1, seed=1)
    listener = PeakListener()
    generate(Models.of(store), prompts, scene, steps, None, listener)
    model = ModelSizes(
        dit=config,
        vae=vae,
        text=text,
        clip=clip,
        dit_storage=Storage(bits=8),
        text_storage=BF16,
        clip_storage=BF16,
    )
    plan = predict(model, asked, CPU, "streamed")
    for phase in PHASES:
        assert_near(plan, phase, listener.peaks[phase])
