"""The SCAIL-2 transformer in PyTorch, over batches: the same names and numbers as `mlx_backend.models.scail2`.

Two short cuts, both exact: the rows of zeros that pad a prompt to 512 tokens are one key that counts as often as it
would occur, and the head sees the video's tokens only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlx_backend.interface.sizes import PATCH, Scail2Config
from mlx_backend.models.rope import TokenGrid, pooled_rotations, rotations, rows
from mlx_backend.models.scail2 import SHIFT


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What conditions B clips of T latent frames; `references` [B, N, 16, H, W] has the primary one last.

    `history` [B, T] is 1 on known frames. `text` [B, L, text_dim] is padded with zero rows. `replacement` [B] is bool.
    """

    references: Tensor
    reference_masks: Tensor  # [B, N, 28, H, W]
    driving: Tensor  # [B, 16, T, H/2, W/2]
    driving_mask: Tensor  # [B, 28, T, H/2, W/2]
    history: Tensor
    replacement: Tensor
    text: Tensor
    clip: Tensor  # [B, tokens, clip_dim]


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last axis."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, in float32."""
        return F.rms_norm(x.float(), x.shape[-1:], self.weight, self.eps)


class SelfAttention(nn.Module):
    """Rotated attention over all tokens."""

    def __init__(self, config: Scail2Config):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in "qkvo")
        self.norm_q, self.norm_k = RMSNorm(config.dim, config.eps), RMSNorm(config.dim, config.eps)
        self.head_dim = config.head_dim

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """Attend; `turn` is cos and sin [B, L, 1, head_dim / 2]."""
        q, k = (
            rotated(norm(to(x)), turn, self.head_dim) for norm, to in ((self.norm_q, self.q), (self.norm_k, self.k))
        )
        return self.o(attended(q, k, split(self.v(x), self.head_dim)))


class CrossAttention(nn.Module):
    """Two attentions, to the text and to the CLIP tokens, summed."""

    def __init__(self, config: Scail2Config):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(config.dim, config.dim) for _ in "qkvo")
        self.k_img, self.v_img = nn.Linear(config.dim, config.dim), nn.Linear(config.dim, config.dim)
        self.norm_q, self.norm_k, self.norm_k_img = (RMSNorm(config.dim, config.eps) for _ in range(3))
        self.head_dim = config.head_dim

    def forward(self, x: Tensor, text: Tensor, weight: Tensor, image: Tensor) -> Tensor:
        """Attend; `weight` [keys] is added to the scores of the text."""
        q = split(self.norm_q(self.q(x)), self.head_dim)
        seen = attended(q, split(self.norm_k(self.k(text)), self.head_dim), split(self.v(text), self.head_dim), weight)
        keys = split(self.norm_k_img(self.k_img(image)), self.head_dim)
        return self.o(seen + attended(q, keys, split(self.v_img(image), self.head_dim)))


