"""`generate`: pictures, videos and a prompt to a video, without ComfyUI."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from ..interface.errors import RequestError
from ..interface.machine import chosen_memory
from ..interface.pictures import Pictures
from ..interface.presets import PRESETS, Preset, check_distilled, find_preset
from ..interface.requests import LoraRequest, SamplingSettings, Scene
from ..interface.segments import KEPT
from ..interface.settings import sampling_of, scene_of
from ..interface.variants import PROCESSES, RESIDENCIES, Defaults
from ..media.footage import Footage, open_footage
from ..media.read import read_video
from ..media.write import check_output, write_video
from ..runtime.device import PRECISIONS, require_mlx
from ..weights.checkpoints.snapshot import Snapshot
from .family import add_options, by_expert, negative_of, noise_of, parts_of, pictures_of
from .listener import TerminalListener
from .options import defaults_of, given_by, option

CACHE = Path("~/.cache/scail2-mlx/conditioning")
# Options that follow the preset's, in their order.
SAMPLED = (
    *("steps", "cfg", "shift", "solver", "grid", "pose_rope", "seed", "segment_length", "segment_overlap"),
    *("step_cache", "cache_threshold", "guidance_until", "history", "colour_anchor", "segment_seed"),
)


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
    option(add, "mode")
    add("--prompt", default="", metavar="P", help="what the video shows")
    add("--negative", metavar="N", help="what it should not show (default: the model's own, none for SCAIL-2)")
    add_options(add)
    for name in ("width", "height"):
        option(add, name)
    option(add, "follow_orientation", flag="--keep-orientation")
    option(add, "black_background", flag="--keep-background")
    add(
        "--resample",
        type=float,
        metavar="F",
        help="show the driving video and its mask at this frame rate, picked by time: the model was trained on 16. "
        "--start-frame and --max-frames count after it",
    )
    add("--fps", type=float, metavar="F", help="frame rate of the output (default: the driving video's, else 16)")
    option(add, "start_frame")
    option(add, "max_frames", flag="--max-frames", other="--frames")
    add(
        "--preset",
        metavar="|".join(PRESETS),
        help="steps, cfg, shift, solver and grid together; each of these options, where given, wins. None has been "
        "tried on real weights, see docs/fewer_passes.md",
    )
    for name in SAMPLED:
        option(add, name)
    kept = parser.add_mutually_exclusive_group().add_argument
    kept(
        "--resume",
        type=Path,
        metavar="DIR",
        help="where finished segments are kept, so that a run that was stopped goes on from them the next time "
        f"(default: {KEPT} beside the output; at most 4 GiB, the oldest go first)",
    )
    kept("--no-resume", action="store_true", help="keep no segments, and make all of them anew")
    add("--report", action="store_true", help="write settings, seconds and peak memory to OUTPUT.report.json")
    option(add, "draft")
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
    add("--process", default=PROCESSES[0], metavar="|".join(PROCESSES), help="of the networks (%(default)s)")
    add("--no-cache", action="store_true", help=f"do not keep encoded prompts and pictures (in {CACHE})")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Check everything, generate, write. Raises BackendError."""
    check_output(chosen.output)
    _check_inputs_stay(chosen)
    memory, cache = chosen_memory(chosen.memory, "--memory"), None if chosen.no_cache else CACHE.expanduser()
    snapshot = find_model(chosen)
    given_loras = (chosen.lora, chosen.lora_high, chosen.lora_low)
    lists = (tuple(parse_lora(text, allow_unknown=chosen.allow_unknown) for text in each) for each in given_loras)
    loras, low_loras = by_expert(snapshot, *lists)
    preset = None if chosen.preset is None else find_preset(chosen.preset)
    listener = TerminalListener()
    if preset is not None and not loras and not (chosen.cfg or 0) > 1:
        check_distilled(chosen.preset, (), "give it with --lora")
    defaults, noise = defaults_of(snapshot), noise_of(chosen)
    scene, settings = _asked(chosen, defaults, preset, listener)
    fps = scene.fps if chosen.fps is None else chosen.fps
    shown = scene.max_frames or defaults.frames if scene.driving is None else len(scene.driving[scene.cut])
    check_output(chosen.output, shown, fps)
    require_mlx()
    from ..pipelines.decode import Tiling
    from ..pipelines.generate import generate
    from ..pipelines.pictures import prepare
    from ..pipelines.recording import Recording, report_run
    from ..pipelines.run import Session
    from ..pipelines.store import Models, ModelStore
    from ..pipelines.text import Prompts
    from ..workers.pool import Pool, wants_own_process

    pool = Pool() if wants_own_process(chosen.process) else None
    store = ModelStore(snapshot, chosen.precision, chosen.residency, cache, memory, pool)
    models, prompts = Models.of(store, loras, low_loras), Prompts(chosen.prompt, negative_of(chosen, snapshot))
    tiling = Tiling(chosen.tile_size, chosen.tile_overlap) if chosen.tile_size else None
    recording = Recording(listener) if chosen.report else None
    session = Session(listener=recording or listener, kept=_kept(chosen))
    made = prepare(models, prompts, scene, settings, session, start=noise)
    frames = generate(made, tiling, session)
    report = None if recording is None else report_run(made, recording)
    write_video(chosen.output, frames, fps)
    if report is not None:
        listener.note(f"The report is in {_keep_report(chosen.output, str(report))}.")


