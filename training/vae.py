"""The Wan 2.1 VAE in PyTorch, whole clips at once: the same names and numbers as `mlx_backend.models.vae21`.

Only training needs it: gradients, and a CPU that convolves clips fast. Tests hold the two together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlx_backend.interface.latent_space import WAN21
from mlx_backend.interface.sizes import VAEConfig


class CausalConv3d(nn.Conv3d):
    """A convolution of [B, C, T, H, W] that sees only the past; zeros before the first frame."""

    def __init__(self, in_dim: int, out_dim: int, kernel: tuple[int, int, int]):
        super().__init__(in_dim, out_dim, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        length = self.kernel_size[0]
        if length > 1 and x.shape[2] == 1:  # what lies before the only frame is zero: its taps need not be multiplied
            return F.conv3d(x, self.weight[:, :, -1:], self.bias, padding=self.padding)
        return super().forward(F.pad(x, (0, 0, 0, 0, length - 1, 0)))


class _Normalised(torch.autograd.Function):
    """sqrt(C) x / |x| gamma over the channels; by hand, as the pieces take longer than the convolutions on a CPU."""

    @staticmethod
    def forward(ctx, x: Tensor, gamma: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_(min=1e-12)
        ratio = length.reciprocal_().mul_(x.shape[1] ** 0.5)
        ctx.save_for_backward(x, gamma, ratio)
        return (x * ratio).mul_(gamma.to(x.dtype))

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor, Tensor]:
        x, gamma, ratio = ctx.saved_tensors
        gain, normal = gamma.to(x.dtype), x * ratio
        product = slope * normal
        to_gamma = product.sum(dim=[0, *range(2, x.ndim)], dtype=torch.float32).view_as(gamma)
        along = product.mul_(gain).mean(dim=1, keepdim=True)
        return (slope * gain).sub_(normal.mul_(along)).mul_(ratio), to_gamma


class RMSNorm(nn.Module):
    """x / |x| over the channels, times sqrt(C) and `gamma`."""

    def __init__(self, dim: int, axes: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return _Normalised.apply(x, self.gamma)


class ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice, plus the input."""

    def __init__(self, in_dim: int, out_dim: int):
        super().__init__()
        self.residual = nn.Sequential(
            RMSNorm(in_dim, 3),
            nn.SiLU(),
            CausalConv3d(in_dim, out_dim, (3, 3, 3)),
            RMSNorm(out_dim, 3),
            nn.SiLU(),
            nn.Identity(),
            CausalConv3d(out_dim, out_dim, (3, 3, 3)),
        )
        self.shortcut = CausalConv3d(in_dim, out_dim, (1, 1, 1)) if in_dim != out_dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add what the convolutions make."""
        return self.shortcut(x) + self.residual(x)


def _framewise(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer of pictures to every frame of [B, C, T, H, W]."""
    batch, frames = x.shape[0], x.shape[2]
    made = layer(x.transpose(1, 2).flatten(0, 1))
    return made.unflatten(0, (batch, frames)).transpose(1, 2)


class AttentionBlock(nn.Module):
    """Single-head attention among all pixels of a frame."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = RMSNorm(dim, 2)
        self.to_qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Add what is seen."""
        return x + _framewise(self._seen, x)

    def _seen(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return self.proj(seen.reshape(x.shape))


class Downsample(nn.Module):
    """Half the size in space and, where `temporal`, one frame of every two; the first passes that part by."""

    def __init__(self, dim: int, *, temporal: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(dim, dim, 3, stride=2))
        self.time_conv = nn.Conv3d(dim, dim, (3, 1, 1), stride=(2, 1, 1)) if temporal else None

    def forward(self, x: Tensor) -> Tensor:
        """Reduce."""
        x = _framewise(self.resample, x)
        if self.time_conv is None or x.shape[2] == 1:
            return x
        return torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)