def split(x: Tensor, head_dim: int) -> Tensor:
    """[B, L, dim] to [B, heads, L, head_dim]."""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def rotated(x: Tensor, turn: tuple[Tensor, Tensor], head_dim: int) -> Tensor:
    """Split into heads and turn adjacent pairs of channels."""
    pairs = x.unflatten(-1, (-1, head_dim // 2, 2))
    cos, sin = turn
    even, odd = pairs.unbind(-1)
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    return turned.flatten(-2).transpose(1, 2)


def attended(q: Tensor, k: Tensor, v: Tensor, weight: Tensor | None = None) -> Tensor:
    """Softmax attention, heads joined: [B, L, dim]; `weight` [keys] is added to the scores.

    Written out on a CPU, where the slope of the fused kernel takes longer than all the products of a block.
    """
    q, k = q.to(v.dtype), k.to(v.dtype)
    if v.device.type == "cpu":
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        seen = (scores if weight is None else scores + weight.to(v.dtype)).softmax(dim=-1).to(v.dtype) @ v
    else:
        added = None if weight is None else weight.to(v.dtype).expand(1, 1, 1, -1)
        seen = F.scaled_dot_product_attention(q, k, v, added)
    return seen.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Self-attention, cross-attention, feed-forward; the first and the last modulated by the time."""

    def __init__(self, config: Scail2Config):
        super().__init__()
        dim = config.dim
        self.norm1 = nn.LayerNorm(dim, config.eps, elementwise_affine=False)
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(dim, config.eps)
        self.cross_attn = CrossAttention(config)
        self.norm2 = nn.LayerNorm(dim, config.eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, dim)
        )
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], time: Tensor, context: tuple[Tensor, ...]) -> Tensor:
        """Pass x [B, L, dim]; `time` is e0 [B, 6, dim]."""
        shift, scale, gate, shift_ffn, scale_ffn, gate_ffn = (self.modulation + time).chunk(6, dim=1)
        x = x + self.self_attn(self.norm1(x) * (1 + scale) + shift, turn) * gate
        x = x + self.cross_attn(self.norm3(x), *context)
        return x + self.ffn(self.norm2(x) * (1 + scale_ffn) + shift_ffn) * gate_ffn


class Head(nn.Module):
    """Modulated norm and projection to patches."""

    def __init__(self, config: Scail2Config):
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.dim, config.out_dim * PATCH * PATCH)
        self.modulation = nn.Parameter(torch.zeros(1, 2, config.dim))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Project x [B, L, dim]; `time` is e [B, dim]."""
        shift, scale = (self.modulation + time[:, None]).chunk(2, dim=1)
        return self.head(self.norm(x) * (1 + scale) + shift)


class _ImageEmbedding(nn.Module):
    def __init__(self, config: Scail2Config):
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(config.clip_dim, 1e-5),
            nn.Linear(config.clip_dim, config.clip_dim),
            nn.GELU(),
            nn.Linear(config.clip_dim, config.dim),
            nn.LayerNorm(config.dim, 1e-5),
        )


class DiT(nn.Module):
    """The whole transformer; parameters carry the official checkpoint's names."""

    def __init__(self, config: Scail2Config):
        super().__init__()
        dim, patch = config.dim, (1, PATCH, PATCH)
        self.config = config
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, patch, patch)
        self.patch_embedding_pose = nn.Conv3d(config.pose_dim, dim, patch, patch)
        self.patch_embedding_mask = nn.Conv3d(config.mask_dim, dim, patch, patch)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_emb = _ImageEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(config)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Let every residual branch begin at zero behind open gates, and the first velocity be zero."""
        self.head.head.weight.zero_()
        self.time_projection[1].weight.normal_(std=0.02)
        for block in self.blocks:
            block.modulation[:, [2, 5]] = 1
            for last in (block.self_attn.o, block.cross_attn.o, block.ffn[2]):
                last.weight.zero_()

    def forward(self, x: Tensor, t: Tensor, batch: Batch) -> Tensor:
        """Return the velocity [B, 16, T, H, W] of noisy latents x at timesteps t [B] in 0..1000."""
        count, _, frames, height, width = x.shape
        references = batch.references.shape[1]
        known = batch.history[:, None, :, None, None].expand(count, 4, frames, height, width)
        stem = _tokens(self.patch_embedding, _with_ones(batch.references.transpose(1, 2)))
        before = stem + _tokens(self.patch_embedding_mask, batch.reference_masks.transpose(1, 2))
        video = _tokens(self.patch_embedding, torch.cat([x, known], dim=1)) + self.patch_embedding_mask.bias
        after = _tokens(self.patch_embedding_pose, _with_ones(batch.driving))
        after = after + _tokens(self.patch_embedding_mask, batch.driving_mask)
        hidden = torch.cat([before, video, after], dim=1).float()
        turn = self._turn(frames, height, width, references, batch.replacement)
        e = self.time_embedding(sinusoid(t, self.config.freq_dim)).float()
        e0 = self.time_projection(e).unflatten(1, (6, -1)).float()
        context = self._context(batch)
        for block in self.blocks:
            hidden = block(hidden, turn, e0, context)
        start, stop = before.shape[1], before.shape[1] + video.shape[1]
        out = self.head(hidden[:, start:stop], e).float()
        out = out.view(count, frames, height // PATCH, width // PATCH, PATCH, PATCH, -1)
        return out.permute(0, 6, 1, 2, 4, 3, 5).reshape(count, -1, frames, height, width)

    def _context(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        text = F.pad(batch.text, (0, 0, 0, 1))
        weight = text.new_zeros(text.shape[1], dtype=torch.float32)
        weight[-1] = math.log(self.config.text_len - text.shape[1] + 1)
        return self.text_embedding(text), weight, self.img_emb.proj(batch.clip)

    def _turn(
        self, frames: int, height: int, width: int, references: int, replacement: Tensor
    ) -> tuple[Tensor, Tensor]:
        both = [
            positions(frames, height, width, references, self.config.head_dim, replacement=mode)
            for mode in (False, True)
        ]
        chosen = replacement.long()
        return tuple(
            torch.from_numpy(np.stack(tables)).to(replacement.device)[chosen] for tables in zip(*both, strict=True)
        )


def positions(
    frames: int, height: int, width: int, references: int, head_dim: int, *, replacement: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and sin [L, 1, head_dim / 2] of all tokens of latents T x H x W."""
    rows_, columns = height // PATCH, width // PATCH
    video_t = references - 1 if replacement else references
    return rows(
        rotations(TokenGrid(references, rows_, columns, (0, SHIFT if replacement else 0, 0)), head_dim),
        rotations(TokenGrid(frames, rows_, columns, (video_t, 0, 0)), head_dim),
        pooled_rotations(TokenGrid(frames, rows_, columns, (video_t, 0, SHIFT)), head_dim),
    )


def sinusoid(t: Tensor, dim: int) -> Tensor:
    """Return [cos | sin] of t [B] over `dim` / 2 frequencies, float32 [B, dim]."""
    rates = torch.exp(-math.log(10000.0) * torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angles = t.cpu().double()[:, None] * rates  # Apple's GPUs have no float64
    return torch.cat([angles.cos(), angles.sin()], dim=1).float().to(t.device)


def _with_ones(latents: Tensor) -> Tensor:
    return F.pad(latents, (0, 0, 0, 0, 0, 0, 0, 4), value=1.0)


def _tokens(stem: nn.Conv3d, x: Tensor) -> Tensor:
    return stem(x).flatten(2).transpose(1, 2)
