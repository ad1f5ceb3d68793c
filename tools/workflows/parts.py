"""The parts that the workflows share: frames with their nodes and notes, column by column from the left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_backend.interface.published import published
from mlx_backend.members.scail2 import MEMBER
from mlx_backend.weights.checkpoints.hub import FILES
from tools.workflow_builder import Box, Plug, Workflow
from tools.workflows import texts

PUBLISHED = MEMBER.hub_repositories[0]
COLUMN, GAP, PAD, HEAD = 990, 25, 20, 80  # pixels: first column, between frames, inside them, below their titles
CARD, THUMBNAIL = 300, 324  # width of a node with a picture, and its height
BOTTOM = 1564  # lower edge of all columns
CLIPS = 660  # height of the frame with two videos
CLIP = 560  # height of a node with a square video and what is wanted of it
MODEL, REFERENCE, DRIVING, MASKS, SAMPLING, RESULT = "#3f789e", "#b58b2a", "#8A8", "#8A5", "#88A", "#A88"
RUN_TEXT = 220  # pixels for what the sampler says below itself
LOW_NOTE = 270  # height of a note at the foot of a column
SIZE = {"width": 640, "height": 640}  # of the result: the samples are square, so nothing of them is cropped


@dataclass(frozen=True, slots=True)
class Scene:
    """What goes into the sampler."""

    model: Box
    reference: Plug
    reference_mask: Plug
    driving: Plug
    driving_mask: Plug
    fps: Plug
    audio: Plug

    @property
    def pictures(self) -> dict[str, Plug]:
        """The inputs that the sampler and the check before it share."""
        return {
            "reference_image": self.reference,
            "driving_video": self.driving,
            "reference_mask": self.reference_mask,
            "driving_mask": self.driving_mask,
            "driving_fps": self.fps,
        }


def model(w: Workflow, width: int = COLUMN) -> Box:
    """Place the loader, with a note; it takes what is installed, or else the small model of the pack."""
    return _model(w, width, texts.MODEL, {}, {})


def published_model(w: Workflow) -> Box:
    """Place the loader with the published model, a note, and the files that the page offers to download."""
    return _model(w, COLUMN, texts.MODEL_PUBLISHED, {"snapshot": PUBLISHED}, downloads())


def _model(w: Workflow, width: int, note: str, given: dict[str, str], properties: dict[str, Any]) -> Box:
    w.group("1 Model", (0, 0), (width, 430), MODEL)
    w.note("About the model", note, (PAD, HEAD), (width - 365, 330))
    return w.add("LoadScail2MLX", (width - CARD - PAD, HEAD), (CARD, 330), given, properties=properties)


def downloads() -> dict[str, list[dict[str, str]]]:
    """Return a node's properties that tell the page which files its snapshot consists of, and where they are."""
    tier = published(PUBLISHED)
    url = f"https://huggingface.co/{tier.repository}/resolve/{tier.revision}/{tier.folder}"
    directory = f"scail2/{tier.place}"
    return {"models": [{"name": name, "url": f"{url}/{name}", "directory": directory} for name in FILES]}


def picture(w: Workflow, file: str, title: str, column: int, y: int) -> Box:
    """Place a picture loader in a column of cards, counted from 0."""
    at = (PAD + column * (CARD + GAP), y)
    return w.add("LoadImage", at, (CARD, THUMBNAIL), {"image": f"scail2_{file}"}, title)


def reference(w: Workflow, note: str, file: str, mask: str, colours: str) -> tuple[Box, Box]:
    """Place the frame of the reference: a note, the picture and its mask."""
    w.group("2 Reference", (0, 455), (COLUMN, 424), REFERENCE)
    w.note("About the reference", note, (PAD, 535), (CARD, THUMBNAIL))
    shown = picture(w, file, "Reference picture", 1, 535)
    return shown, picture(w, mask, f"Reference mask ({colours})", 2, 535)


def video(w: Workflow, file: str, title: str, at: tuple[float, float], **given: Any) -> Box:
    """Place a video loader; masks keep their pure colours, whatever size is set."""
    content = "mask" if "_mask" in file or "_person" in file else "pictures"
    return w.add("Scail2LoadVideo", at, (CARD, CLIP), {"file": f"scail2_{file}", "content": content} | given, title)


def driving(
    w: Workflow,
    note: str,
    file: str,
    mask: str,
    colours: str,
    *,
    title: str = "3 Driving video",
    y: int = 904,
    **given: Any,
) -> tuple[Box, Box]:
    """Place the frame of the driving video; returns the loaders of video and mask. `given` goes to both."""
    w.group(title, (0, y), (COLUMN, CLIPS), DRIVING)
    top, right = y + HEAD, COLUMN - CARD - PAD
    w.note("About the driving video", note, (PAD, top), (CARD, CLIPS - HEAD - PAD))
    clip = video(w, file, "Driving video", (right - CARD - GAP, top), **given)
    return clip, video(w, mask, f"Driving mask ({colours})", (right, top), **given)


