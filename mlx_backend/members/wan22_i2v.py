"""Wan 2.2 I2V-A14B: words and the first picture, by two experts; the last picture too where there is one."""

from ..interface.segments import LONGEST
from ..interface.variants import Defaults
from .signature import Signature
from .wan.model import NEEDED, USABLE, Wan
from .wan.words import NEGATIVE

# Source of the defaults: `wan/configs/` of Wan-Video/Wan2.2.
MEMBER = Wan(
    name="wan2.2-i2v-a14b",
    title="Wan2.2 I2V-A14B",
    hub_repositories=(),
    components=("vae", "t5_encoder"),
    defaults=Defaults(
        width=832,
        height=480,
        driving_fps=16.0,
        steps=40,
        cfg=3.5,
        shift=5.0,
        solver="unipc",
        segment_length=LONGEST,
        segment_overlap=5,
        frames=81,
        cfg_low=3.5,
        negative=NEGATIVE,
    ),
    signature=Signature(image_branch=False, in_dim=36, out_dim=16),
    boundary=0.9,
    first=NEEDED,
    last=USABLE,
)
