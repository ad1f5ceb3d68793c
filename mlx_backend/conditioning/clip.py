"""The reference picture as CLIP sees it. Source: `wan/modules/clip.py` of Wan-Video/Wan2.1."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from ..media.resize import stretched_bicubic
from ..models.clip_vision import ClipVision

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def encode_clip(tower: ClipVision, picture: np.ndarray) -> np.ndarray:
    """Return the tokens [257, dim], float32, of a picture [H, W, 3] in 0..1, which is stretched to a square."""
    square = stretched_bicubic(picture, *[tower.config.image_size] * 2)
    tokens = tower(mx.array(((square - MEAN) / STD).transpose(2, 0, 1)))
    return np.array(tokens.astype(mx.float32))
