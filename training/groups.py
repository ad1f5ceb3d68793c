"""Groups of the world as the transformer sees them: latents, packed masks, features; and batches of examples of them.

A group holds two casts, two backdrops and one choreography, so the four clips that are encoded make twelve examples of
animation and four of replacement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mlx_backend.members.scail2.masks import SPATIAL, TEMPORAL, packed
from world.scenes import Group, blacked
from world.stage import Shot

from .dit import Batch
from .frozen import Encoders
from .sizes import FRAMES, SIDE, UMT5

TEXT_ROWS = 48  # more than the longest caption has tokens
CELL = SPATIAL**2  # pixels of a mask cell: packed masks are counts of them
VIEWS = CASTS = BACKDROPS = 2
SAME_CAST_SHARE = 0.15
NO_TEXT_SHARE = 0.1


def _group_mask(shot: Shot, group: Group, white: bool, half: bool) -> np.ndarray:
    mask = shot.mask(group.identities, 255 if white else 0).astype(np.float32) / 255
    if half:
        mask = mask.reshape(len(mask), SIDE // 2, 2, SIDE // 2, 2, 3).mean(axis=(2, 4))
    return (packed(mask) * CELL).round().astype(np.uint8)


def drawn_group(seed: int, encoders: Encoders) -> dict[str, np.ndarray]:
    """Draw a group: everything that a batch needs, with pictures where latents will be."""
    group, times = Group.random(seed), np.arange(FRAMES)
    pairs = [(cast, backdrop) for cast in range(CASTS) for backdrop in range(BACKDROPS)]
    clips = [group.clip(cast, backdrop, times, SIDE) for cast, backdrop in pairs]
    shots = [group.picture(cast, scene, view, SIDE) for cast, scene in pairs for view in range(VIEWS)]
    alone = [blacked(shot) for cast in range(CASTS) for shot in shots[cast * 4 : cast * 4 + VIEWS]]
    features = np.zeros((len(pairs) + 1, TEXT_ROWS, UMT5.dim), np.float16)
    for row, text in zip(features, encoders.text([*(group.caption(*pair) for pair in pairs), ""]), strict=True):
        row[: len(text)] = text
    sides, masked = (False, True), [shots[cast * 4 + view] for cast in range(CASTS) for view in range(VIEWS)]
    return {
        "clips": np.stack([clip.pictures for clip in clips]),
        "pictures": np.stack([shot.pictures for shot in shots]),
        "alone": np.stack(alone),
        "clip_masks": np.stack([_group_mask(clips[2 * cast], group, w, half=True) for cast in (0, 1) for w in sides]),
        "picture_masks": np.stack([_group_mask(shot, group, w, half=False) for shot in masked for w in sides]),
        "picture_tokens": np.stack([encoders.picture(shot.pictures[0]) for shot in shots]).astype(np.float16),
        "alone_tokens": np.stack([encoders.picture(picture[0]) for picture in alone]).astype(np.float16),
        "text": features,
    }


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """A batch, the clean latents [B, 16, T, H, W] that it should lead to, and where puppets are in them.

    `covered` [B, 1, T, H, W] is the share of each cell that puppets cover.
    """

    batch: Batch
    clean: Tensor
    covered: Tensor


def shards(folder: Path) -> list[Path]:
    """Return the shards in a folder, the first of which training keeps back; with less than two it raises."""
    found = sorted(folder.glob("groups-*.pt"))
    if len(found) < 2:
        raise FileNotFoundError(f"{folder} holds {len(found)} groups-*.pt of at least 2: run training.prepare.")
    return found


class Groups:
    """Encoded groups in memory, from the shards that `training.prepare` writes; by name, the group first."""

    SHAPES = {
        "clips": (CASTS, BACKDROPS),
        "halves": (CASTS, BACKDROPS),
        "pictures": (CASTS, BACKDROPS, VIEWS),
        "alone": (CASTS, VIEWS),
        "clip_masks": (CASTS, 2),
        "picture_masks": (CASTS, VIEWS, 2),
        "picture_tokens": (CASTS, BACKDROPS, VIEWS),
        "alone_tokens": (CASTS, VIEWS),
        "text": (CASTS * BACKDROPS + 1,),
    }

    def __init__(self, paths: Sequence[Path], device: str):
        stored = [torch.load(path, weights_only=True) for path in paths]
        self._of = {
            name: torch.cat([shard[name].unflatten(1, shape) for shard in stored]).to(device)
            for name, shape in self.SHAPES.items()
        }

    def __len__(self) -> int:
        return len(self._of["clips"])

    def draw(self, count: int, random: torch.Generator, extras: int) -> Examples:
        """Draw examples of both modes with `extras` (0 or 1) extra references, history and prompts now and then."""
        of, device = self._of, self._of["clips"].device

        def below(limit: int) -> Tensor:
            return torch.randint(limit, (count,), generator=random).to(device)

        def chance(share: float) -> Tensor:
            return (torch.rand(count, generator=random) < share).to(device)

        g, target, scene, view = below(len(self)), below(CASTS), below(BACKDROPS), below(VIEWS)
        replacement = chance(0.5)
        cast = torch.where(chance(SAME_CAST_SHARE), target, 1 - target)
        backdrop = torch.where(replacement, scene, below(BACKDROPS))
        alone, alone_mask = of["alone"][g, target], of["picture_masks"][g, target, :, 0]
        behind = replacement.long()

        def primary(whole: Tensor, cut: Tensor) -> Tensor:
            return torch.where(replacement.view(-1, *[1] * (whole.ndim - 1)), cut, whole)

        first = primary(of["pictures"][g, target, scene, view], of["alone"][g, target, view])
        first_mask = of["picture_masks"][g, target, view, 1 - behind]
        references, masks = [first], [first_mask]
        if extras:
            row = torch.arange(count, device=device)
            references.insert(0, alone[row, 1 - view])
            masks.insert(0, alone_mask[row, 1 - view])
        frames = of["clips"].shape[4]
        known = torch.where(chance(0.35), 1 + below(frames - 1), torch.zeros_like(g))
        words = torch.where(chance(NO_TEXT_SHARE), torch.full_like(g, CASTS * BACKDROPS), target * BACKDROPS + scene)
        batch = Batch(
            references=torch.cat(references, dim=2).transpose(1, 2).float(),
            reference_masks=torch.cat(masks, dim=2).transpose(1, 2).float() / CELL,
            driving=of["halves"][g, cast, backdrop].float(),
            driving_mask=of["clip_masks"][g, cast, behind].float() / CELL,
            history=(torch.arange(frames, device=device) < known[:, None]).float(),
            replacement=replacement,
            text=of["text"][g, words].float(),
            clip=primary(of["picture_tokens"][g, target, scene, view], of["alone_tokens"][g, target, view]).float(),
        )
        covered = of["clip_masks"][g, target, 0].float().sum(dim=1, keepdim=True) / (CELL * TEMPORAL)
        covered = covered.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
        return Examples(batch, of["clips"][g, target, scene].float(), covered)
