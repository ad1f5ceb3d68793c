"""The reference picture to CLIP tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..conditioning.clip import encode_clip
from ..interface.events import Listener, Progress
from ..runtime.memory import bounded_cache
from .conditioning_cache import ConditioningCache, picture_bytes
from .store import Handle, enter, get_clip


@dataclass(frozen=True, slots=True, eq=False)
class ClipRequest:
    """A picture [1, H, W, 3] in 0..1 for CLIP to see once its final size is known.

    Or, in place of picture and CLIP, the `tokens` [257, dim] that another program's CLIP has made.
    """

    handle: Handle | None
    picture: np.ndarray | None
    tokens: np.ndarray | None = None


def encode_picture(handle: Handle, picture: np.ndarray, others: tuple[Handle, ...], listener: Listener) -> np.ndarray:
    """Return the tokens [257, dim] of a picture [H, W, 3] in 0..1: from the cache, or from CLIP.

    `others` are the handles whose networks make room for CLIP.
    """
    cache = ConditioningCache(handle.store.cache)
    key = cache.key(handle, picture_bytes(picture))
    tokens = cache.get(key)
    if tokens is None:
        enter("clip", handle, *others)
        listener.check_cancelled()
        with bounded_cache():
            network = get_clip(handle, listener)
            listener.progress(Progress(phase="showing the reference to CLIP", done=0, total=1))
            tokens = encode_clip(network, picture)
        cache.put(key, tokens)
    return tokens
