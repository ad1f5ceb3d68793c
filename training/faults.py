"""Mistakes that ports of video models make, put into the running pipeline on purpose: do the measures see them?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import mlx.core as mx
import numpy as np

from mlx_backend.members.scail2 import streams
from mlx_backend.members.scail2.masks import TEMPORAL, packed
from mlx_backend.models import scail2
from mlx_backend.models.conditioning import Known
from mlx_backend.models.vae_layers import Stream
from mlx_backend.pipelines.continuing import Continuing


def _colour_first(mask: np.ndarray) -> np.ndarray:
    """Channel = colour x 4 + frame, where the model knows frame x 7 + colour."""
    right = packed(mask)
    return right.reshape(TEMPORAL, -1, *right.shape[1:]).swapaxes(0, 1).reshape(right.shape)


def _nothing_known(history, self: Continuing, number: int, made: list, size) -> Known:  # noqa: ANN001
    known = history(self, number, made, size)
    return Known(mx.zeros_like(known.mask), known.clean)


def _forgetful(_: Stream, __: object, frame: mx.array, count: int) -> list[mx.array]:
    """As if every frame had always been as it is: nothing is carried from piece to piece."""
    return [frame] * count


@contextmanager
def fault(name: str | None) -> Iterator[None]:
    """Put one of FAULTS into the pipeline, or none."""
    match name:
        case None:
            yield
        case "rope":
            with patch.object(scail2, "SHIFT", scail2.SHIFT - 1):
                yield
        case "masks":
            with patch.object(streams, "packed", _colour_first):
                yield
        case "history":
            right = Continuing.history
            dropped = lambda *given: _nothing_known(right, *given)  # noqa: E731
            with patch.object(Continuing, "history", dropped):
                yield
        case "cache" | "causality":
            last = Stream.last
            wrong = _forgetful if name == "cache" else lambda *given: last(*given)[::-1]
            with patch.object(Stream, "last", wrong):
                yield
        case _:
            raise ValueError(f"The fault '{name}' is unknown: choose one of {', '.join(FAULTS)}.")


FAULTS = {
    "rope": "the driving video's positions are moved by 119 patches instead of 120",
    "masks": "the 28 mask channels run colour by colour instead of frame by frame",
    "history": "later segments do not know the frames that they continue from",
    "cache": "the VAE carries no frames from piece to piece",
    "causality": "the VAE's convolutions meet the past where the present should be",
}
