"""Whole runs: memory as predicted, threads, Cancel, a process of its own."""

from __future__ import annotations

import gc
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from benchmarks.gpu_proof.goldens import FOLDER, Quiet, golden_models, psnr, run_golden
from benchmarks.gpu_proof.rows import Row
from benchmarks.gpu_proof.sizes import Sizes
from mlx_backend.diagnostics.bench import NARROW, write_model
from mlx_backend.diagnostics.primitives import drawn
from mlx_backend.interface.errors import Cancelled
from mlx_backend.interface.events import Progress
from mlx_backend.interface.requests import SamplingSettings, Scene
from mlx_backend.interface.settings import sampling_of
from mlx_backend.interface.sizes import SCAIL2_UMT5, SCAIL2_VAE, ClipConfig
from mlx_backend.members.scail2.defaults import SCAIL2
from mlx_backend.models.clip_vision import ClipVision
from mlx_backend.models.umt5 import UMT5Encoder
from mlx_backend.models.vae21 import WanVAE21
from mlx_backend.pipelines.generate import generate
from mlx_backend.pipelines.pictures import prepare
from mlx_backend.pipelines.run import Session
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.pipelines.text import Prompts
from mlx_backend.planning.memory import Backend
from mlx_backend.planning.planner import PHASES, Job, ModelSizes, predict
from mlx_backend.planning.storage import Storage
from mlx_backend.runtime.machine import this_machine
from mlx_backend.weights.checkpoints.detect import dit_settings
from mlx_backend.weights.checkpoints.snapshot import Snapshot
from mlx_backend.weights.names.layouts import snapshot_name
from mlx_backend.workers.pool import Pool

PEAK_BAR = 1.15  # measured over predicted: small working arrays are not planned for
LAVISH = 0.7  # below it the plan asks for more than it needs, which refuses runs that would fit
SAME_DB = 60.0  # the same frames, but for the order of sums
SEGMENT, OVERLAP = 81, 5  # frames
PHASE_OF = {
    "loading t5_encoder": "text",
    "encoding the prompt": "text",
    "loading clip": "clip",
    "showing the reference to CLIP": "clip",
    "loading dit": "load",
    "loading vae": "load",
    "encoding the reference": "encode",
    "encoding the driving video": "encode",
    "sampling": "denoise",
    "decoding": "decode",
}


class Peaks(Quiet):
    """The most that MLX held in each phase, beyond what it held before the run."""

    def __init__(self) -> None:
        gc.collect()
        mx.clear_cache()
        mx.reset_peak_memory()
        self.peaks: dict[str, int] = {}
        self._before = mx.get_active_memory()
        self._phase = ""

    def progress(self, event: Progress) -> None:
        """Count the peak to the phase that was told last."""
        self.count()
        self._phase = PHASE_OF.get(event.phase, "")

    def count(self) -> None:
        """Count the peak up to now."""
        peak = mx.get_peak_memory() - self._before
        self.peaks[self._phase] = max(self.peaks.get(self._phase, 0), peak)
        mx.reset_peak_memory()


