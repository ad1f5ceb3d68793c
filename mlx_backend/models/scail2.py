"""SCAIL-2: a Wan 2.1 image-to-video transformer with two more stems, for the driving video and for masks.

Source: `wan/modules/model_scail2.py` of zai-org/SCAIL-2. Tokens run [extra references | reference | video | driving].
"""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from ..interface.sizes import PATCH, Scail2Config
from ..interface.variants import POSE_ROPES
from .attention import Context
from .conditioning import Conditioning, Known
from .embeddings import PatchEmbedding
from .rope import TokenGrid, midpoint_rotations, pooled_rotations, rotations, rows
from .wan import WanModel

SHIFT = 120  # distance in patches that keeps the driving video (in W) and a replaced reference (in H) apart


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference picture: latent [16, 1, H, W] and its identity mask [28, 1, H, W], if there is one."""

    latent: mx.array
    mask: mx.array | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Streams:
    """What SCAIL-2 sees around one segment of T latent frames.

    `references`: the primary one first; ComfyUI also runs without any. `driving`: latent [16, T, H/2, W/2] of the
    driving video at half size, of fewer frames than T where it ended early, None for a pass without it; `driving_mask`
    [28, T, H/2, W/2] or None. `video_mask` [28, T, H, W]: the mask of the generated video, zeros when None; it counts
    only beside a reference mask.
    """

    references: tuple[Reference, ...]
    driving: mx.array | None
    driving_mask: mx.array | None
    replacement: bool
    video_mask: mx.array | None = None


class Scail2Model(WanModel):
    """Inherits, rather than holds, the Wan trunk: so the parameters keep their official names at the root."""

    def __init__(self, config: Scail2Config, compute_dtype: mx.Dtype | None = None):
        super().__init__(config, compute_dtype)
        self.patch_embedding_pose = PatchEmbedding(config.pose_dim, config.dim, compute_dtype)
        self.patch_embedding_mask = PatchEmbedding(config.mask_dim, config.dim, compute_dtype)

    def condition(
        self,
        context: Context,
        size: tuple[int, int, int],
        streams: Streams,
        known: Known | None = None,
        pose_rope: str = POSE_ROPES[0],
    ) -> Conditioning:
        """Embed everything but the noisy video of latent size (T, H, W), and lay out the positions.

        `known`: the frames that are clean already. `pose_rope` is one of POSE_ROPES.
        """
        references = streams.references
        before = [self._embed_known(self.patch_embedding, r.latent, r.mask) for r in (*references[1:], *references[:1])]
        after = None
        if streams.driving is not None:
            after = self._embed_known(self.patch_embedding_pose, streams.driving, streams.driving_mask)
        is_masked = bool(references) and references[0].mask is not None
        history = self.config.in_dim - self.config.out_dim  # channels that tell which frames are known
        made = Conditioning(
            context=context,
            positions=positions(
                *size,
                self.config.head_dim,
                references=len(references),
                driving=0 if streams.driving is None else streams.driving.shape[1],
                replacement=streams.replacement,
                pose_rope=pose_rope,
            ),
            channels=mx.zeros((history, *size)) if known is None else known.channels(history),
            before=mx.concatenate(before) if before else None,
            after=after,
            bias=self._embed_video_mask(streams.video_mask) if is_masked else None,
        )
        mx.eval([part for part in (made.before, made.after, made.channels, *made.positions) if part is not None])
        return made

    def _embed_known(self, stem: PatchEmbedding, latent: mx.array, mask: mx.array | None) -> mx.array:
        # Known latents carry channels of ones after their own.
        ones = mx.ones((stem.weight.shape[1] - len(latent), *latent.shape[1:]))
        tokens = stem(mx.concatenate([latent, ones]))
        return tokens if mask is None else tokens + self.patch_embedding_mask(mask)

    def _embed_video_mask(self, mask: mx.array | None) -> mx.array:
        # What remains of mask frames that are all zero is the stem's bias.
        stem = self.patch_embedding_mask
        return stem.bias.astype(mx.float32)[None] if mask is None else stem(mask)


def positions(
    frames: int,
    height: int,
    width: int,
    head_dim: int,
    *,
    references: int,
    driving: int,
    replacement: bool,
    pose_rope: str = POSE_ROPES[0],
) -> tuple[mx.array, mx.array]:
    """Return cos and sin [L, 1, head_dim/2] for latents of T x H x W, so many references and driving frames.

    Animation puts video and driving one step after the last reference in time; replacement puts them at its time and
    moves the references down in H. The driving video is moved right in W, at the mean of full-resolution rotations, or
    at their middle.
    """
    patch_height, patch_width = height // PATCH, width // PATCH
    reference_h = SHIFT if replacement else 0
    video_t = max(references - 1, 0) if replacement else references
    known = TokenGrid(references, patch_height, patch_width, (0, reference_h, 0))
    video = TokenGrid(frames, patch_height, patch_width, (video_t, 0, 0))
    moved = TokenGrid(driving, patch_height, patch_width, (video_t, 0, SHIFT))
    half = midpoint_rotations if pose_rope == "midpoint" else pooled_rotations
    tables = rows(rotations(known, head_dim), rotations(video, head_dim), half(moved, head_dim))
    return mx.array(tables[0]), mx.array(tables[1])
