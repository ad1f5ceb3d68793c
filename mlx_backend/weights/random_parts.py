"""Parts of a snapshot that nobody trained: random numbers for a network, tiny sizes, and a tokenizer of letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ..spec.sizes import ClipConfig, DiTConfig, UMT5Config, VAEConfig
from .layouts import snapshot_name

DIT = DiTConfig(
    dim=256,
    ffn_dim=512,
    freq_dim=64,
    num_heads=2,
    num_layers=2,
    in_dim=20,
    pose_dim=20,
    mask_dim=28,
    out_dim=16,
    text_dim=64,
    clip_dim=160,
)
VAE = VAEConfig(dim=8, z_dim=16, dim_mult=(1, 2, 4, 4), num_res_blocks=2, temporal_downsample=(False, True, True))
CLIP = ClipConfig(dim=160, num_heads=2, num_layers=2, mlp_dim=640, out_dim=64, patch_size=14, image_size=224)
LETTERS = "▁" + "".join(chr(code) for code in range(33, 127))
UMT5 = UMT5Config(
    vocab_size=3 + len(LETTERS), dim=64, dim_attn=64, dim_ffn=128, num_heads=4, num_layers=2, num_buckets=32
)


def filled(component: str, model: nn.Module, dtype: mx.Dtype, normal: Callable[..., np.ndarray]) -> dict[str, mx.array]:
    """Return random weights for a network under the names that a snapshot has for them."""
    tensors = {}
    for name, array in tree_flatten(model.parameters()):
        shape = tuple(array.shape)
        if bool((array == 1).all()):  # the networks start their norms at one, everything else at zero
            values = 1 + 0.1 * normal(size=shape)
        elif name.endswith("bias") or "modulation" in name:
            values = 0.1 * normal(size=shape)
        else:
            # A convolution or product keeps the size of what it is given; `head` of CLIP is stored [in, out].
            inputs = shape[0] if name == "head" else np.prod(shape[1:])
            values = normal(size=shape) / np.sqrt(inputs)
        tensors[snapshot_name(component, name)] = mx.array(values.astype(np.float32)).astype(dtype)
    return tensors


def unigram_tokenizer(words: Sequence[str] = ()) -> Tokenizer:
    """Return a tokenizer of letters, and of `words` where a word begins with a space."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -4.0) for letter in LETTERS)]
    vocabulary += [(f"▁{word}", -1.0) for word in words]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer
