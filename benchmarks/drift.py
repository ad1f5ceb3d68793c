"""How colours drift over some segments, for each way of continuing.

`python -m benchmarks.drift [--snapshot DIR] [--segments 5] [--steps 12] [--side 96]`. Two tables. "model": the
snapshot's own DiT. "synthetic": in its place a stand-in that predicts the clip that should come out, in the colours of
the frames it continues from, drifted a little more in each segment; so the drift is known, and only what is done
against it differs. Mean and deviation of L* (0..100) of the frames that each segment adds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS
import numpy as np  # noqa: E402

from benchmarks.machine import heading  # noqa: E402
from mlx_backend.interface.continuation import Continuation  # noqa: E402
from mlx_backend.interface.events import LogListener  # noqa: E402
from mlx_backend.interface.geometry import latent_frames  # noqa: E402
from mlx_backend.interface.segments import SegmentPlan, plan_segments  # noqa: E402
from mlx_backend.interface.settings import sampling_of  # noqa: E402
from mlx_backend.interface.small_model import SMALL_MODEL  # noqa: E402
from mlx_backend.media.colour import colours_of  # noqa: E402
from mlx_backend.members.scail2.defaults import SCAIL2  # noqa: E402
from mlx_backend.members.scail2.streams import window  # noqa: E402
from mlx_backend.models.scail2 import Scail2Model  # noqa: E402
from mlx_backend.pipelines.generate import generate  # noqa: E402
from mlx_backend.pipelines.pictures import prepare  # noqa: E402
from mlx_backend.pipelines.run import Session  # noqa: E402
from mlx_backend.pipelines.store import Models, ModelStore, get_vae  # noqa: E402
from mlx_backend.pipelines.text import encode_prompts  # noqa: E402
from mlx_backend.weights.checkpoints.snapshot import Snapshot  # noqa: E402
from training.evaluate import scene_of, shares  # noqa: E402
from training.sizes import FRAMES as LENGTH  # noqa: E402
from training.sizes import OVERLAP, SIDE  # noqa: E402
from world.scenes import Example, Group  # noqa: E402

SEED = 11
GAIN, SHIFT = 1.03, 0.04  # of each channel's deviation and mean, per segment
WAYS = {
    f"{way.history},{way.anchor},{way.seed}": way
    for way in (
        Continuation(),
        Continuation(seed="fixed"),
        Continuation(seed="advancing"),
        Continuation(history="latents"),
        Continuation(anchor="lab"),
        Continuation(anchor="latent"),
        Continuation(history="latents", anchor="latent"),
    )
}


class Quiet(LogListener):
    """What odd masks and sizes are warned of is no news here."""

    def warn(self, message: str) -> None:
        """Ignore warnings."""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="benchmarks.drift", description=__doc__)
    parser.add_argument(
        "--snapshot", type=Path, default=SMALL_MODEL, metavar="DIR", help="(default: the small one of the pack)"
    )
    parser.add_argument("--segments", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--side", type=int, default=SIDE, help="of the pictures, in pixels (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=[*WAYS], metavar="WAY", help="pixels,lab,running")
    chosen = parser.parse_args()
    side = chosen.side
    mx.set_default_device(mx.cpu)
    models = Models.of(ModelStore(Snapshot.open(chosen.snapshot), "auto"))
    count = LENGTH + (chosen.segments - 1) * (LENGTH - OVERLAP)
    made = Example.of(Group.random(SEED, 2), "animation", np.arange(count), side)
    plan = plan_segments(count, LENGTH, OVERLAP)
    sys.stdout.write(
        f"{heading('drift')}\n{chosen.snapshot.name}, {chosen.segments} segments of {LENGTH} frames, {side}x{side}, "
        f"{chosen.steps} steps; mean/deviation of L*\n"
    )
    for name in ("model", "synthetic"):
        sys.stdout.write(
            f"\n| {name}: history, anchor, seed | {' | '.join(map(str, range(1, chosen.segments + 1)))} |\n"
        )
        sys.stdout.write("| --- |" + " ---: |" * chosen.segments + "\n")
        for called in chosen.only:
            way = WAYS[called]
            with stand_in(models, made, plan) if name == "synthetic" else nullcontext():
                frames = run(models, made, way, chosen.steps)
            cells = cells_of(frames, plan)
            sys.stdout.write(f"| {way.history}, {way.anchor}, {way.seed} | {' | '.join(cells)} |\n")
            sys.stdout.flush()
        sys.stdout.write(
            f"| the clip that should come out | {' | '.join(cells_of(shares(made.target.pictures), plan))} |\n"
        )


def cells_of(frames: np.ndarray, plan: SegmentPlan) -> list[str]:
    """Return mean and deviation of each segment as text."""
    return [f"{mean:.1f}/{deviation:.1f}" for mean, deviation in lightness(frames, plan)]


def run(models: Models, made: Example, way: Continuation, steps: int) -> np.ndarray:
    """Return the frames of all segments."""
    listener = Quiet()
    text = encode_prompts(models.text_encoder, made.caption, "", listener)
    scene = scene_of(made)
    given = {"steps": steps, "cfg": 1.0, "solver": "euler", "grid": "simple"}
    given |= {"segment_length": LENGTH, "segment_overlap": OVERLAP}
    settings = replace(sampling_of(given, SCAIL2), continuation=way)
    session = Session(listener=listener)
    return generate(prepare(models, text, scene, settings, session), None, session)


def lightness(frames: np.ndarray, plan: SegmentPlan) -> Iterator[tuple[float, float]]:
    """Yield mean and deviation of L* of the frames that each segment adds."""
    for segment in plan.segments:
        colours = colours_of(frames[segment.start + segment.history : segment.start + segment.frames])
        yield colours.mean[0], colours.deviation[0]


@contextmanager
def stand_in(models: Models, made: Example, plan: SegmentPlan) -> Iterator[None]:
    """Put a model in place of the DiT's passes whose colours are those of its history, and a known step further."""
    vae, clip = get_vae(models.vae, Quiet()), shares(made.target.pictures)
    targets = [np.array(vae.encode(mx.array(window(clip, segment)) * 2 - 1)) for segment in plan.segments]
    conditioned: list[object] = []
    condition = Scail2Model.condition

    def condition_next(self: Scail2Model, *arguments: object) -> object:
        conditioned.append(condition(self, *arguments))
        return conditioned[-1]

    def velocity(_: Scail2Model, x: mx.array, t: float, *__: object) -> mx.array:
        number = len(conditioned) - 1
        picture = mx.array(continued(targets[number], np.array(x), number))
        return (x - picture) / (t / 1000)

    with (
        mock.patch.object(Scail2Model, "condition", condition_next),
        mock.patch.object(Scail2Model, "__call__", velocity),
    ):
        yield


def continued(target: np.ndarray, x: np.ndarray, number: int) -> np.ndarray:
    """Return a target [16, T, h, w] in the colours of the known frames of x, drifted once; the first one as it is."""
    if number == 0:
        return target
    over, known = (1, 2, 3), latent_frames(OVERLAP)
    theirs, own = x[:, :known], target[:, :known]
    gain = GAIN * theirs.std(axis=over, keepdims=True) / own.std(axis=over, keepdims=True)
    centre = theirs.mean(axis=over, keepdims=True) + SHIFT
    return ((target - own.mean(axis=over, keepdims=True)) * gain + centre).astype(np.float32)


if __name__ == "__main__":
    main()
