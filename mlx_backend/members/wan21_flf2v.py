"""Wan 2.1 FLF2V 14B: words, the first picture and the last, which CLIP sees too."""

from ..interface.segments import LONGEST
from ..interface.variants import Defaults
from .signature import IMAGE_BRANCH, Signature
from .wan.model import NEEDED, Wan
from .wan.words import NEGATIVE_FLF2V

# Source of the defaults: `wan/configs/` and `generate.py` of Wan-Video/Wan2.1.
MEMBER = Wan(
    name="wan2.1-flf2v",
    title="Wan2.1 FLF2V",
    hub_repositories=(),
    components=("vae", "t5_encoder", "clip"),
    defaults=Defaults(
        width=1280,
        height=720,
        driving_fps=16.0,
        steps=50,
        cfg=5.0,
        shift=16.0,
        solver="unipc",
        segment_length=LONGEST,
        segment_overlap=5,
        frames=81,
        negative=NEGATIVE_FLF2V,
    ),
    signature=Signature(names=IMAGE_BRANCH, marks=("img_emb.emb_pos",), image_branch=True, in_dim=36, out_dim=16),
    first=NEEDED,
    last=NEEDED,
)
