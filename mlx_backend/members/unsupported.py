"""Models that are known by name and refused. One that gets a `Member` of the same signature is refused no longer.

Sources: ComfyUI, comfy/model_detection.py (Wan) and comfy/sd.py (VAE); diffusers' names from its convert script.
"""

from __future__ import annotations

from dataclasses import dataclass

from .signature import Signature


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A model that does not run here: what sentences call its `component`, and how that is told."""

    title: str
    signature: Signature
    component: str = "dit"


def _marked(mark: str, title: str, component: str = "dit") -> Unsupported:
    return Unsupported(title, Signature(marks=(mark,)), component)


def _image(title: str, in_dim: int | None, out_dim: int | None) -> Unsupported:
    return Unsupported(title, Signature(image_branch=True, in_dim=in_dim, out_dim=out_dim))


def _plain(title: str, in_dim: int | None, out_dim: int | None) -> Unsupported:
    return Unsupported(title, Signature(image_branch=False, in_dim=in_dim, out_dim=out_dim))


UNSUPPORTED = (
    _marked("vace_", "a Wan VACE diffusion transformer"),
    _marked("control_adapter.", "a Wan Fun diffusion transformer with camera control"),
    _marked("casual_audio_encoder.", "a Wan 2.2 S2V (speech to video) diffusion transformer"),
    _marked("face_adapter.", "a Wan 2.2 Animate diffusion transformer"),
    _marked("audio_proj.", "a Wan diffusion transformer driven by sound (HuMo, MultiTalk or the like)"),
    _marked("patch_embedding_global.", "a WanDancer diffusion transformer"),
    _marked("ref_conv.", "a Wan Fun diffusion transformer with a reference"),
    _marked("patch_embedding_pose.", "a SCAIL-1 (preview) diffusion transformer"),
    _marked("encoder.block.0.layer.1.DenseReluDense.wi.", "a first-generation T5 text encoder", "t5_encoder"),
    Unsupported(
        "a T5 text encoder in the layout of transformers",
        Signature(marks=("encoder.block.0.",), absent=("blocks.",)),  # of whose tensors none is UMT5's
        "t5_encoder",
    ),
    _marked("vision_model.head.", "a SigLIP visual tower", "clip"),
    _marked("vision_model.embeddings.patch_embedding.bias", "a SigLIP visual tower", "clip"),
    _image("a Wan 2.1 Fun diffusion transformer", 48, 16),
    _image("a Wan 2.1 diffusion transformer with camera control", 32, 16),
    _plain("a Wan Fun diffusion transformer", 48, 16),
    _plain("a Wan diffusion transformer with camera control", 32, 16),
    _plain("a Wan 2.2 Fun diffusion transformer", 52, 16),
    _plain("a Wan 2.2 Fun 5B diffusion transformer", 100, 48),
    _image("a Wan image-to-video diffusion transformer", None, None),
    _plain("a Wan diffusion transformer (text-to-video or Wan 2.2)", None, None),
)

# Encoders of the right kind and the wrong size, by width and layers.
SIZES = {
    ("t5_encoder", 512, 8): "small",
    ("t5_encoder", 768, 12): "base",
    ("t5_encoder", 1024, 24): "large",
    ("t5_encoder", 2048, 24): "XL",
    ("clip", 768, 12): "ViT-B",
    ("clip", 1024, 24): "ViT-L",
    ("clip", 1408, 40): "ViT-g",
    ("clip", 1664, 48): "ViT-bigG",
}
