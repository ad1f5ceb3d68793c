"""Resizing against torch, whose kernels upstream uses."""

import numpy as np
import pytest
from PIL import Image

from mlx_backend.media.resize import MASK, PHOTO, fit, halved, stretched_bicubic

torch = pytest.importorskip("torch")
SIZES = [(60, 100, 64, 96), (101, 57, 64, 96), (40, 40, 96, 64), (64, 96, 64, 96), (300, 500, 32, 64)]


def pictures(height, width):
    return np.random.default_rng(height * width).random((2, height, width, 3), np.float32)


@pytest.mark.parametrize(("height", "width", "target_height", "target_width"), SIZES)
def test_photos_are_resized_and_cropped_as_upstream(height, width, target_height, target_width):
    frames = pictures(height, width)
    if width / height > target_width / target_height:
        size = (target_height, int(width * target_height / height))
    else:
        size = (int(height * target_width / width), target_width)
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(planes, size, mode="bicubic", antialias=True, align_corners=False)
    top, left = (size[0] - target_height) // 2, (size[1] - target_width) // 2
    expected = resized[:, :, top : top + target_height, left : left + target_width].permute(0, 2, 3, 1).numpy()
    assert np.abs(fit(frames, target_width, target_height, PHOTO) - expected).max() < 1e-5


@pytest.mark.parametrize(("height", "width", "target_height", "target_width"), SIZES)
def test_masks_keep_their_colours(height, width, target_height, target_width):
    mask = (pictures(height, width) > 0.5).astype(np.float32)
    fitted = fit(mask, target_width, target_height, MASK)
    assert fitted.shape == (2, target_height, target_width, 3)
    assert set(np.unique(fitted)) <= {0.0, 1.0}


@pytest.mark.parametrize("size", [(80, 120), (224, 224), (30, 500)])
def test_the_stretch_for_clip_is_torchs(size):
    picture = pictures(*size)[0]
    planes = torch.from_numpy(picture).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(planes, (224, 224), mode="bicubic", align_corners=False)
    assert np.abs(stretched_bicubic(picture, 224, 224) - expected[0].permute(1, 2, 0).numpy()).max() < 1e-5


def test_half_size_is_torchs_bilinear():
    frames = pictures(64, 96)
    planes = torch.from_numpy(frames).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(planes, scale_factor=0.5, mode="bilinear", align_corners=False)
    assert np.abs(halved(frames) - expected.permute(0, 2, 3, 1).numpy()).max() < 1e-6


def test_pillow_has_the_kernels_named():
    assert (PHOTO, MASK) == (Image.Resampling.BICUBIC, Image.Resampling.NEAREST)
