"""Draws clips together: as one picture with a labelled row of small frames for each, or as one clip, side by side."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..interface.errors import MediaError
from .video import to_uint8

MARGIN = 12
GAP = 6
LABEL_SIZE = 16
LABEL_HEIGHT = 26
PAPER = (247, 247, 245)
INK = (40, 40, 44)


def contact_sheet(rows: list[tuple[str, np.ndarray]], columns: int = 6, height: int = 160) -> np.ndarray:
    """Returns the sheet as uint8 [H, W, 3]: for each (label, clip) the label and below it a row of frames.

    Clips are [F, H, W, 3], float in 0..1 or uint8; they may differ in length and size. Each row shows up to
    `columns` frames, evenly spread from the first to the last, scaled to `height` pixels.
    Labels are best in plain ASCII, as Pillow's own font has no other letters.

    Raises MediaError for no rows, for a clip of another shape, and for `columns` or `height` below 1.
    """
    if not rows or columns < 1 or height < 1:
        raise MediaError(
            f"A contact sheet was asked for with {len(rows)} rows, {columns} columns and height {height}; "
            "each must be at least 1."
        )
    font = ImageFont.load_default(LABEL_SIZE)
    thumbnails = [_thumbnails(label, clip, columns, height) for label, clip in rows]
    row_widths = [sum(image.width + GAP for image in images) - GAP for images in thumbnails]
    label_widths = [round(font.getlength(label)) for label, _ in rows]
    row_height = LABEL_HEIGHT + height
    size = (
        2 * MARGIN + max(row_widths + label_widths),
        MARGIN + len(rows) * (row_height + MARGIN),
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    for (label, _), images in zip(rows, thumbnails, strict=True):
        draw.text((MARGIN, top + LABEL_HEIGHT / 2 - 2), label, fill=INK, font=font, anchor="lm")
        left = MARGIN
        for image in images:
            sheet.paste(image, (left, top + LABEL_HEIGHT))
            left += image.width + GAP
        top += row_height + MARGIN
    return np.array(sheet)


def side_by_side(columns: list[tuple[str, np.ndarray]], height: int = 288) -> np.ndarray:
    """Returns one clip as uint8 [F, H, W, 3]: the (label, clip)s beside each other, each with its label above it.

    Clips are as in `contact_sheet`; the longest gives F, and of shorter ones the last frame stays. H and W are even,
    as videos need it. Raises MediaError for no clips, for one of another shape, and for `height` below 1.
    """
    longest = max((len(clip) for _, clip in columns), default=0)
    shown = [
        (label, clip[np.minimum(np.arange(longest), len(clip) - 1)] if len(clip) else clip) for label, clip in columns
    ]
    sheets = []
    for frame in range(longest):
        parts = [contact_sheet([(label, clip[frame : frame + 1])], 1, height) for label, clip in shown]
        tall, wide = parts[0].shape[0] // 2 * 2, sum(part.shape[1] for part in parts) // 2 * 2
        sheets.append(np.concatenate(parts, axis=1)[:tall, :wide])
    if not sheets:
        raise MediaError(f"There is no frame to show among {len(columns)} clips; at least one is needed.")
    return np.stack(sheets)


def _thumbnails(label: str, clip: np.ndarray, columns: int, height: int) -> list[Image.Image]:
    if clip.ndim != 4 or clip.shape[3] != 3 or 0 in clip.shape:
        raise MediaError(
            f"The row '{label}' of a contact sheet has shape {list(clip.shape)}; allowed is [F, H, W, 3] "
            "with at least one frame."
        )
    count = len(clip)
    width = max(1, round(height * clip.shape[2] / clip.shape[1]))
    chosen = np.linspace(0, count - 1, min(columns, count)).round().astype(int)
    return [
        Image.fromarray(to_uint8(clip[index])).resize((width, height), Image.Resampling.LANCZOS) for index in chosen
    ]
