"""`plan`: what a run will hold in memory on machines of several sizes, and about how long it will take."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..interface.errors import RequestError
from ..interface.geometry import check_size
from ..interface.settings import complete
from ..interface.variants import RESIDENCIES
from ..members.member import Member
from ..members.scail2 import MEMBER
from ..runtime.device import require_mlx
from .options import given_by, option

if TYPE_CHECKING:
    from ..planning.planner import Job, ModelSizes

MACHINES = (16, 24, 32, 64, 128)  # GB of unified memory
BITS = (4, 5, 6, 8)


def add_command(commands) -> None:  # noqa: ANN001 - argparse has no public type for it
    """Describe the command to argparse."""
    parser = commands.add_parser(
        "plan",
        help="predict memory and time of a run, without running or loading anything",
        description="Predicts what MLX will hold in every phase on Macs of 16 to 128 GB, and how the run should be "
        "done there. Nothing is loaded. Times are estimates from rates that others measured.",
    )
    add = parser.add_argument
    add("--model", type=Path, metavar="DIR", help="a snapshot to take the sizes from (default: SCAIL-2 14B in bf16)")
    for name in ("width", "height"):
        option(add, name)
    frames = MEMBER.defaults.segment_length
    add("--frames", type=int, help=f"of the driving video (default {frames})")
    for name in ("segment_length", "segment_overlap"):
        option(add, name)
    add("--references", type=int, default=1, metavar="N", help="reference pictures (default %(default)s)")
    add("--bits", type=int, choices=BITS, help="weights packed in so many bits (default: as the model has them)")
    add("--residency", default=RESIDENCIES[0], choices=RESIDENCIES, help="of the DiT's blocks (default %(default)s)")
    add("--memory", type=float, metavar="GB", help="plan for one machine with so much unified memory")
    add("--json", action="store_true", help="print one object for programs; its top level is the smallest machine's")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> None:
    """Print the table, or the object. Raises RequestError for settings that no run can have."""
    require_mlx()
    from ..planning.prediction import Prediction, machine_row

    model = _model(chosen)
    job = _job(chosen, model.member)
    rows = [machine_row(model, job, gigabytes, chosen.residency) for gigabytes in _machines(chosen.memory)]
    prediction = Prediction.of(model, job)
    if chosen.json:
        sys.stdout.write(json.dumps(prediction.as_json(rows), indent=1) + "\n")
    else:
        sys.stdout.write("\n".join(prediction.lines(rows)) + "\n")


def _model(chosen: argparse.Namespace) -> ModelSizes:
    from ..planning.planner import ModelSizes

    model = ModelSizes() if chosen.model is None else _read(chosen.model)
    return model if chosen.bits is None else model.packed(chosen.bits)


def _read(folder: Path) -> ModelSizes:
    """Return the sizes of a snapshot, from its headers. Raises WeightsError."""
    from ..pipelines.planning import model_sizes
    from ..pipelines.store import ModelStore
    from ..weights.checkpoints.snapshot import Snapshot

    store = ModelStore(Snapshot.open(folder), "auto")
    return model_sizes(store.member, {component: store.sizes(component) for component in store.snapshot.files})


def _job(chosen: argparse.Namespace, member: Member) -> Job:
    from ..planning.planner import Job

    defaults = member.defaults
    sizes = complete(given_by(chosen), defaults)
    check_size(sizes["width"], sizes["height"], member.size_step, member.title)
    if chosen.references < 1:
        raise RequestError(f"There are {chosen.references} reference pictures, but at least 1 is needed.")
    frames = (defaults.frames or defaults.segment_length) if chosen.frames is None else chosen.frames
    job = Job(**sizes, frames=frames, references=chosen.references, space=member.space)
    if not job.segments.segments:
        raise RequestError("There is nothing to plan: the driving video has no frames.")
    return job


def _machines(memory: float | None) -> tuple[float, ...]:
    if memory is None:
        return MACHINES
    if not 1 <= memory <= 1 << 20:
        raise RequestError(f"--memory is {memory:g} GB, but a machine with 1 to {1 << 20} GB can be planned for.")
    return (memory,)
