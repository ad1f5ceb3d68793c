"""Workflows of other lengths: a long clip at its own frame rate, and a still picture."""

from __future__ import annotations

from tools.workflow_builder import Workflow
from tools.workflows import parts, texts
from tools.workflows.parts import BOTTOM, CARD, COLUMN, GAP, HEAD, PAD

NEXT = COLUMN + GAP
FPS_WIDTH = CARD + 2 * PAD


def long_video(w: Workflow) -> None:
    """A clip of 24 frames a second becomes 16, is made in segments, and goes back, with its sound."""
    mode = texts.ANIMATION
    loader = parts.model(w)
    shown, mask = parts.reference(w, texts.REFERENCE[mode], "reference.png", "reference_mask.png", "blue on white")
    files = ("driving_long.mp4", "driving_long_mask.mp4", "blue on black")
    clip, frames = parts.driving(w, texts.DRIVING_LONG, *files, target_fps=0)
    at = NEXT
    w.group("4 To 16 fps", (at, 0), (FPS_WIDTH, BOTTOM), parts.MASKS)
    linked = {"images": clip["video"], "mask": frames["video"], "source_fps": clip["fps"]}
    slow = w.add("Scail2ResampleFps", (at + PAD, HEAD), (CARD, 230), linked, "To the model's frame rate")
    w.note("About segments", texts.LONG, (at + PAD, 380), (CARD, BOTTOM - PAD - 380))
    given = parts.Scene(loader, shown["IMAGE"], mask["IMAGE"], slow["images"], slow["mask"], slow["fps"], clip["audio"])
    at += FPS_WIDTH + GAP
    note = texts.settings(mode)
    sampler = parts.sampling(w, at, given, texts.prompt(mode), note, {"mode": mode}, number=5)
    at += 855
    made = parts.decoded(w, at, given, sampler, number=6)
    back = {
        "images": made["images"],
        "audio": given.audio,
        "source_fps": slow["fps"],
        "target_fps": clip["fps"],
    }
    quick = w.add("Scail2ResampleFps", (at + PAD, 250), (480, 230), back, "Back to the clip's frame rate")
    finished = {name: quick[name] for name in ("images", "audio", "fps")}
    parts.saved_video(w, at, 550, texts.RESULT_LONG, finished)
    report = {"report": sampler["report"], "filename_prefix": f"video/{w.name}"}
    top = sampler.bottom + 60
    w.add("Scail2Report", (sampler.at[0], top), (CARD, BOTTOM - PAD - top), report)


def still_image(w: Workflow) -> None:
    """One frame of the driving video gives one picture."""
    mode = texts.ANIMATION
    files = {
        "reference": "reference.png",
        "reference_mask": "reference_mask.png",
        "driving": "driving.mp4",
        "driving_mask": "driving_mask.mp4",
    }
    given = parts.scene(w, (texts.REFERENCE[mode], texts.DRIVING_STILL), files, texts.COLOURS[mode])
    settings = {"mode": mode, "start_frame": 13, "max_frames": 1}
    sampler = parts.sampling(w, NEXT, given, texts.prompt(mode), texts.STILL, settings)
    at = NEXT + 855
    made = parts.decoded(w, at, given, sampler, number=5)
    saved = {"images": made["images"], "filename_prefix": w.name}
    w.add("SaveImage", (at + PAD, 270), (480, 400), saved)
    w.note("About the result", texts.RESULT_STILL, (at + PAD, 740), (480, 160))
