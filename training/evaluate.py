"""Judge a snapshot on held-out samples through the project's own pipeline: `python -m training.evaluate [SNAPSHOT]`.

Prints what was measured and the bar of each measure. Seeds are fixed, and none of them was trained on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from mlx_backend.interface.conversion import ConvertOptions
from mlx_backend.interface.events import LogListener
from mlx_backend.interface.requests import Economy, SamplingSettings, Scene
from mlx_backend.interface.settings import sampling_of
from mlx_backend.interface.small_model import SMALL_MODEL, SMALL_SETTINGS
from mlx_backend.members.scail2.defaults import SCAIL2
from mlx_backend.pipelines.generate import generate
from mlx_backend.pipelines.pictures import prepare
from mlx_backend.pipelines.run import Session
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.pipelines.text import Prompts
from mlx_backend.weights.checkpoints.convert import convert, open_source
from mlx_backend.weights.checkpoints.snapshot import Snapshot
from world.scenes import MODES, Example, Group

from .faults import FAULTS, fault
from .measures import Verdict, decibels, drift, routed, seam_ratio, verdict
from .sizes import FRAMES, OVERLAP, SIDE

SETTINGS = sampling_of(SMALL_SETTINGS | {"cfg": 1.0, "segment_length": FRAMES, "segment_overlap": OVERLAP}, SCAIL2)
SWAP_SEEDS = 10_000
SEGMENTS = 3
LONG_FRAMES = FRAMES + (SEGMENTS - 1) * (FRAMES - OVERLAP)


@dataclass(frozen=True, slots=True)
class Measure:
    """Something measured over clips, and whether it is good enough."""

    name: str
    found: str
    bar: str
    passes: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.passes else 'FAIL'} {self.name}: {self.found} (bar: {self.bar})"


class Judge:
    """A snapshot and what it makes of examples."""

    def __init__(self, folder: Path, settings: SamplingSettings):
        self._models = Models.of(ModelStore(Snapshot.open(folder), "float32"))
        self._settings = settings

    def frames(self, example: Example) -> np.ndarray:
        """Return the pipeline's frames [F, SIDE, SIDE, 3] in 0..255 for an example."""
        prompts, scene = Prompts(example.caption), scene_of(example)
        session = Session(listener=LogListener())
        made = generate(prepare(self._models, prompts, scene, self._settings, session), None, session)
        return made.clip(0, 1) * 255


def shares(pictures: np.ndarray) -> np.ndarray:
    """0..255 to 0..1, float32."""
    return pictures.astype(np.float32) / 255


def scene_of(example: Example) -> Scene:
    """Return an example as the pipeline is given it."""
    height, width = example.driving.shape[1:3]
    return Scene(
        references=shares(example.references),
        reference_masks=shares(example.reference_masks),
        driving=shares(example.driving),
        driving_mask=shares(example.driving_mask),
        mode=example.mode,
        width=width,
        height=height,
        fps=SCAIL2.driving_fps,
    )


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


def judge_modes(judge: Judge, clips: int, pictures: Path | None = None) -> Iterator[Measure]:
    """Yield motion, identity and backgrounds of both modes."""
    rows = []
    for mode in MODES:
        found: list[Verdict] = []
        for seed in range(clips):
            made = example(seed, mode)
            frames = judge.frames(made)
            found.append(verdict(frames, made))
            rows.append(strip(made, frames))
        near = np.mean([v.motion < 0.04 for v in found])
        kept, other, identity = (_mean(found, name) for name in ("kept", "other", "identity"))
        by_colour = f"{np.mean([v.by_colour < 0.04 for v in found]):.0%}, {_mean(found, 'by_colour'):.1%}"
        what = f"{near:.0%} of {clips} clips, mean distance {_mean(found, 'motion'):.1%} (by colours alone {by_colour})"
        yield Measure(f"{mode}, centroids within 4 % of the width", what, "90 %", near >= 0.9)
        shown = _mean(found, "followed")
        yield Measure(f"{mode}, the target's change over time", f"{shown:.0%}", "above 0, a still", shown > 0)
        yield Measure(f"{mode}, parts of the reference's colour", f"{identity:.0%}", "90 %", identity >= 0.9)
        what = f"{kept:.1f} dB, {other:.1f} dB against the other scene"
        yield Measure(f"{mode}, background", what, "22 dB, other 6 dB below", kept >= 22 and kept >= other + 6)
        whole = _mean(found, "whole")
        yield Measure(f"{mode}, whole picture against the target", f"{whole:.1f} dB", "none", passes=True)
    if pictures is not None:
        Image.fromarray(np.concatenate(rows)).save(pictures)