def memory(sizes: Sizes, _seconds: float) -> Iterator[Row]:
    """(6) The predicted and the measured peak of every phase of a run with random weights."""
    dim, vae_dim, text_dim, clip_dim, (width, height, frames) = sizes.run
    machine = this_machine()
    text = replace(SCAIL2_UMT5, vocab_size=5000, dim=text_dim, dim_attn=text_dim, dim_ffn=2 * text_dim, num_heads=8)
    text, clip = replace(text, num_layers=3), _clip(clip_dim)
    dit = replace(NARROW, dim=dim, ffn_dim=2816, num_heads=dim // 128, num_layers=4, text_dim=text_dim)
    dit, vae = replace(dit, clip_dim=clip_dim), replace(SCAIL2_VAE, dim=vae_dim)
    kept = Storage(machine.block_dtype)
    model = ModelSizes(dit=dit, vae=vae, text=text, clip=clip, dit_storage=kept)
    model = replace(model, text_storage=Storage("bfloat16"), clip_storage=Storage("bfloat16"))
    prompt = "x" * 118
    with tempfile.TemporaryDirectory(prefix="scail2-proof-") as name:
        files = {part: Path(name) / f"{part}.safetensors" for part in ("dit", "vae", "t5_encoder", "clip")}
        write_model(files["dit"], dit, getattr(mx, kept.dtype))
        _write(files["vae"], "vae", WanVAE21(vae), mx.float32)
        _write(files["t5_encoder"], "t5_encoder", UMT5Encoder(text), mx.bfloat16)
        _write(files["clip"], "clip", ClipVision(clip), mx.bfloat16)
        settings = dit_settings(dit) | {"clip_num_heads": clip.num_heads}
        snapshot = Snapshot(files, FOLDER / "snapshot" / "tokenizer.json", settings)
        listener = _made(Models.of(ModelStore(snapshot, "auto", "streamed")), prompt, (width, height, frames))
    job = Job(
        width=width, height=height, frames=frames, segment_length=SEGMENT, segment_overlap=OVERLAP, text_tokens=(120, 1)
    )
    plan = predict(model, job, Backend(machine.on_gpu, machine.block_dtype), "streamed")
    for phase in PHASES:
        ratio = listener.peaks[phase] / plan.phases[phase].bytes
        found = f"{listener.peaks[phase] / 1e6:.0f} MB of {plan.phases[phase].bytes / 1e6:.0f} planned, {ratio:.2f}"
        mark = "WRONG" if ratio > PEAK_BAR else "note" if ratio < LAVISH else "right"
        yield Row("memory", f"peak of the phase '{phase}'", found, mark)


def threads(sizes: Sizes, _seconds: float) -> Iterator[Row]:
    """(7) Loaded in one thread and run in another; stopped from another; in a process of its own."""
    case, made = sizes.cases[0], []
    models = golden_models()
    models.dit.store.get_dit((), Quiet())
    models.vae.store.get("vae", Quiet())
    right = run_golden(models, case, Quiet())
    _in_a_thread(lambda: made.append(run_golden(models, case, Quiet())))
    yield _same("loaded in one thread, run in another", made[0] if made else None, right)
    yield _stopped(case)
    yield _same("the run after it", run_golden(models, case, Quiet()), right)
    pool = Pool()
    try:
        away = golden_models(change=lambda store: setattr(store, "elsewhere", pool))
        yield _same("in a process of its own", run_golden(away, case, Quiet()), right)
        held = pool.workers[0].pid
    finally:
        pool.release()
    gone = pool.workers[0].pid is None
    yield Row.judged("threads", "that process ends", f"process {held}, {'ended' if gone else 'there'}", right=gone)


def _same(name: str, found: np.ndarray | None, right: np.ndarray) -> Row:
    if found is None:
        return Row("threads", name, "there were no frames", "WRONG")
    close = psnr(found, right)
    return Row.judged("threads", name, f"{close:.1f} dB (at least {SAME_DB:.0f})", right=close >= SAME_DB)


class Stopped(Quiet):
    """Stops the run once another thread says so."""

    def __init__(self) -> None:
        self.sampling, self.wanted = threading.Event(), threading.Event()

    def progress(self, event: Progress) -> None:
        """Let the other thread know that there is something to stop, and wait for it to say so."""
        if event.phase == "sampling":
            self.sampling.set()
            self.wanted.wait(5)

    def check_cancelled(self) -> None:
        """Raise Cancelled when it is wanted."""
        if self.wanted.is_set():
            raise Cancelled("stopped")


def _stopped(case: int) -> Row:
    listener, name = Stopped(), "Cancel from another thread"
    asked: list[float] = []

    def press() -> None:
        if listener.sampling.wait(60):
            asked.append(time.perf_counter())
            listener.wanted.set()

    other = threading.Thread(target=press)
    other.start()
    try:
        run_golden(golden_models(), case, listener)
    except Cancelled:
        return Row("threads", name, f"stopped after {time.perf_counter() - asked[0]:.3f} s", "right")
    finally:
        listener.sampling.set()
        other.join()
    return Row("threads", name, "the run went on to its end", "WRONG")


def _in_a_thread(work) -> None:  # noqa: ANN001 - any function
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _made(models: Models, prompt: str, size: tuple[int, int, int]) -> Peaks:
    width, height, frames = size
    pictures = np.random.default_rng(0).random((frames, height, width, 3), np.float32)
    scene = Scene(references=pictures[:1], driving=pictures, width=width, height=height, fps=16)
    listener = Peaks()
    session = Session(listener=listener)
    generate(prepare(models, Prompts(prompt), scene, _settings(), session), None, session)
    listener.count()
    return listener


def _settings() -> SamplingSettings:
    own = sampling_of({}, SCAIL2)
    return replace(own, steps=2, cfg=1, seed=1, segment_length=SEGMENT, segment_overlap=OVERLAP)


def _clip(dim: int) -> ClipConfig:
    return ClipConfig(
        dim=dim, mlp_dim=4 * dim, num_heads=dim // 80, num_layers=3, out_dim=64, patch_size=14, image_size=224
    )


def _write(path: Path, component: str, network: nn.Module, dtype: mx.Dtype) -> None:
    """Write random numbers in the shapes of a network, under a snapshot's names."""
    named = tree_flatten(network.parameters())
    mx.save_safetensors(str(path), {snapshot_name(component, name): drawn(a.shape, dtype, 0.02) for name, a in named})