def _asked(
    chosen: argparse.Namespace, defaults: Defaults, preset: Preset | None, listener: TerminalListener
) -> tuple[Scene, SamplingSettings]:
    """Return the pictures of a run and how it is sampled. Raises RequestError."""
    driving, driving_mask = (_video(path, chosen.resample, listener) for path in (chosen.driving, chosen.driving_mask))
    pictures = {
        "references": _pictures(chosen.reference),
        "driving": driving,
        "reference_masks": _pictures(chosen.reference_mask),
        "driving_mask": driving_mask,
    } | pictures_of(chosen)
    given = given_by(chosen) | {"driving_fps": driving.fps if isinstance(driving, Footage) else None}
    scene = scene_of(given, pictures, defaults)
    own = {} if preset is None else preset.values(scene.width, scene.height)
    return scene, sampling_of(own | {name: value for name, value in given.items() if value is not None}, defaults)


def _kept(chosen: argparse.Namespace) -> Path | None:
    """Return the folder of finished segments: beside the output, as ComfyUI's nodes have it in the output folder."""
    return None if chosen.no_resume else chosen.resume or chosen.output.resolve().parent / KEPT


def _video(path: Path | None, fps: float | None, listener: TerminalListener) -> Pictures | None:
    """Return a video as it is asked for; one whose rate varies, at its average rate if at no other."""
    made = None if path is None else open_footage(path)
    rate = fps or getattr(made, "fps", None)
    return made.at_rate(rate, listener) if isinstance(made, Footage) and rate else made


def _pictures(path: Path | None) -> np.ndarray | None:
    return None if path is None else read_video(path).frames


def _keep_report(output: Path, report: str) -> Path:
    """Write a report beside the output, under a name that nothing has yet, and return its path. Raises OSError."""
    from ..pipelines.kept_files import keep_new_file

    names = (f"{output.name}.report{f'.{n}' * (n > 1)}.json" for n in itertools.count(1))
    return keep_new_file((output.with_name(name) for name in names), lambda file: file.write(report.encode()))


def find_model(chosen: argparse.Namespace) -> Snapshot:
    """Return the parts of the model that the options name. Raises WeightsError and RequestError."""
    named = {
        "dit": chosen.dit,
        "vae": chosen.vae,
        "t5_encoder": chosen.text_encoder,
        "clip": chosen.clip,
        "tokenizer": chosen.tokenizer,
    }
    parts = {name: path for name, path in named.items() if path is not None} | parts_of(chosen)
    if chosen.model is None and not parts:
        raise RequestError("No model was given: name its folder with --model DIR.")
    kind = chosen.kind
    return Snapshot.assemble(chosen.model, parts, kind=kind) if parts or kind else Snapshot.open(chosen.model)


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
    for name in ("reference", "driving", "reference_mask", "driving_mask", "image", "last_image", "noise"):
        path = getattr(chosen, name)
        if path is not None and path.resolve().is_relative_to(chosen.output.resolve()):
            raise RequestError(
                f"The output {chosen.output} would replace {path}, which --{name.replace('_', '-')} names: "
                "choose another output."
            )