def judge_swaps(judge: Judge, clips: int) -> Iterator[Measure]:
    """Yield how often the identity colours decide who moves how."""
    right = np.mean(
        [routed(judge.frames(plain), judge.frames(turned), plain, turned) for plain, turned in swaps(clips)]
    )
    what = f"{right:.0%} of {clips} pairs"
    yield Measure("identity colours swapped, people swapped", what, "85 %", right >= 0.85)


def judge_long(judge: Judge, clips: int) -> Iterator[Measure]:
    """Yield seams and drift of several segments."""
    seams, drifts = [], []
    for seed in range(clips):
        made = example(seed, "animation", LONG_FRAMES)
        frames = judge.frames(made)
        seams.append(seam_ratio(frames, FRAMES, OVERLAP))
        drifts.append(drift(frames, made))
    what = f"{max(seams):.2f} of the largest step within, worst of {clips} clips"
    yield Measure(f"{SEGMENTS} segments, largest jump at a seam", what, "1.5", max(seams) <= 1.5)
    yield Measure(f"{SEGMENTS} segments, drift of the mean colour", f"{max(drifts):.1%}", "2 %", max(drifts) <= 0.02)


def judge_ways(folder: Path, settings: SamplingSettings, clips: int) -> Iterator[Measure]:
    """Yield how far packed weights and step caching move clips from the same ones as they are."""
    examples = [example(seed, "animation") for seed in range(clips)]
    plain = [Judge(folder, settings).frames(made) for made in examples]

    def compared(name: str, judge: Judge) -> Measure:
        made = np.mean([decibels(judge.frames(e), p) for e, p in zip(examples, plain, strict=True)])
        return Measure(f"{name}, against the clips as they are", f"{made:.1f} dB", "none", passes=True)

    with tempfile.TemporaryDirectory() as aside:
        for name, options in (("q8", ConvertOptions(bits=8)), ("mixed q4", ConvertOptions(mixed=True))):
            packed = Path(aside) / name.replace(" ", "-")
            convert(open_source(folder), packed, options, LogListener())
            yield compared(name, Judge(packed, settings))
    for name in ("easycache", "magcache"):
        yield compared(name, Judge(folder, replace(settings, economy=Economy(step_cache=name))))


def judge_faults(folder: Path, settings: SamplingSettings, clips: int) -> Iterator[Measure]:
    """Yield for each fault which measures see it: those that the same clips pass without it."""

    def measured(name: str | None) -> list[Measure]:
        with fault(name):
            judge = Judge(folder, settings)
            return [*judge_modes(judge, clips), *judge_swaps(judge, clips), *judge_long(judge, clips)]

    passed = {measure.name for measure in measured(None) if measure.passes}
    for name, what in FAULTS.items():
        seen = [str(measure) for measure in measured(name) if not measure.passes and measure.name in passed]
        yield Measure(f"fault '{name}' ({what})", "".join(f"\n    {s}" for s in seen) or "unseen", "seen", bool(seen))


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
    parser.add_argument("snapshot", type=Path, nargs="?", default=SMALL_MODEL, help="(default: %(default)s)")
    parser.add_argument("--clips", type=int, default=20, help="of each kind")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps)
    parser.add_argument("--pictures", type=Path, help="write reference, driving, target and result of each clip here")
    parser.add_argument("--only", choices=("modes", "swaps", "long", "ways", "faults"), help="one part of it")
    asked = parser.parse_args()
    settings = replace(SETTINGS, steps=asked.steps)
    judge = Judge(asked.snapshot, settings)
    few = max(1, asked.clips // 4)
    parts = {
        "modes": lambda: judge_modes(judge, asked.clips, asked.pictures),
        "swaps": lambda: judge_swaps(judge, asked.clips),
        "long": lambda: judge_long(judge, few),
        "ways": lambda: judge_ways(asked.snapshot, settings, few),
        "faults": lambda: judge_faults(asked.snapshot, settings, few),
    }
    for name, part in parts.items():
        if asked.only in (None, name):
            for measure in part():
                sys.stdout.write(f"{measure}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
