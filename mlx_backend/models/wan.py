"""The Wan diffusion transformer, whole: text to video as it stands, by its config and conditioning every other member.

Parameters carry the official checkpoint's names.

Source: `wan/modules/model.py` of Wan-Video/Wan2.1.
"""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

from ..interface.chunks import GPU_DISPATCH_FLOPS
from ..interface.sizes import PATCH, WanConfig
from .activations import GELUTanh, SiLU
from .attention import Context, Rotation, Rows, Time
from .block import Block, Head
from .chunking import chunk_bounds, cut
from .conditioning import Conditioning
from .embeddings import ImageEmbedding, PatchEmbedding, sinusoid
from .linear import Linear, Product
from .offload import BlockNetwork
from .rope import TokenGrid, rotations
from .rope import rows as token_rows


class WanModel(BlockNetwork):
    """Embeddings, blocks and head; the image branch only where the config has CLIP tokens.

    Time, modulation, norms, residual stream and head are float32; the block's products run in `compute_dtype`
    (None: the dtype of the weights).
    """

    def __init__(self, config: WanConfig, compute_dtype: mx.Dtype | None = None):
        super().__init__()
        dim = config.dim
        self._config = config
        self._dispatch_flops = GPU_DISPATCH_FLOPS
        self._head_groups = 1
        self.patch_embedding = PatchEmbedding(config.in_dim, dim, compute_dtype)
        self.text_embedding = [
            Linear(config.text_dim, dim, compute_dtype=compute_dtype),
            GELUTanh(),
            Linear(dim, dim, compute_dtype=compute_dtype),
        ]
        self.time_embedding = [
            Linear(config.freq_dim, dim, compute_dtype=mx.float32),
            SiLU(),
            Linear(dim, dim, compute_dtype=mx.float32),
        ]
        self.time_projection = [SiLU(), Linear(dim, 6 * dim, compute_dtype=mx.float32)]
        if config.clip_dim:
            self.img_emb = ImageEmbedding(config, compute_dtype)
        self.blocks = [Block(config, compute_dtype) for _ in range(config.num_layers)]
        self.head = Head(config, config.out_dim * PATCH * PATCH)

    @property
    def config(self) -> WanConfig:
        """The sizes it was built with."""
        return self._config

    def limit_dispatches(self, flops: float) -> None:
        """Let no GPU dispatch of a pass take more than about so many FLOPs, for a slow machine."""
        self._dispatch_flops = flops

    def attend_in_groups(self, groups: int) -> None:
        """Let a pass's self-attention take one group of heads after another, in less memory: a divisor of the heads."""
        self._head_groups = groups

    def leave_float16(self) -> bool:
        """Compute in bf16 from now on what was computed in float16; return whether anything was."""
        products = [m for m in self.modules() if isinstance(m, Product) and m.compute_dtype is not None]
        layers = [layer for layer in products if layer.compute_dtype == mx.float16]
        for layer in layers:
            layer.compute_in(mx.bfloat16)
        return bool(layers)

    def embed_context(self, text: mx.array, clip: mx.array | None = None) -> Context:
        """Embed text [L, text_dim] and CLIP tokens [n, clip_dim]; the same for every step of a run.

        The text is padded with zero rows to `text_len` and no row is masked: the rows pass the Linear's bias and are
        attended to, as upstream does. Without CLIP tokens the attention to them reads the text, as ComfyUI's does.
        """
        padding = mx.zeros((max(0, self._config.text_len - len(text)), self._config.text_dim))
        tokens = mx.concatenate([text.astype(mx.float32), padding])
        for layer in self.text_embedding:
            tokens = layer(tokens)
        image = None
        if self._config.clip_dim:
            image = tokens if clip is None else self.img_emb(clip)
        mx.eval([part for part in (tokens, image) if part is not None])
        return Context(tokens, image)

    def embed_time(self, t: float) -> Time:
        """Embed a timestep t (0..1000), in float32."""
        e = sinusoid(t, self._config.freq_dim)
        for layer in self.time_embedding:
            e = layer(e)
        e0 = e
        for layer in self.time_projection:
            e0 = layer(e0)
        return Time(e[0], e0.reshape(6, -1))

    def condition(self, context: Context, size: tuple[int, int, int]) -> Conditioning:
        """Return what conditions a video of latent size (T, H, W) by a text, and CLIP tokens if it has them, alone."""
        frames, height, width = size
        grid = TokenGrid(frames, height // PATCH, width // PATCH, (0, 0, 0))
        cos, sin = map(mx.array, token_rows(rotations(grid, self._config.head_dim)))
        mx.eval(cos, sin)
        return Conditioning(context=context, positions=(cos, sin))

    def __call__(
        self, x: mx.array, t: float, conditioning: Conditioning, check_cancelled: Callable[[], None]
    ) -> mx.array:
        """Return the velocity [out_dim, T, H, W] of the noisy latent x [C, T, H, W] at timestep t, float32.

        `check_cancelled` is called several times in every block and may raise.
        """
        before = 0 if conditioning.before is None else len(conditioning.before)
        after = 0 if conditioning.after is None else len(conditioning.after)
        # No name holds the tokens here, so that `_transform` can let them go once they are cut into chunks.
        out = self._transform(self._tokens(x, conditioning), t, conditioning, check_cancelled)
        return self._unpatchify(out[before : len(out) - after], *x.shape[1:])

    def _tokens(self, x: mx.array, conditioning: Conditioning) -> mx.array:
        """Embed the video's patches and join them with the tokens around them: [L, dim], float32."""
        channels = conditioning.channels
        video = self.patch_embedding(x if channels is None else mx.concatenate([x, channels]))
        if conditioning.bias is not None:
            video = video + conditioning.bias
        mx.eval(video)  # the patches, and the product in its own dtype, are gone before all tokens are joined
        parts = (conditioning.before, video, conditioning.after)
        tokens = mx.concatenate([part for part in parts if part is not None])
        mx.eval(tokens)  # and the video's are before they are cut into chunks
        return tokens

    def _transform(
        self, tokens: mx.array, t: float, conditioning: Conditioning, check_cancelled: Callable[[], None]
    ) -> mx.array:
        """Run blocks and head over tokens [L, dim]; return [L, out_dim * 4]."""
        bounds = chunk_bounds(len(tokens), self._config.dim, self._config.num_heads, self._dispatch_flops)
        noisy, start = self.embed_time(t), 0 if conditioning.before is None else len(conditioning.before)
        known = slice(start, start + conditioning.clean)
        clean = self.embed_time(0.0) if conditioning.clean else noisy
        # The embedding's weights, cast to float32, are gone before there are two streams.
        mx.eval([(time.e, time.e0) for time in (noisy, clean)])
        chunks = [
            Rows(
                mx.contiguous(tokens[a:b]),
                Rotation(*(mx.contiguous(table[a:b]) for table in conditioning.positions)),
                clean if known.start <= a < known.stop else noisy,
            )
            for a, b in cut(bounds, known)
        ]
        mx.eval([rows.x for rows in chunks])
        del tokens
        with self.due_blocks() as blocks:
            for block in blocks:
                block(chunks, conditioning.context, check_cancelled, self._head_groups)
        made = []
        for rows in chunks:
            made.append(self.head(rows))
            mx.eval(made[-1])  # one at a time: all norms at once would take a stream's memory again
        return mx.concatenate(made)

    def _unpatchify(self, tokens: mx.array, frames: int, height: int, width: int) -> mx.array:
        """Turn patches [T * H/2 * W/2, 4 * out_dim] into [out_dim, T, H, W], H and W latent.

        Channels are innermost here, though they are outermost in the patches that go in.
        """
        out = tokens.reshape(frames, height // PATCH, width // PATCH, PATCH, PATCH, self._config.out_dim)
        return out.transpose(5, 0, 1, 3, 2, 4).reshape(self._config.out_dim, frames, height, width)
