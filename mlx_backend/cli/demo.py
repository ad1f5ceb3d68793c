"""`demo`: the shipped sample through the small model of the pack, to see that everything works on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..interface.errors import MediaError, RequestError
from ..interface.settings import sampling_of, scene_of
from ..interface.small_model import ASSETS, SMALL_MODEL, SMALL_SETTINGS
from ..media.contact_sheet import contact_sheet
from ..media.decode import reason_of
from ..media.read import read_video
from ..media.write import write_video
from ..members.scail2.defaults import SCAIL2
from ..runtime.device import require_mlx
from .listener import TerminalListener

PROMPT = "a puppet dances"


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "demo",
        help="run the sample picture and video through a small model",
        description="Needs no download. The small model knows nothing but puppets; --model takes a real one.",
    )
    parser.add_argument("--output", type=Path, default=Path("output"), metavar="DIR", help="(default %(default)s)")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a real snapshot instead of the small one")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Write DIR/demo.mp4 and DIR/demo.png, and print where they are. Raises BackendError."""
    if not ASSETS.is_dir():
        raise RequestError(f"The sample pictures are missing ({ASSETS}): run the demo from a checkout of the project.")
    try:
        chosen.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(
            f"The folder {chosen.output} cannot be made ({reason_of(error)}): choose another --output."
        ) from error
    require_mlx()
    from ..pipelines.generate import generate
    from ..pipelines.pictures import prepare
    from ..pipelines.run import Session
    from ..pipelines.store import Models, ModelStore
    from ..pipelines.text import Prompts
    from ..weights.checkpoints.snapshot import Snapshot

    driving = read_video(ASSETS / "driving.mp4")
    pictures = {
        "references": read_video(ASSETS / "reference.png").frames,
        "reference_masks": read_video(ASSETS / "reference_mask.png").frames,
        "driving": driving.frames,
        "driving_mask": read_video(ASSETS / "driving_mask.mp4").frames,
    }
    scene = scene_of({}, pictures, SCAIL2)
    settings = sampling_of({} if chosen.model else SMALL_SETTINGS, SCAIL2)
    models = Models.of(ModelStore(Snapshot.open(chosen.model or SMALL_MODEL), "auto"))
    session = Session(listener=TerminalListener())
    frames = generate(prepare(models, Prompts(PROMPT), scene, settings, session), None, session)
    write_video(chosen.output / "demo.mp4", frames, driving.fps or SCAIL2.driving_fps)
    rows = [("reference", scene.references), ("driving video", scene.driving), ("result", frames)]
    write_video(chosen.output / "demo.png", contact_sheet(rows)[None] / 255.0, SCAIL2.driving_fps)
    if not chosen.model:
        sys.stdout.write(
            "The small model knows nothing but puppets of 96x96 pixels; real weights are one option away: --model.\n"
        )
    sys.stdout.write(f"{chosen.output / 'demo.mp4'}\n{chosen.output / 'demo.png'}\n")
