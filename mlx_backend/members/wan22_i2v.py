"""Wan 2.2 I2V-A14B: words and the first picture, by two experts; the last picture too where there is one."""

from dataclasses import replace

from .signature import Signature
from .wan.defaults import WAN
from .wan.model import NEEDED, USABLE, Wan

# Source of the defaults: `wan/configs/` of Wan-Video/Wan2.2.
MEMBER = Wan(
    name="wan2.2-i2v-a14b",
    title="Wan2.2 I2V-A14B",
    defaults=replace(WAN, steps=40, cfg=3.5, cfg_low=3.5),
    signature=Signature(image_branch=False, in_dim=36, out_dim=16),
    boundary=0.9,
    first=NEEDED,
    last=USABLE,
)
