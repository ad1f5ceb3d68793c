"""`generate`: pictures, videos and a prompt to a video, without ComfyUI."""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..interface.continuation import ANCHORS, HISTORIES, SEGMENT_SEEDS, Continuation
from ..interface.errors import RequestError
from ..interface.presets import NO_PRESET, PRESETS, Preset, find_preset
from ..interface.requests import STEP_CACHES, Economy, LoraRequest, SamplingSettings, Scene
from ..interface.variants import GRIDS, MODES, POSE_ROPES, RESIDENCIES, SCAIL2, SOLVERS
from ..media.read import read_video
from ..media.write import check_output, write_video
from ..runtime.device import PRECISIONS, require_mlx
from ..weights.checkpoints.snapshot import Snapshot
from .listener import TerminalListener

CACHE = Path("~/.cache/scail2-mlx/conditioning")


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "generate",
        help="animate a reference picture with a driving video",
        description="Media are pictures, videos, folders of frames, or .npy arrays [F,H,W,3] (uint8, or float32 in "
        "0..1), by extension. The output likewise: .mp4, .png (one frame), .npy (float32), or a folder.",
    )
    add = parser.add_argument
    add("--model", type=Path, metavar="DIR", help="a SCAIL-2 snapshot, or any folder that holds the model's files")
    add("--dit", type=Path, metavar="PATH", help="the diffusion transformer: a file or folder, instead of --model's")
    add("--vae", type=Path, metavar="PATH", help="the VAE")
    add("--text-encoder", type=Path, metavar="PATH", help="the UMT5 text encoder")
    add("--clip", type=Path, metavar="PATH", help="the CLIP visual tower")
    add("--tokenizer", type=Path, metavar="PATH", help="tokenizer.json or spiece.model of UMT5")
    add("--reference", type=Path, metavar="R", help="the character (several frames: extra views)")
    add("--driving", type=Path, metavar="D", help="the motion")
    add("--reference-mask", type=Path, metavar="RM", help="the character in pure blue on white (replacement: black)")
    add("--driving-mask", type=Path, metavar="DM", help="the person in pure blue on black (replacement: white)")
    add("--output", type=Path, required=True, metavar="O", help="what to write")
    add("--mode", default=MODES[0], metavar="|".join(MODES), help="whose scene is kept: the reference's or the video's")
    add("--prompt", default="", metavar="P", help="what the video shows")
    add("--negative", default="", metavar="N", help="what it should not show")
    add("--width", type=int, default=SCAIL2.width, help="pixels, a multiple of 32 (default %(default)s)")
    add("--height", type=int, default=SCAIL2.height, help="pixels, a multiple of 32 (default %(default)s)")
    add("--keep-orientation", action="store_true", help="do not swap width and height to the reference's orientation")
    add("--keep-background", action="store_true", help="do not black out the reference's background in replacement")
    add("--fps", type=float, metavar="F", help="frame rate of the output (default: the driving video's, else 16)")
    add("--start-frame", type=int, default=0, metavar="N", help="first driving frame to use")
    add("--max-frames", type=int, default=0, metavar="N", help="most frames to use (0: all)")
    add(
        "--preset",
        metavar="|".join(PRESETS),
        help="steps, cfg, shift, solver and grid together; each of these options, where given, wins. None has been "
        "tried on real weights, see docs/fewer_passes.md",
    )
    own = NO_PRESET
    add("--steps", type=int, help=f"solver steps per segment (default {own.steps}, or the preset's)")
    add("--cfg", type=float, help=f"guidance; 1 halves the work (default {own.cfg}, or the preset's)")
    add("--shift", type=float, help=f"sigma shift (default {own.shift}, or the preset's)")
    add("--solver", metavar="|".join(SOLVERS), help=f"(default {own.solver}, or the preset's)")
    add(
        "--grid",
        metavar="|".join(GRIDS),
        help=f"where the sigmas lie; simple: as ComfyUI's scheduler (default {own.grid}, or the preset's)",
    )
    add(
        "--pose-rope",
        default=POSE_ROPES[0],
        metavar="|".join(POSE_ROPES),
        help="rotation of the driving video's positions; midpoint: as ComfyUI (default %(default)s)",
    )
    add("--seed", type=int, default=0, metavar="S", help="(default %(default)s)")
    add("--segment-length", type=int, default=SCAIL2.segment_length, metavar="N", help="(default %(default)s)")
    add("--segment-overlap", type=int, default=SCAIL2.segment_overlap, metavar="N", help="(default %(default)s)")
    add(
        "--step-cache",
        default=STEP_CACHES[0],
        metavar="|".join(STEP_CACHES),
        help="reuse velocities; not validated on real weights, see docs/fewer_passes.md (default %(default)s)",
    )
    add(
        "--cache-threshold",
        type=float,
        default=Economy().threshold,
        metavar="F",
        help="error that it may gather (default %(default)s)",
    )
    add("--guidance-until", type=float, default=1.0, metavar="F", help="share of the steps with both passes (1: all)")
    standing = Continuation()
    add(
        "--history",
        default=standing.history,
        metavar="|".join(HISTORIES),
        help="what a segment continues from, see docs/long_video.md (default %(default)s)",
    )
    add(
        "--colour-anchor",
        default=standing.anchor,
        metavar="|".join(ANCHORS),
        help="how later segments keep the first one's colours (default %(default)s)",
    )
    add(
        "--segment-seed",
        default=standing.seed,
        metavar="|".join(SEGMENT_SEEDS),
        help="the noise of later segments: one generator, the same seed, the seed plus their number "
        "(default %(default)s)",
    )
    add("--resume", type=Path, metavar="DIR", help="keep finished segments there, and go on from them the next time")
    add("--report", action="store_true", help="write settings, seconds and peak memory to OUTPUT.report.json")
    add("--draft", action="store_true", help="a preview: half the size, the first 33 frames, same seed and framing")
    add("--tile-size", type=int, default=0, metavar="N", help="decode in tiles of N pixels (0: where needed)")
    add("--tile-overlap", type=int, default=64, metavar="N", help="(default %(default)s)")
    add(
        "--lora",
        action="append",
        default=[],
        metavar="FILE:STRENGTH",
        help="a LoRA (repeatable; strength 1 if left out)",
    )
    add("--allow-unknown", action="store_true", help="use a LoRA although many of its names fit nothing in this model")
    add("--precision", default=PRECISIONS[0], metavar="|".join(PRECISIONS), help="(default %(default)s)")
    add("--residency", default=RESIDENCIES[0], metavar="|".join(RESIDENCIES), help="of the DiT's blocks (%(default)s)")
    add("--memory", type=float, default=0, metavar="GB", help="what a run may take (0: what suits the machine)")
    add("--no-cache", action="store_true", help=f"do not keep encoded prompts and pictures (in {CACHE})")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Check everything, generate, write. Raises BackendError."""
    check_output(chosen.output)
    _check_inputs_stay(chosen)
    snapshot = find_model(chosen)
    loras = tuple(parse_lora(text, allow_unknown=chosen.allow_unknown) for text in chosen.lora)
    preset = NO_PRESET if chosen.preset is None else find_preset(chosen.preset)
    settings = _settings(preset, chosen)
    listener = TerminalListener()
    if preset.needs and not loras:
        listener.warn(f"No --lora was given. {preset.needs}")
    driving = None if chosen.driving is None else read_video(chosen.driving)
    driven_fps = (driving and driving.fps) or SCAIL2.fps
    fps = driven_fps if chosen.fps is None else chosen.fps
    scene = Scene(
        references=_pictures(chosen.reference),
        driving=driving and driving.frames,
        reference_masks=_pictures(chosen.reference_mask),
        driving_mask=_pictures(chosen.driving_mask),
        mode=chosen.mode,
        width=chosen.width,
        height=chosen.height,
        start_frame=chosen.start_frame,
        max_frames=chosen.max_frames,
        follow_orientation=not chosen.keep_orientation,
        black_background=not chosen.keep_background,
        draft=chosen.draft,
        fps=driven_fps,
    )
    check_output(chosen.output, scene.max_frames if scene.driving is None else len(scene.driving[scene.cut]), fps)
    require_mlx()
    from ..pipelines.decode import Tiling
    from ..pipelines.generate import generate
    from ..pipelines.pictures import prepare
    from ..pipelines.recording import Recording, report_run
    from ..pipelines.run import Session
    from ..pipelines.store import Models, ModelStore
    from ..pipelines.text import Prompts

    cache = None if chosen.no_cache else CACHE.expanduser()
    store = ModelStore(snapshot, chosen.precision, chosen.residency, cache, int(chosen.memory * 1e9))
    models, prompts = Models.of(store, loras), Prompts(chosen.prompt, chosen.negative)
    tiling = Tiling(chosen.tile_size, chosen.tile_overlap) if chosen.tile_size else None
    recording = Recording(listener) if chosen.report else None
    session = Session(listener=recording or listener, kept=chosen.resume)
    made = prepare(models, prompts, scene, settings, session)
    frames = generate(made, tiling, session)
    report = None if recording is None else report_run(made, recording)
    write_video(chosen.output, frames, fps)
    if report is not None:
        listener.note(f"The report is in {_keep_report(chosen.output, str(report))}.")


def _pictures(path: Path | None) -> np.ndarray | None:
    return None if path is None else read_video(path).frames


def _keep_report(output: Path, report: str) -> Path:
    """Write a report beside the output, under a name that nothing has yet, and return its path. Raises OSError."""
    from ..pipelines.kept_files import keep_new_file

    names = (f"{output.name}.report{f'.{n}' * (n > 1)}.json" for n in itertools.count(1))
    return keep_new_file((output.with_name(name) for name in names), lambda file: file.write(report.encode()))


def _settings(preset: Preset, chosen: argparse.Namespace) -> SamplingSettings:
    basis = preset.settings(
        chosen.width,
        chosen.height,
        steps=chosen.steps,
        cfg=chosen.cfg,
        shift=chosen.shift,
        solver=chosen.solver,
        grid=chosen.grid,
    )
    return replace(
        basis,
        seed=chosen.seed,
        segment_length=chosen.segment_length,
        segment_overlap=chosen.segment_overlap,
        pose_rope=chosen.pose_rope,
        economy=Economy(
            step_cache=chosen.step_cache, threshold=chosen.cache_threshold, guidance_until=chosen.guidance_until
        ),
        continuation=Continuation(history=chosen.history, anchor=chosen.colour_anchor, seed=chosen.segment_seed),
    )


def find_model(chosen: argparse.Namespace) -> Snapshot:
    """Return the parts of the model that the options name. Raises WeightsError and RequestError."""
    named = {
        "dit": chosen.dit,
        "vae": chosen.vae,
        "t5_encoder": chosen.text_encoder,
        "clip": chosen.clip,
        "tokenizer": chosen.tokenizer,
    }
    parts = {name: path for name, path in named.items() if path is not None}
    if chosen.model is None and not parts:
        raise RequestError("No model was given: name its folder with --model DIR.")
    return Snapshot.assemble(chosen.model, parts) if parts else Snapshot.open(chosen.model)


def parse_lora(text: str, *, allow_unknown: bool) -> LoraRequest:
    """Return the request of `FILE` or `FILE:STRENGTH`. Raises RequestError."""
    file, colon, strength = text.rpartition(":")
    if not colon:
        return LoraRequest(Path(text), allow_unknown=allow_unknown)
    try:
        return LoraRequest(Path(file), float(strength), allow_unknown)
    except ValueError as error:
        raise RequestError(
            f"--lora {text} has the strength '{strength}', which is no number: write FILE:STRENGTH, e.g. a.pt:0.8."
        ) from error


def _check_inputs_stay(chosen: argparse.Namespace) -> None:
    for name in ("reference", "driving", "reference_mask", "driving_mask"):
        path = getattr(chosen, name)
        if path is not None and path.resolve().is_relative_to(chosen.output.resolve()):
            raise RequestError(
                f"The output {chosen.output} would replace {path}, which --{name.replace('_', '-')} names: "
                "choose another output."
            )
