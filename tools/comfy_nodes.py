"""ComfyUI's own nodes that the workflows use, described as its server describes nodes.

Taken from /object_info of ComfyUI 0.33.0, without tooltips; `tests/test_comfyui.py` compares them with a running one.
Files and models to choose from are left out: they differ from one machine to another.
"""

from __future__ import annotations

from typing import Any

CORE_VERSION = "0.33.0"
FILES = ["COMBO", {"options": []}]
IMAGE = ["IMAGE", {}]


def _node(
    title: str, required: dict[str, list], optional: dict[str, list], outputs: dict[str, str], *, saves: bool = False
) -> dict[str, Any]:
    return {
        "display_name": title,
        "input": {"required": required, "optional": optional},
        "output": list(outputs.values()),
        "output_name": list(outputs),
        "output_node": saves,
    }


def _choice(*options: str) -> list:
    return ["COMBO", {"options": list(options)}]


def _number(kind: str, default: float, low: float, high: float) -> list:
    return [kind, {"default": default, "min": low, "max": high}]


CORE: dict[str, dict[str, Any]] = {
    "LoadImage": _node(
        "Load Image",
        {"image": ["COMBO", {"options": [], "image_upload": True}]},
        {},
        {"IMAGE": "IMAGE", "MASK": "MASK"},
    ),
    "LoadImageMask": _node(
        "Load Image (as Mask)",
        {
            "image": ["COMBO", {"options": [], "image_upload": True}],
            "channel": _choice("alpha", "red", "green", "blue"),
        },
        {},
        {"MASK": "MASK"},
    ),
    "CreateVideo": _node(
        "Create Video",
        {"images": IMAGE, "fps": _number("FLOAT", 30.0, 1.0, 120.0)},
        {"audio": ["AUDIO", {}], "bit_depth": _number("INT", 8, 8, 10)},
        {"VIDEO": "VIDEO"},
    ),
    "SaveVideo": _node(
        "Save Video",
        {
            "video": ["VIDEO", {}],
            "filename_prefix": ["STRING", {"default": "video/ComfyUI"}],
            "format": ["COMFY_DYNAMICCOMBO_V3", {"default": "auto"}],
        },
        # The page writes the codec twice: within the format, and as older versions had it.
        {
            "format.codec": ["COMFY_DYNAMICCOMBO_V3", {"default": "auto", "required": True}],
            "codec": ["COMFY_DYNAMICCOMBO_V3", {"default": "auto"}],
        },
        {"video": "VIDEO"},
        saves=True,
    ),
    "SaveImage": _node(
        "Save Image",
        {"images": IMAGE, "filename_prefix": ["STRING", {"default": "ComfyUI"}]},
        {},
        {"images": "IMAGE"},
        saves=True,
    ),
    "BatchImagesNode": _node(
        "Batch Images",
        {"images": ["COMFY_AUTOGROW_V3", {"template": {"type": "IMAGE", "prefix": "image", "min": 1}}]},
        {},
        {"IMAGE": "IMAGE"},
    ),
    "CheckpointLoaderSimple": _node(
        "Load Checkpoint", {"ckpt_name": FILES}, {}, {"MODEL": "MODEL", "CLIP": "CLIP", "VAE": "VAE"}
    ),
    "CLIPTextEncode": _node(
        "CLIP Text Encode (Prompt)",
        {"text": ["STRING", {"multiline": True}], "clip": ["CLIP", {}]},
        {},
        {"CONDITIONING": "CONDITIONING"},
    ),
    "SAM3_VideoTrack": _node(
        "Run SAM3 Video Track",
        {
            "images": IMAGE,
            "model": ["MODEL", {}],
            "detection_threshold": _number("FLOAT", 0.5, 0.0, 1.0),
            "max_objects": _number("INT", 4, 0, 64),
            "detect_interval": ["INT", {"default": 1, "min": 1}],
        },
        {"initial_mask": ["MASK", {}], "conditioning": ["CONDITIONING", {}]},
        {"track_data": "SAM3_TRACK_DATA"},
    ),
    "VAELoader": _node("Load VAE", {"vae_name": FILES}, {}, {"VAE": "VAE"}),
    "CLIPVisionLoader": _node("Load CLIP Vision", {"clip_name": FILES}, {}, {"CLIP_VISION": "CLIP_VISION"}),
    "CLIPLoader": _node(
        "Load CLIP",
        {"clip_name": FILES, "type": _choice("stable_diffusion", "wan")},
        {"device": _choice("default", "cpu")},
        {"CLIP": "CLIP"},
    ),
    "CLIPVisionEncode": _node(
        "CLIP Vision Encode",
        {"clip_vision": ["CLIP_VISION", {}], "image": IMAGE, "crop": _choice("center", "none")},
        {},
        {"CLIP_VISION_OUTPUT": "CLIP_VISION_OUTPUT"},
    ),
    "SCAIL2ColoredMask": _node(
        "Create SCAIL-2 Colored Mask",
        {
            "driving_track_data": ["SAM3_TRACK_DATA", {}],
            "object_indices": ["STRING", {"default": ""}],
            "sort_by": ["COMBO", {"default": "left_to_right", "options": ["none", "left_to_right", "area"]}],
            "replacement_mode": ["BOOLEAN", {"default": False}],
        },
        {"ref_track_data": ["SAM3_TRACK_DATA,MASK", {}]},
        {"pose_video_mask": "IMAGE", "reference_image_mask": "IMAGE"},
    ),
    "WanSCAILToVideo": _node(
        "WanSCAILToVideo",
        {
            "positive": ["CONDITIONING", {}],
            "negative": ["CONDITIONING", {}],
            "vae": ["VAE", {}],
            "width": _number("INT", 512, 32, 16384),
            "height": _number("INT", 896, 32, 16384),
            "length": _number("INT", 81, 1, 16384),
            "batch_size": _number("INT", 1, 1, 4096),
            "pose_strength": _number("FLOAT", 1.0, 0.0, 10.0),
            "pose_start": _number("FLOAT", 0.0, 0.0, 1.0),
            "pose_end": _number("FLOAT", 1.0, 0.0, 1.0),
            "video_frame_offset": _number("INT", 0, 0, 16384),
            "previous_frame_count": _number("INT", 5, 1, 16384),
        },
        {
            "pose_video": IMAGE,
            "pose_video_mask": IMAGE,
            "replacement_mode": ["BOOLEAN", {"default": False}],
            "reference_image": IMAGE,
            "reference_image_mask": IMAGE,
            "clip_vision_output": ["CLIP_VISION_OUTPUT", {}],
            "previous_frames": IMAGE,
        },
        {"positive": "CONDITIONING", "negative": "CONDITIONING", "latent": "LATENT", "video_frame_offset": "INT"},
    ),
    "VAEDecode": _node("VAE Decode", {"samples": ["LATENT", {}], "vae": ["VAE", {}]}, {}, {"IMAGE": "IMAGE"}),
}