def driving_column(w: Workflow, x: int, note: str, file: str, mask: str) -> tuple[Box, Box]:
    """Place the frame of the driving video one card wide; returns the loaders of video and mask."""
    w.group("3 Driving video", (x, 0), (CARD + 2 * PAD, BOTTOM), DRIVING)
    w.note("About the driving video", note, (x + PAD, HEAD), (CARD, 270))
    clip = video(w, file, "Driving video", (x + PAD, 410))
    return clip, video(w, mask, "Driving mask (blue on black)", (x + PAD, 1000))


def scene(w: Workflow, notes: tuple[str, str], files: Mapping[str, str], colours: tuple[str, str]) -> Scene:
    """Place the first column as most workflows have it.

    `notes` are those about the reference and the driving video, `colours` those of their masks in words, and `files`
    the samples by the names of the inputs.
    """
    loader = model(w)
    shown, mask = reference(w, notes[0], files["reference"], files["reference_mask"], colours[0])
    clip, masks = driving(w, notes[1], files["driving"], files["driving_mask"], colours[1])
    return Scene(loader, shown["IMAGE"], mask["IMAGE"], clip["video"], masks["video"], clip["fps"], clip["audio"])


def check(w: Workflow, x: int, given: Scene, settings: Mapping[str, Any]) -> None:
    """Place the input check in a column 480 pixels wide, with the sampler's settings and room for its sheet."""
    linked = {"model": given.model["model"], "vae": given.model["vae"]}
    foot = low_note(w, x, "About the check", texts.CHECK)
    inputs = given.pictures | linked | SIZE | dict(settings)
    w.add("Scail2InputCheck", (x, HEAD), (480, foot - HEAD), inputs)


def low_note(w: Workflow, x: int, title: str, text: str) -> float:
    """Place a note at the foot of a column; returns where the node above it ends."""
    top = BOTTOM - PAD - LOW_NOTE
    w.note(title, text, (x, top), (480, LOW_NOTE))
    return top - 60


def sampling(
    w: Workflow, x: int, given: Scene, prompt: str, note: str, settings: Mapping[str, Any], number: int = 4
) -> Box:
    """Place prompt, CLIP and sampler in a frame 830 pixels wide."""
    w.group(f"{number} Prompt and sampling", (x, 0), (830, BOTTOM), SAMPLING)
    left, loader = x + PAD, given.model
    text = w.add("Scail2T5Encode", (left, HEAD), (470, 470), {"text_encoder": loader["text_encoder"], "prompt": prompt})
    seen = {"clip_vision": loader["clip_vision"], "reference_image": given.reference}
    clip = w.add("Scail2ClipEncode", (left, 610), (470, 0), seen)
    features = {"text": text["text"], "clip_features": clip["clip_features"]}
    inputs = {"model": loader["model"], "vae": loader["vae"]} | features | given.pictures | SIZE | dict(settings)
    height = w.types["Scail2Sampler"].height + RUN_TEXT
    sampler = w.add("Scail2Sampler", (x + 510, HEAD), (300, height), inputs)
    top = 730
    w.note("About the prompt and the settings", note, (left, top), (470, BOTTOM - PAD - top))
    return sampler


def decoded(w: Workflow, x: int, given: Scene, sampler: Box, number: int) -> Box:
    """Place the decoder at the top of the last frame, 520 pixels wide."""
    w.group(f"{number} Result", (x, 0), (520, BOTTOM), RESULT)
    linked = {"vae": given.model["vae"], "latent": sampler["latent"]}
    return w.add("WanVaeTiledDecode", (x + PAD, HEAD), (480, 0), linked)


def saved_video(w: Workflow, x: int, y: int, note: str, made: Mapping[str, Plug]) -> Box:
    """Place what makes and saves the video of the workflow's name; `made` are images, audio and fps."""
    video = w.add("CreateVideo", (x + PAD, y), (480, 0), made)
    w.note("About the result", note, (x + PAD, y + 190), (480, 260))
    named = {"video": video["VIDEO"], "filename_prefix": f"video/{w.name}"}
    return w.add("SaveVideo", (x + PAD, y + 510), (480, 106), named)


def result(w: Workflow, x: int, given: Scene, sampler: Box, number: int = 5) -> None:
    """Place the last frame: decoding, and a video with the driving clip's frame rate and sound."""
    frames = decoded(w, x, given, sampler, number)
    made = {"images": frames["images"], "audio": given.audio, "fps": given.fps}
    saved_video(w, x, 270, texts.result(w.name), made)
