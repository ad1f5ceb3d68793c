"""Subgraphs for ComfyUI's node library: everything between the pictures and the frames in one node."""

from __future__ import annotations

from tools.workflow_builder import Workflow
from tools.workflows import parts, texts

CATEGORY = "Video generation and editing/Video Edit"
ALIASES = ["scail", "scail2", "mlx", "character animation", "character replacement", "motion transfer"]
DESCRIPTIONS = {
    texts.ANIMATION: "A character performs the movement of a video in its own scene, with SCAIL-2 on Apple's MLX. "
    "Masks: the character in blue on white, the person in the video in blue on black.",
    texts.REPLACEMENT: "A character takes the place of a person in a video, with SCAIL-2 on Apple's MLX. Masks: the "
    "character in blue on black, the person in the video in blue on white.",
}
OUTER = (
    ("reference_image", "IMAGE"),
    ("reference_mask", "IMAGE,MASK"),
    ("driving_video", "IMAGE,VIDEO"),
    ("driving_mask", "IMAGE,MASK,VIDEO"),
    ("driving_fps", "FLOAT"),
)
SHOWN = (("width", "INT"), ("height", "INT"), ("steps", "INT"), ("cfg", "FLOAT"), ("shift", "FLOAT"), ("seed", "INT"))


def inside(w: Workflow, mode: str) -> None:
    """Place the nodes of the subgraph: pictures and values come in, frames go out."""
    pictures = {name: w.outside(name, kind) for name, kind in OUTER}
    prompt = w.outside("prompt", "STRING")
    values = {name: w.outside(name, kind) for name, kind in SHOWN}
    chosen = w.outside("snapshot", "COMBO")
    loader = w.add("LoadScail2MLX", (0, 80), (320, 0), {"snapshot": chosen})
    words = {"text_encoder": loader["text_encoder"], "prompt": prompt}
    text = w.add("Scail2T5Encode", (0, 460), (320, 200), words)
    seen = {"clip_vision": loader["clip_vision"], "reference_image": pictures["reference_image"]}
    clip = w.add("Scail2ClipEncode", (0, 720), (320, 0), seen)
    inputs = {"model": loader["model"], "vae": loader["vae"], "text": text["text"]}
    inputs |= {"clip_features": clip["clip_features"], "mode": mode} | pictures | values
    height = w.types["Scail2Sampler"].height + parts.RUN_TEXT
    sampler = w.add("Scail2Sampler", (380, 80), (300, height), inputs)
    frames = w.add("WanVaeTiledDecode", (740, 80), (300, 0), {"vae": loader["vae"], "latent": sampler["latent"]})
    w.hand_out("images", frames["images"])
    w.hand_out("report", sampler["report"])
