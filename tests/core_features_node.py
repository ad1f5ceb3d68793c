"""A node for ComfyUI that stands in for its text encoder and CLIP, whose real sizes the tiny model does not have."""

from types import SimpleNamespace

import torch


class RandomFeatures:
    """Two CONDITIONINGs and a CLIP_VISION_OUTPUT of random numbers, in the tiny model's widths."""

    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "CLIP_VISION_OUTPUT")
    FUNCTION = "make"
    CATEGORY = "testing"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"seed": ("INT", {"default": 0})}}

    def make(self, seed):
        random = torch.Generator().manual_seed(seed)
        texts = [[[torch.randn((1, 512, 64), generator=random), {}]] for _ in range(2)]
        return (*texts, SimpleNamespace(penultimate_hidden_states=torch.randn((1, 257, 160), generator=random)))


NODE_CLASS_MAPPINGS = {"RandomFeatures": RandomFeatures}
