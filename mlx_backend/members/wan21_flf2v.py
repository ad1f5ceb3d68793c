"""Wan 2.1 FLF2V 14B: words, the first picture and the last, which CLIP sees too."""

from dataclasses import replace

from .signature import IMAGE_BRANCH, Signature
from .wan.defaults import WAN
from .wan.model import NEEDED, Wan
from .wan.words import NEGATIVE_FLF2V

# Source of the defaults: `wan/configs/` and `generate.py` of Wan-Video/Wan2.1.
MEMBER = Wan(
    name="wan2.1-flf2v",
    title="Wan2.1 FLF2V",
    components=("vae", "t5_encoder", "clip"),
    defaults=replace(WAN, width=1280, height=720, shift=16.0, negative=NEGATIVE_FLF2V),
    signature=Signature(names=IMAGE_BRANCH, marks=("img_emb.emb_pos",), image_branch=True, in_dim=36, out_dim=16),
    first=NEEDED,
    last=NEEDED,
)
