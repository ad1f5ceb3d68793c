"""Passes saved by step caching and by keeping the guidance, against the error of the final latent.

`python -m benchmarks.step_cache [--steps 40] [--width 96] [--height 64] [--frames 9] [--quick]`. The
tiny golden model of the tests, whose weights are random: MagCache's and the guidance's passes are those of any run of
as many steps, EasyCache's follow this model's velocities, which change by almost a half per step. The errors say
nothing of pictures.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from mlx_backend.runtime.device import require_mlx

require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS
import numpy as np  # noqa: E402

from benchmarks.machine import heading  # noqa: E402
from mlx_backend.interface.events import LogListener  # noqa: E402
from mlx_backend.interface.requests import Economy, SamplingSettings, Scene  # noqa: E402
from mlx_backend.interface.settings import sampling_of  # noqa: E402
from mlx_backend.members.scail2.defaults import SCAIL2  # noqa: E402
from mlx_backend.pipelines.pictures import prepare, sample_pictures  # noqa: E402
from mlx_backend.pipelines.run import Session  # noqa: E402
from mlx_backend.pipelines.store import Models, ModelStore  # noqa: E402
from mlx_backend.pipelines.text import TextFeatures, encode_prompts  # noqa: E402
from mlx_backend.weights.checkpoints.snapshot import Snapshot  # noqa: E402

SNAPSHOT = Path(__file__).parents[1] / "tests" / "data" / "goldens" / "snapshot"
CFG, SEED = 5.0, 7
TRIED = (  # by kind, from little saved to much
    (Economy(),),
    tuple(Economy(step_cache="easycache", threshold=t) for t in (0.0, 0.05, 0.2, 0.5, 0.75, 1.0)),
    tuple(Economy(step_cache="magcache", threshold=t) for t in (0.0, 0.05, 0.12, 0.24)),
    tuple(Economy(guidance_until=share) for share in (0.75, 0.5, 0.25)),
    (Economy(step_cache="easycache", threshold=1.0, guidance_until=0.5),),
    (Economy(step_cache="magcache", threshold=0.12, guidance_until=0.5),),
)


class PassCount(LogListener):
    """Takes the passes from what a run tells at its end."""

    passes: tuple[int, int] = (0, 0)

    def note(self, message: str) -> None:
        """Keep the two numbers."""
        told = re.match(r"(\d+) of (\d+) passes", message)
        if told:
            self.passes = int(told[1]), int(told[2])

    def warn(self, message: str) -> None:
        """Ignore that there are no masks."""


def main() -> None:
    """Print one row per setting."""
    parser = argparse.ArgumentParser(prog="benchmarks.step_cache", description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="of each kind of saving the setting that saves most")
    chosen = parser.parse_args()
    mx.set_default_device(mx.cpu)
    count, scene = PassCount(), drawn_scene(chosen.width, chosen.height, chosen.frames)
    request = sampling_of({"steps": chosen.steps, "cfg": CFG, "seed": SEED}, SCAIL2)
    size = f"{chosen.width}x{chosen.height}, {chosen.frames} frames"
    lines = [
        heading("step_cache"),
        f"tiny model of random weights, {size}, {chosen.steps} steps, cfg {CFG:g}, unipc",
        f"  {'step cache':<12}{'threshold':>10}{'guidance until':>16}{'passes':>10}{'saved':>8}{'latent error':>14}",
    ]
    models = Models.of(ModelStore(Snapshot.open(SNAPSHOT), "float32"))
    text = encode_prompts(models.text_encoder, "The character dances.", "", count)
    full = None
    for economy in (economy for kind in TRIED for economy in (kind[-1:] if chosen.quick else kind)):
        latent = final_latent(models, text, scene, replace(request, economy=economy), count)
        full = latent if full is None else full
        run, due = count.passes
        error = np.linalg.norm(latent - full) / np.linalg.norm(full)
        threshold = "" if economy.step_cache == "off" else f"{economy.threshold:g}"
        lines.append(
            f"  {economy.step_cache:<12}{threshold:>10}{economy.guidance_until:>16g}{f'{run} of {due}':>10}"
            f"{1 - run / due:>8.0%}{error:>14.4f}"
        )
    lines.append("latent error: root of the summed squares of the difference to the first row, over that of the first")
    sys.stdout.write("\n".join(lines) + "\n")


def drawn_scene(width: int, height: int, frames: int) -> Scene:
    """Return a scene of noise."""
    drawn = np.random.default_rng(SEED)
    return Scene(
        references=drawn.random((1, height, width, 3), np.float32),
        driving=drawn.random((frames, height, width, 3), np.float32),
        width=width,
        height=height,
        fps=SCAIL2.driving_fps,
    )


def final_latent(
    models: Models, text: TextFeatures, scene: Scene, settings: SamplingSettings, listener: LogListener
) -> np.ndarray:
    """Sample a scene: the latent [16, T, h, w]."""
    session = Session(listener=listener)
    return sample_pictures(prepare(models, text, scene, settings, session), session).segments[0]


if __name__ == "__main__":
    main()
