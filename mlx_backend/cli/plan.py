"""`plan`: what a run will hold in memory on machines of several sizes, and about how long it will take."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..interface.errors import RequestError
from ..interface.geometry import check_size
from ..interface.variants import RESIDENCIES, SCAIL2
from ..runtime.device import require_mlx

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
    add("--width", type=int, default=SCAIL2.width, help="pixels, a multiple of 32 (default %(default)s)")
    add("--height", type=int, default=SCAIL2.height, help="pixels, a multiple of 32 (default %(default)s)")
    add("--frames", type=int, default=SCAIL2.segment_length, help="of the driving video (default %(default)s)")
    add("--segment-length", type=int, default=SCAIL2.segment_length, metavar="N", help="(default %(default)s)")
    add("--segment-overlap", type=int, default=SCAIL2.segment_overlap, metavar="N", help="(default %(default)s)")
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

    model, job = _model(chosen), _job(chosen)
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


def _job(chosen: argparse.Namespace) -> Job:
    from ..planning.planner import Job

    check_size(chosen.width, chosen.height)
    if chosen.references < 1:
        raise RequestError(f"There are {chosen.references} reference pictures, but at least 1 is needed.")
    job = Job(
        width=chosen.width,
        height=chosen.height,
        frames=chosen.frames,
        segment_length=chosen.segment_length,
        segment_overlap=chosen.segment_overlap,
        references=chosen.references,
    )
    if not job.segments.segments:
        raise RequestError("There is nothing to plan: the driving video has no frames.")
    return job


def _machines(memory: float | None) -> tuple[float, ...]:
    if memory is None:
        return MACHINES
    if not 1 <= memory <= 1 << 20:
        raise RequestError(f"--memory is {memory:g} GB, but a machine with 1 to {1 << 20} GB can be planned for.")
    return (memory,)
