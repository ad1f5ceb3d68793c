"""Wan 2.1 I2V 14B: words and the first picture, which CLIP sees too."""

from dataclasses import replace

from .signature import IMAGE_BRANCH, Signature
from .wan.defaults import WAN
from .wan.model import NEEDED, Wan
from .wan.words import NEGATIVE_I2V

# Source of the defaults: `wan/configs/` and `generate.py` of Wan-Video/Wan2.1.
MEMBER = Wan(
    name="wan2.1-i2v",
    title="Wan2.1 I2V",
    components=("vae", "t5_encoder", "clip"),
    defaults=replace(WAN, steps=40, shift_480p=3.0, negative=NEGATIVE_I2V),
    signature=Signature(names=IMAGE_BRANCH, image_branch=True, in_dim=36, out_dim=16),
    first=NEEDED,
)
