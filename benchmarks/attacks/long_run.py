"""Many runs in one process, with failures and cancels between them: memory is back afterwards where it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import mlx.core as mx
import numpy as np
import psutil

from mlx_backend.interface.errors import BackendError, Cancelled
from mlx_backend.interface.events import Listener, Progress
from mlx_backend.pipelines.generate import generate
from mlx_backend.pipelines.pictures import prepare
from mlx_backend.pipelines.run import Session
from mlx_backend.pipelines.store import Models, ModelStore
from mlx_backend.pipelines.text import Prompts
from mlx_backend.weights.checkpoints.snapshot import Snapshot

from .stage import SNAPSHOT
from .tally import Tally
from .tiny import a_sampling, a_scene

SETTLING = 6  # runs of every kind, as many as are counted at most, after which memory has settled
GROWTH = 24 << 20  # bytes of resident memory that allocators may keep more


class Stopper(Listener):
    """Cancels, or fails with an error of another kind, after so many events."""

    def __init__(self, after: int, error: type[Exception] | None) -> None:
        self._left, self._error = after, error

    def progress(self, event: Progress) -> None:  # noqa: ARG002 - only counted
        """Count."""
        self._left -= 1

    def check_cancelled(self) -> None:
        """Stop when it is time."""
        if self._error is not None and self._left < 0:
            raise self._error("by the campaign")  # a new one: an error that is kept keeps what it passed through


def attack(count: int, seed: int, folder: Path) -> Iterator[Tally]:
    """Make `count` runs; every third is cancelled and every third fails. Yields one tally, of runs and of memory."""
    generator, tally = np.random.default_rng(seed), Tally("long run")
    store = ModelStore(Snapshot.open(SNAPSHOT), "auto", cache=folder / "cache")
    before, expected, settled, settling = 0, None, 0, min(SETTLING, count)
    for number in range(count + settling):
        error = (None, Cancelled, RuntimeError)[number % 3]
        finding, frames = _run(store, Stopper(int(generator.integers(12)), error), folder / "kept" / str(number))
        expected = frames if expected is None else expected
        if frames is not None and not np.array_equal(frames, expected):
            finding = f"run {number} made other frames than the first"
        active, resident = _memory(store)
        before = active if number == 0 else before
        if number < settling:
            settled = max(settled, resident)
            continue
        if active > before:
            finding = f"after run {number} MLX holds {active} bytes, after the first {before}"
        if resident > settled + GROWTH:
            finding = f"after run {number} {resident >> 20} MB are resident, {settled >> 20} MB had settled"
        tally.add(finding)
    tally.notes = [f"{settled >> 20} MB resident after {settling} runs, {resident >> 20} MB after all"]
    yield tally


def _run(store: ModelStore, listener: Stopper, kept: Path) -> tuple[str | None, np.ndarray | None]:
    session = Session(listener=listener, kept=kept)
    with suppress(BackendError, RuntimeError):
        run = prepare(Models.of(store), Prompts("a puppet"), a_scene(), a_sampling(), session)
        return None, generate(run, None, session)
    return None, None


def _memory(store: ModelStore) -> tuple[int, int]:
    """Return what MLX holds and what is resident when the networks are given back."""
    store.release()
    gc.collect()
    return mx.get_active_memory(), psutil.Process().memory_info().rss
