"""Workflows that differ in their pictures: animation, replacement, two people, several references."""

from __future__ import annotations

from tools.workflow_builder import Workflow
from tools.workflows import parts, texts
from tools.workflows.parts import CARD, COLUMN, GAP, HEAD, PAD, THUMBNAIL

SAMPLING_AT = COLUMN + GAP
CHECK_WIDTH = 520


def one_person(w: Workflow, mode: str) -> None:
    """The puppet dances in its own scene (animation), or in place of the driving one (replacement)."""
    suffix = "" if mode == texts.ANIMATION else "_replacement"
    files = {
        "reference": "reference.png",
        "reference_mask": f"reference_mask{suffix}.png",
        "driving": "driving.mp4",
        "driving_mask": f"driving_mask{suffix}.mp4",
    }
    given = parts.scene(w, (texts.REFERENCE[mode], texts.DRIVING[mode]), files, texts.COLOURS[mode])
    sampler = parts.sampling(w, SAMPLING_AT, given, texts.prompt(mode), texts.settings(mode), {"mode": mode})
    parts.result(w, SAMPLING_AT + 855, given, sampler)


def animation(w: Workflow) -> None:
    """See one_person."""
    one_person(w, texts.ANIMATION)


def replacement(w: Workflow) -> None:
    """See one_person."""
    one_person(w, texts.REPLACEMENT)


def two_people(w: Workflow) -> None:
    """Two puppets take over the dances of two others; looked at before sampling."""
    files = {
        "reference": "reference_two.png",
        "reference_mask": "reference_two_mask.png",
        "driving": "driving_two.mp4",
        "driving_mask": "driving_two_mask.mp4",
    }
    notes = (texts.REFERENCE_TWO, texts.DRIVING_TWO)
    given = parts.scene(w, notes, files, ("blue and red", "blue and red"))
    settings = {"mode": texts.ANIMATION}
    at = SAMPLING_AT
    w.group("4 Check", (at, 0), (CHECK_WIDTH, parts.BOTTOM), parts.MASKS)
    parts.check(w, at + PAD, given, settings)
    at += CHECK_WIDTH + GAP
    note = texts.settings(texts.ANIMATION)
    sampler = parts.sampling(w, at, given, texts.prompt_two(), note, settings, number=5)
    parts.result(w, at + 855, given, sampler, number=6)


def several_references(w: Workflow) -> None:
    """One character in two pictures."""
    loader = parts.model(w)
    top, below = 535, 535 + THUMBNAIL + 60
    w.group("2 References", (0, 455), (COLUMN, parts.BOTTOM - 455), parts.REFERENCE)
    w.note("About the references", texts.REFERENCES, (PAD, top), (CARD, parts.BOTTOM - PAD - top))
    titles = {
        "": ("Reference picture: primary", "Its mask (blue on white)"),
        "_other": ("Another picture: cut out", "Its mask (blue on black)"),
    }
    pictures = [
        parts.picture(w, f"reference{end}.png", title, column, top)
        for column, (end, (title, _)) in enumerate(titles.items(), start=1)
    ]
    masks = [
        parts.picture(w, f"reference{end}_mask.png", title, column, below)
        for column, (end, (_, title)) in enumerate(titles.items(), start=1)
    ]
    joined = []
    for column, (boxes, title) in enumerate(((pictures, "All references"), (masks, "All reference masks")), start=1):
        linked = {f"images.image{index}": box["IMAGE"] for index, box in enumerate(boxes)}
        at = (PAD + column * (CARD + GAP), below + THUMBNAIL + 60)
        joined.append(w.add("BatchImagesNode", at, (CARD, 106), linked, title)["IMAGE"])
    mode, at = texts.ANIMATION, SAMPLING_AT
    clip, frames = parts.driving_column(w, at, texts.DRIVING_PLAIN, "driving.mp4", "driving_mask.mp4")
    given = parts.Scene(loader, *joined, clip["video"], frames["video"], clip["fps"], clip["audio"])
    at += CARD + 2 * PAD + GAP
    sampler = parts.sampling(w, at, given, texts.prompt(mode), texts.settings(mode), {"mode": mode})
    parts.result(w, at + 855, given, sampler)


def one_node(w: Workflow) -> None:
    """The whole way in one node, with a preset."""
    mode = texts.ANIMATION
    w.group("1 Reference", (0, 0), (COLUMN, HEAD + THUMBNAIL + PAD), parts.REFERENCE)
    w.note("About the reference", texts.REFERENCE[mode], (PAD, HEAD), (CARD, THUMBNAIL))
    shown = parts.picture(w, "reference.png", "Reference picture", 1, HEAD)
    mask = parts.picture(w, "reference_mask.png", "Reference mask (blue on white)", 2, HEAD)
    files = ("driving.mp4", "driving_mask.mp4", "blue on black")
    below = HEAD + THUMBNAIL + PAD + GAP
    clip, frames = parts.driving(w, texts.DRIVING[mode], *files, title="2 Driving video", y=below, target_fps=0)
    at, bottom = SAMPLING_AT, below + parts.CLIPS
    w.group("3 One node for all", (at, 0), (830, bottom), parts.SAMPLING)
    given = {
        "reference_image": shown["IMAGE"],
        "reference_mask": mask["IMAGE"],
        "driving_video": clip["video"],
        "driving_mask": frames["video"],
        "fps": clip["fps"],
        "prompt": texts.prompt(mode),
        "mode": mode,
    }
    height = bottom - HEAD - PAD
    made = w.add("Scail2Animate", (at + PAD, HEAD), (440, height), given)
    w.note("About the node", texts.ONE_NODE, (at + 480, HEAD), (330, height))
    at += 855
    w.group("4 Result", (at, 0), (520, bottom), parts.RESULT)
    video = {"images": made["images"], "fps": made["fps"], "audio": clip["audio"]}
    parts.saved_video(w, at, HEAD, texts.RESULT_ONE, video)
