"""Judge a snapshot on held-out samples through the project's own pipeline: `python -m training.evaluate SNAPSHOT`.

Prints what was measured and the bar of each measure. Seeds are fixed, and none of them was trained on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_backend.pipelines.generate import Prompts, generate
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.runtime.device import require_mlx
from mlx_backend.spec.conversion import ConvertOptions
from mlx_backend.spec.events import LogListener
from mlx_backend.spec.requests import Economy, SamplingSettings, Scene
from mlx_backend.weights.convert import convert, open_source
from mlx_backend.weights.snapshot import Snapshot
from world.scenes import MODES, Example, Group

from .measures import Verdict, decibels, drift, routed, seam_ratio, verdict
from .sizes import FRAMES, SIDE

SETTINGS = SamplingSettings(steps=20, cfg=1.0, shift=3.0, solver="unipc", segment_length=FRAMES, segment_overlap=5)
SWAP_SEEDS = 10_000
LONG_FRAMES = FRAMES + 2 * (FRAMES - SETTINGS.segment_overlap)  # three segments


class Judge:
    """A snapshot and what it makes of examples."""

    def __init__(self, folder: Path, settings: SamplingSettings):
        self._models = Models.of(ModelStore(Snapshot.open(folder), "float32"))
        self._settings = settings

    def frames(self, example: Example, settings: SamplingSettings | None = None) -> np.ndarray:
        """Return the pipeline's frames [F, SIDE, SIDE, 3] in 0..255 for an example."""
        references, masks, driving, driving_mask = (
            pictures.astype(np.float32) / 255
            for pictures in (example.references, example.reference_masks, example.driving, example.driving_mask)
        )
        scene = Scene(
            references=references,
            reference_masks=masks,
            driving=driving,
            driving_mask=driving_mask,
            mode=example.mode,
            width=SIDE,
            height=SIDE,
        )
        made = generate(self._models, Prompts(example.caption), scene, settings or self._settings, None, LogListener())
        return made.clip(0, 1) * 255


def example(seed: int, mode: str, frames: int = FRAMES, people: int | None = None) -> Example:
    """Return a held-out example."""
    return Example.of(Group.random(seed, people), mode, np.arange(frames), SIDE)


def swaps(count: int) -> Iterable[tuple[Example, Example]]:
    """Return pairs of examples of two people that differ in who is who in the reference mask, and in the target."""
    found, seed = 0, SWAP_SEEDS
    while found < count:
        group = Group.random(seed, 2)
        pair = tuple(Example.of(g, "animation", np.arange(FRAMES), SIDE) for g in (group, group.swapped()))
        seed += 1
        if np.array_equal(pair[0].references, pair[1].references):  # nobody hides anybody
            found += 1
            yield pair


def tell(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def judge_modes(judge: Judge, clips: int, pictures: Path | None) -> None:
    """Print motion, identity and backgrounds of both modes."""
    rows = []
    for mode in MODES:
        found: list[Verdict] = []
        for seed in range(clips):
            made = example(seed, mode)
            frames = judge.frames(made)
            found.append(verdict(frames, made))
            rows.append(strip(made, frames))
        near = np.mean([v.motion < 0.04 for v in found])
        right = np.mean([v.kept >= 22 and v.kept >= v.other + 6 for v in found])
        tell(
            f"{mode}, {clips} clips: centroids within 4 % in {near:.0%} (bar 90 %), mean {_mean(found, 'motion'):.1%}; "
            f"parts of the reference's colour {_mean(found, 'identity'):.0%} (bar 90 %); background "
            f"{_mean(found, 'kept'):.1f} dB against the kept scene, {_mean(found, 'other'):.1f} dB against the other, "
            f"as it should be in {right:.0%}; {_mean(found, 'whole'):.1f} dB against the target"
        )
    if pictures is not None:
        Image.fromarray(np.concatenate(rows)).save(pictures)


def judge_swaps(judge: Judge, clips: int) -> None:
    """Print how often the identity colours decide who moves how."""
    right = [routed(judge.frames(plain), judge.frames(turned), plain, turned) for plain, turned in swaps(clips)]
    tell(f"identities swapped, {clips} pairs: people follow their colours in {np.mean(right):.0%} (bar 85 %)")


def judge_long(judge: Judge, clips: int) -> None:
    """Print seams and drift of three segments."""
    seams, drifts = [], []
    for seed in range(clips):
        made = example(seed, "animation", LONG_FRAMES)
        frames = judge.frames(made)
        seams.append(seam_ratio(frames, FRAMES, SETTINGS.segment_overlap))
        drifts.append(drift(frames, made))
    tell(
        f"three segments, {clips} clips: largest jump at a seam {max(seams):.2f} of the largest within (bar 1.5); "
        f"drift of the mean colour at most {max(drifts):.1%} (bar 2 %)"
    )


def judge_ways(folder: Path, settings: SamplingSettings) -> None:
    """Print how far packed weights and step caching move a clip from the same one as it is."""
    made = example(0, "animation")
    plain = Judge(folder, settings).frames(made)
    with tempfile.TemporaryDirectory() as aside:
        for name, options in (("q8", ConvertOptions(bits=8)), ("mixed q4", ConvertOptions(mixed=True))):
            packed = Path(aside) / name.replace(" ", "-")
            convert(open_source(folder), packed, options, LogListener())
            tell(f"{name}: {decibels(Judge(packed, settings).frames(made), plain):.1f} dB from the clip as it is")
    for name in ("easycache", "magcache"):
        cached = replace(settings, economy=Economy(step_cache=name))
        tell(f"{name}: {decibels(Judge(folder, cached).frames(made), plain):.1f} dB from the clip as it is")


def strip(made: Example, frames: np.ndarray) -> np.ndarray:
    """Return reference, then driving clip over target over result, as a picture uint8."""
    chosen = slice(0, None, 4)
    rows = [np.concatenate(list(clip[chosen]), axis=1) for clip in (made.driving, made.target.pictures, frames.round())]
    clips = np.concatenate(rows).astype(np.uint8)
    beside = np.zeros((len(clips), SIDE, 3), np.uint8)
    beside[:SIDE], beside[SIDE : 2 * SIDE] = made.references[0], made.reference_masks[0]
    return np.concatenate([beside, clips], axis=1)


def _mean(found: list[Verdict], name: str) -> float:
    return float(np.mean([min(getattr(v, name), 99.0) for v in found]))


def main() -> None:
    """Judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--clips", type=int, default=20, help="of each kind")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps)
    parser.add_argument("--pictures", type=Path, help="write reference, driving, target and result of each clip here")
    parser.add_argument("--only", choices=("modes", "swaps", "long", "ways"), help="one part of it")
    asked = parser.parse_args()
    require_mlx()
    settings = replace(SETTINGS, steps=asked.steps)
    judge = Judge(asked.snapshot, settings)
    parts = {
        "modes": lambda: judge_modes(judge, asked.clips, asked.pictures),
        "swaps": lambda: judge_swaps(judge, asked.clips),
        "long": lambda: judge_long(judge, max(1, asked.clips // 4)),
        "ways": lambda: judge_ways(asked.snapshot, settings),
    }
    for name, part in parts.items():
        if asked.only in (None, name):
            part()


if __name__ == "__main__":
    main()
