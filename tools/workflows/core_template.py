"""ComfyUI's own template for SCAIL-2, with its model loader, LoRA loaders, scheduler and sampler replaced by ours."""

from __future__ import annotations

from typing import Any, NamedTuple

from tools.workflow_builder import Box, Workflow
from tools.workflows import parts, texts
from tools.workflows.masks import SAM3_FILE
from tools.workflows.parts import BOTTOM, CARD, COLUMN, GAP, HEAD, PAD, THUMBNAIL

NARROW = CARD + 2 * PAD
FRAMES = 33  # of the sample
SAMPLING = {"steps": 6, "cfg": 1.0, "shift": 8.0, "solver": "euler", "grid": "simple", "range_shift": 5.0}
_REPACKAGED = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files"


def _file(url: str, directory: str) -> dict[str, str]:
    return {"name": url.rsplit("/", 1)[1], "url": f"https://huggingface.co/{url}", "directory": directory}


LIGHTX2V = _file(
    "Kijai/WanVideo_comfy/resolve/main/Lightx2v/lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors", "loras"
)
DPO = _file("Comfy-Org/SCAIL-2/resolve/main/loras/wan2.1_SCAIL_2_DPO_lora_bf16.safetensors", "loras")
VAE = _file("Kijai/WanVideo_comfy/resolve/main/Wan2_1_VAE_bf16.safetensors", "vae")
TEXT = {
    "name": "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "url": f"{_REPACKAGED}/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
    "directory": "text_encoders",
}
VISION = {
    "name": "clip_vision_h.safetensors",
    "url": f"{_REPACKAGED}/clip_vision/clip_vision_h.safetensors",
    "directory": "clip_vision",
}


def core_template(w: Workflow) -> None:
    """A character takes a person's place: ComfyUI's nodes prepare and decode, ours sample."""
    loader = parts.published_model(w)
    reference, clip = _pictures(w)
    at = COLUMN + GAP
    models = _more_models(w, at, loader)
    at += NARROW + GAP
    masks = _masks(w, at, models.sam, reference, clip)
    at += NARROW + GAP
    w.group("5 Conditioning and sampling", (at, 0), (830, BOTTOM), parts.SAMPLING)
    scail = _conditioning(w, at, models, reference, clip, masks)
    sampler = _sampler(w, scail, models.model)
    w.note("About the sampler", texts.CORE_SAMPLER, (at + PAD, 790), (470, BOTTOM - PAD - 790))

    at += 855
    w.group("6 Result", (at, 0), (520, BOTTOM), parts.RESULT)
    frames = w.add("VAEDecode", (at + PAD, HEAD), (480, 0), {"samples": sampler["latent"], "vae": models.vae["VAE"]})
    made = {"images": frames["IMAGE"], "audio": clip["audio"], "fps": clip["fps"]}
    parts.saved_video(w, at, 270, texts.RESULT_CORE, made)


class Models(NamedTuple):
    """What loads the models: ours with its LoRAs, and ComfyUI's own."""

    model: Box
    text: Box
    vision: Box
    vae: Box
    sam: Box


def _more_models(w: Workflow, at: int, model: Box) -> Models:
    w.group("3 More models", (at, 0), (NARROW, BOTTOM), parts.MODEL)
    y = HEAD
    for file, strength in ((DPO, 1.0), (LIGHTX2V, 0.8)):
        given = {"model": model["model"], "lora": file["name"], "strength": strength}
        model = _loader(w, "Scail2LoraLoader", (at, y), given, file)
        y = model.bottom + 60
    loaders = []
    for kind, given, file in (
        ("CLIPLoader", {"clip_name": TEXT["name"], "type": "wan"}, TEXT),
        ("CLIPVisionLoader", {"clip_name": VISION["name"]}, VISION),
        ("VAELoader", {"vae_name": VAE["name"]}, VAE),
        ("CheckpointLoaderSimple", {"ckpt_name": SAM3_FILE["name"]}, SAM3_FILE),
    ):
        loaders.append(_loader(w, kind, (at, y), given, file))
        y = loaders[-1].bottom + 60
    w.note("About the LoRAs", texts.LORAS, (at + PAD, y), (CARD, BOTTOM - PAD - y))
    return Models(model, *loaders)