class Upsample(nn.Module):
    """Twice the size in space, half the channels, and, where `temporal`, two frames of one (but for the first)."""

    def __init__(self, dim: int, *, temporal: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(dim, dim // 2, 3, padding=1))
        self.time_conv = CausalConv3d(dim, 2 * dim, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge."""
        if self.time_conv is not None and x.shape[2] > 1:
            later = torch.stack(self.time_conv(x[:, :, 1:]).chunk(2, dim=1), dim=3).flatten(2, 3)
            x = torch.cat([x[:, :, :1], later], dim=2)
        return _framewise(self.resample, x)


def _head(dim: int, out_dim: int) -> nn.Sequential:
    return nn.Sequential(RMSNorm(dim, 3), nn.SiLU(), CausalConv3d(dim, out_dim, (3, 3, 3)))


def _middle(dim: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(dim, dim), AttentionBlock(dim), ResidualBlock(dim, dim))


class Encoder(nn.Module):
    """Pixels [B, 3, T, H, W] to 2 x z_dim channels at an eighth of the size."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        dims = [config.dim * m for m in (1, *config.dim_mult)]
        self.conv1 = CausalConv3d(3, dims[0], (3, 3, 3))
        layers: list[nn.Module] = []
        for i, (in_dim, out_dim) in enumerate(zip(dims[:-1], dims[1:], strict=True)):
            layers.append(ResidualBlock(in_dim, out_dim))
            layers += [ResidualBlock(out_dim, out_dim) for _ in range(config.num_res_blocks - 1)]
            if i < len(config.temporal_downsample):
                layers.append(Downsample(out_dim, temporal=config.temporal_downsample[i]))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(dims[-1])
        self.head = _head(dims[-1], 2 * config.z_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Encode."""
        return self.head(self.middle(self.downsamples(self.conv1(x))))


class Decoder(nn.Module):
    """z_dim channels to pixels at eight times the size."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        dims = [config.dim * m for m in (config.dim_mult[-1], *reversed(config.dim_mult))]
        temporal = config.temporal_downsample[::-1]
        self.conv1 = CausalConv3d(config.z_dim, dims[0], (3, 3, 3))
        self.middle = _middle(dims[0])
        layers: list[nn.Module] = []
        for i, (in_dim, out_dim) in enumerate(zip(dims[:-1], dims[1:], strict=True)):
            layers.append(ResidualBlock(in_dim // 2 if i else in_dim, out_dim))
            layers += [ResidualBlock(out_dim, out_dim) for _ in range(config.num_res_blocks)]
            if i < len(temporal):
                layers.append(Upsample(out_dim, temporal=temporal[i]))
        self.upsamples = nn.Sequential(*layers)
        self.head = _head(dims[-1], 3)

    def forward(self, z: Tensor) -> Tensor:
        """Decode."""
        return self.head(self.upsamples(self.middle(self.conv1(z))))


class VAE(nn.Module):
    """Both halves; latents [B, 16, T, H, W] are normalised by Wan's means and deviations, as everywhere else."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, (1, 1, 1))
        self.conv2 = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = Decoder(config)

    def moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean (normalised) and log of the variance (of the normalised latent) of pixels in -1..1."""
        mean, log_variance = self.conv1(self.encoder(pixels)).chunk(2, dim=1)
        scale = _column(WAN21.std, mean)
        return (mean - _column(WAN21.mean, mean)) / scale, log_variance - 2 * scale.log()

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mean latent of pixels [B, 3, 4k+1, H, W] in -1..1."""
        return self.moments(pixels)[0]

    def decode(self, latent: Tensor) -> Tensor:
        """Return pixels [B, 3, 1 + 4 (T - 1), 8 H, 8 W] in about -1..1."""
        return self.decoder(self.conv2(latent * _column(WAN21.std, latent) + _column(WAN21.mean, latent)))

    @torch.no_grad()
    def rescale(self, mean: Tensor, deviation: Tensor) -> None:
        """Absorb a shift and a scale of the 16 latent channels into the two pointwise convolutions, exactly.

        Afterwards `encode` returns (latent - mean) / deviation, and `decode` of that what it made before.
        """
        count = len(mean)
        shift, scale = mean.new_tensor(WAN21.mean), mean.new_tensor(WAN21.std)
        # raw' = (raw - shift - scale mean) / deviation + shift, and back
        offset = shift - (shift + scale * mean) / deviation
        self.conv1.weight[:count] /= deviation.view(-1, 1, 1, 1, 1)
        self.conv1.bias[:count] = self.conv1.bias[:count] / deviation + offset
        self.conv1.bias[count:] -= 2 * deviation.log()
        self.conv2.bias -= (self.conv2.weight.flatten(1) * deviation) @ offset
        self.conv2.weight *= deviation.view(1, -1, 1, 1, 1)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return like.new_tensor(values).view(1, -1, 1, 1, 1)
