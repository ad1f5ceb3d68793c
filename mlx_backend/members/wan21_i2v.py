"""Wan 2.1 I2V 14B: words and the first picture, which CLIP sees too."""

from ..interface.segments import LONGEST
from ..interface.variants import Defaults
from .signature import IMAGE_BRANCH, Signature
from .wan.model import NEEDED, Wan
from .wan.words import NEGATIVE_I2V

# Source of the defaults: `wan/configs/` and `generate.py` of Wan-Video/Wan2.1.
MEMBER = Wan(
    name="wan2.1-i2v",
    title="Wan2.1 I2V",
    hub_repositories=(),
    components=("vae", "t5_encoder", "clip"),
    defaults=Defaults(
        width=832,
        height=480,
        driving_fps=16.0,
        steps=40,
        cfg=5.0,
        shift=5.0,
        solver="unipc",
        segment_length=LONGEST,
        segment_overlap=5,
        frames=81,
        shift_480p=3.0,
        negative=NEGATIVE_I2V,
    ),
    signature=Signature(names=IMAGE_BRANCH, image_branch=True, in_dim=36, out_dim=16),
    first=NEEDED,
)
