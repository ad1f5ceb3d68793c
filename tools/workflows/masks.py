"""Workflows that make the coloured masks: from plain ones, and with ComfyUI's SAM3."""

from __future__ import annotations

from tools.workflow_builder import Box, Plug, Workflow
from tools.workflows import parts, texts
from tools.workflows.parts import BOTTOM, CARD, COLUMN, GAP, HEAD, PAD, THUMBNAIL

NEXT = COLUMN + GAP
MASKS_WIDTH = 1020
SAM3 = "sam3.1_multiplex_fp16.safetensors"
SAM3_FILE = {
    "name": SAM3,
    "url": f"https://huggingface.co/Comfy-Org/sam3.1/resolve/main/checkpoints/{SAM3}",
    "directory": "checkpoints",
}


def masks_from_mask(w: Workflow) -> None:
    """White on black masks, of a painting program or ComfyUI's mask editor, become coloured ones."""
    loader = parts.model(w)
    w.group("2 Reference", (0, 455), (COLUMN, 424), parts.REFERENCE)
    w.note("About the reference", texts.REFERENCE_MASK, (PAD, 535), (CARD, THUMBNAIL))
    shown = parts.picture(w, "reference.png", "Reference picture", 1, 535)
    plain = {"image": "scail2_reference_person.png", "channel": "red"}
    person = w.add(
        "LoadImageMask", (COLUMN - CARD - PAD, 535), (CARD, THUMBNAIL), plain, "Where it is (white on black)"
    )
    clip, frames = parts.driving(w, texts.DRIVING_MASK, "driving.mp4", "driving_person.mp4", "white on black")
    at = NEXT
    w.group("4 Masks and check", (at, 0), (MASKS_WIDTH, BOTTOM), parts.MASKS)
    painted = _painted(w, at, HEAD, (frames["mask"], person["MASK"]), texts.MASKS)
    _checked_run(w, at, _scene(loader, shown, clip, painted))


def sam3_masks(w: Workflow) -> None:
    """SAM3 finds the people on both sides by a word."""
    loader = parts.model(w)
    w.group("2 Reference", (0, 455), (COLUMN, 424), parts.REFERENCE)
    w.note("About the reference", texts.REFERENCE_SAM, (PAD, 535), (2 * CARD + GAP, THUMBNAIL))
    shown = parts.picture(w, "reference.png", "Reference picture", 2, 535)
    top = 904 + HEAD
    w.group("3 Driving video", (0, 904), (COLUMN, BOTTOM - 904), parts.DRIVING)
    w.note("About the driving video", texts.DRIVING_SAM, (PAD, top), (2 * CARD + GAP, BOTTOM - PAD - top))
    clip = parts.video(w, "driving.mp4", "Driving video", (COLUMN - CARD - PAD, top))

    at = NEXT
    w.group("4 SAM 3", (at, 0), (CARD + 2 * PAD, BOTTOM), parts.MODEL)
    checkpoint = w.add(
        "CheckpointLoaderSimple", (at + PAD, HEAD), (CARD, 0), {"ckpt_name": SAM3}, properties={"models": [SAM3_FILE]}
    )
    sides = (("Who moves?", "puppet", clip["images"], 4), ("What is the character?", "puppet", shown["IMAGE"], 4))
    tracks = []
    for y, (title, word, images, people) in zip((250, 670), sides, strict=True):
        words = {"clip": checkpoint["CLIP"], "text": word}
        named = w.add("CLIPTextEncode", (at + PAD, y), (CARD, 120), words, title)
        seen = {
            "images": images,
            "model": checkpoint["MODEL"],
            "conditioning": named["CONDITIONING"],
            "max_objects": people,
        }
        tracks.append(w.add("SAM3_VideoTrack", (at + PAD, y + 180), (CARD, 0), seen)["track_data"])
    w.note("About SAM 3", texts.SAM, (at + PAD, 1090), (CARD, BOTTOM - PAD - 1090))
    at += CARD + 2 * PAD + GAP
    w.group("5 Masks and check", (at, 0), (MASKS_WIDTH, BOTTOM), parts.MASKS)
    painted = _painted(w, at, HEAD, (tracks[0], tracks[1]), texts.MASKS_FOUND)
    _checked_run(w, at, _scene(loader, shown, clip, painted), number=6)


def _painted(w: Workflow, x: int, y: int, found: tuple[Plug, Plug], note: str) -> Box:
    """Place what colours the masks of driving video and reference, with room for its sheet."""
    foot = parts.low_note(w, x + PAD, "About the masks", note)
    linked = {"driving": found[0], "reference": found[1], "mode": texts.ANIMATION}
    return w.add("Scail2ColoredMask", (x + PAD, y), (480, foot - y), linked)


def _scene(loader: Box, shown: Box, clip: Box, painted: Box) -> parts.Scene:
    masks = painted["reference_mask"], painted["driving_mask"]
    return parts.Scene(loader, shown["IMAGE"], masks[0], clip["video"], masks[1], clip["fps"], clip["audio"])


def _checked_run(w: Workflow, x: int, given: parts.Scene, number: int = 5) -> None:
    """Place the check in the second half of the frame of masks, and all that follows."""
    mode = texts.ANIMATION
    parts.check(w, x + PAD + 500, given, {"mode": mode})
    at = x + MASKS_WIDTH + GAP
    prompt, note = texts.prompt(mode), texts.settings(mode)
    sampler = parts.sampling(w, at, given, prompt, note, {"mode": mode}, number)
    parts.result(w, at + 855, given, sampler, number + 1)
