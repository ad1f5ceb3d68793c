"""Passes saved by step caching and by keeping the guidance, against the error of the final latent.

`python -m benchmarks.step_cache [--steps 40]`. The tiny golden model of the tests, whose weights are random:
MagCache's and the guidance's passes are those of any run of as many steps, EasyCache's follow this model's velocities,
which change by almost a half per step. The errors say nothing of pictures.
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
from mlx_backend.pipelines.pictures import prepare, sample_pictures  # noqa: E402
from mlx_backend.pipelines.run import Session  # noqa: E402
from mlx_backend.pipelines.store import Models, ModelStore  # noqa: E402
from mlx_backend.pipelines.text import encode_prompts  # noqa: E402
from mlx_backend.weights.checkpoints.snapshot import Snapshot  # noqa: E402

SNAPSHOT = Path(__file__).parents[1] / "tests" / "data" / "goldens" / "snapshot"
CFG, SEED = 5.0, 7
WIDTH, HEIGHT, FRAMES = 96, 64, 9
TRIED = (
    Economy(),
    *(Economy(step_cache="easycache", threshold=t) for t in (0.0, 0.05, 0.2, 0.5, 0.75, 1.0)),
    *(Economy(step_cache="magcache", threshold=t) for t in (0.0, 0.05, 0.12, 0.24)),
    *(Economy(guidance_until=share) for share in (0.75, 0.5, 0.25)),
    Economy(step_cache="easycache", threshold=1.0, guidance_until=0.5),
    Economy(step_cache="magcache", threshold=0.12, guidance_until=0.5),
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
    steps = parser.parse_args().steps
    mx.set_default_device(mx.cpu)
    count = PassCount()
    lines = [
        heading("step_cache"),
        f"tiny model of random weights, {WIDTH}x{HEIGHT}, {FRAMES} frames, {steps} steps, cfg {CFG:g}, unipc",
        f"  {'step cache':<12}{'threshold':>10}{'guidance until':>16}{'passes':>10}{'saved':>8}{'latent error':>14}",
    ]
    models = Models.of(ModelStore(Snapshot.open(SNAPSHOT), "float32"))
    full = None
    for economy in TRIED:
        latent = final_latent(models, economy, steps, count)
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


def final_latent(models: Models, economy: Economy, steps: int, listener: LogListener) -> np.ndarray:
    """Sample a scene of drawn noise: the latent [16, T, H, W]."""
    drawn = np.random.default_rng(SEED)
    scene = Scene(
        references=drawn.random((1, HEIGHT, WIDTH, 3), np.float32),
        driving=drawn.random((FRAMES, HEIGHT, WIDTH, 3), np.float32),
        width=WIDTH,
        height=HEIGHT,
    )
    settings = replace(SamplingSettings(steps=steps, cfg=CFG, seed=SEED), economy=economy)
    text = encode_prompts(models.text_encoder, "The character dances.", "", listener)
    session = Session(listener=listener)
    return sample_pictures(prepare(models, text, scene, settings, session), session).segments[0]


if __name__ == "__main__":
    main()