def _conditioning(w: Workflow, at: int, models: Models, reference: Box, video: Box, masks: Box) -> Box:
    left, right = at + PAD, at + 510
    prompts = [
        w.add("CLIPTextEncode", (left, y), (470, high), {"clip": models.text["CLIP"], "text": words}, title)
        for y, high, words, title in (
            (HEAD, 330, texts.prompt(texts.REPLACEMENT), "Prompt"),
            (470, 100, "", "Negative prompt"),
        )
    ]
    looked = {"clip_vision": models.vision["CLIP_VISION"], "image": reference["IMAGE"], "crop": "none"}
    features = w.add("CLIPVisionEncode", (left, 630), (470, 0), looked)
    given = {
        "positive": prompts[0]["CONDITIONING"],
        "negative": prompts[1]["CONDITIONING"],
        "vae": models.vae["VAE"],
        "pose_video": video["images"],
        "pose_video_mask": masks["pose_video_mask"],
        "reference_image": reference["IMAGE"],
        "reference_image_mask": masks["reference_image_mask"],
        "clip_vision_output": features["CLIP_VISION_OUTPUT"],
        "length": FRAMES,
        "replacement_mode": True,
    }
    return w.add("WanSCAILToVideo", (right, HEAD), (CARD, 0), given | parts.SIZE)


def _sampler(w: Workflow, scail: Box, model: Box) -> Box:
    given = {"model": model["model"], "latent_image": scail["latent"]}
    given |= {name: scail[name] for name in ("positive", "negative")}
    size = (CARD, w.types["Scail2CoreSampler"].height + parts.RUN_TEXT)
    at = (scail.at[0], scail.bottom + 60)
    return w.add("Scail2CoreSampler", at, size, given | SAMPLING, "SCAIL-2 Core Sampler (MLX)")


def _pictures(w: Workflow) -> tuple[Box, Box]:
    w.group("2 Reference and driving video", (0, 455), (COLUMN, BOTTOM - 455), parts.REFERENCE)
    w.note("About this workflow", texts.CORE_TEMPLATE, (PAD, 535), (2 * CARD + GAP, BOTTOM - PAD - 535))
    reference = parts.picture(w, "reference.png", "Reference picture", 2, 535)
    at = (reference.at[0], 535 + THUMBNAIL + 60)
    return reference, parts.video(w, "driving.mp4", "Driving video", at, max_frames=FRAMES, **parts.SIZE)


def _loader(w: Workflow, kind: str, at: tuple[float, float], given: dict[str, Any], file: dict[str, str]) -> Box:
    return w.add(kind, (at[0] + PAD, at[1]), (CARD, 0), given, properties={"models": [file]})


def _masks(w: Workflow, x: int, sam: Box, reference: Box, clip: Box) -> Box:
    """Place what finds the people and colours them; returns the node of both masks."""
    w.group("4 Masks", (x, 0), (NARROW, BOTTOM), parts.MASKS)
    left, y, tracks = x + PAD, HEAD, []
    sides = (("Who is replaced?", "puppet", clip["images"]), ("By whom?", "puppet", reference["IMAGE"]))
    for title, word, images in sides:
        named = w.add("CLIPTextEncode", (left, y), (CARD, 90), {"clip": sam["CLIP"], "text": word}, title)
        seen = {"images": images, "model": sam["MODEL"], "conditioning": named["CONDITIONING"]}
        tracks.append(w.add("SAM3_VideoTrack", (left, named.bottom + 50), (CARD, 0), seen))
        y = tracks[-1].bottom + 50
    given = {"driving_track_data": tracks[0]["track_data"], "ref_track_data": tracks[1]["track_data"]}
    return w.add("SCAIL2ColoredMask", (left, y), (CARD, 0), given | {"replacement_mode": True})
