"""What is sharp is told from what is blurred, and left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import data as photos
from torch import nn

from stochastic_refine.blur import CameraBlur, develop, expose, srgb_to_linear_tensor
from stochastic_refine.inference.deblurrer import Deblurrer
from stochastic_refine.inference.sharpness import BLURRED, blur_measure, blur_weight


def photo(name: str) -> torch.Tensor:
    """Half the size, since these were scanned softly: (3, H, W)."""
    image = torch.from_numpy(getattr(photos, name)()).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.avg_pool2d(image[..., :300, :300], 2)[0]


def shaken(image: torch.Tensor, length: float, angle: float = 0.0) -> torch.Tensor:
    """Straight motion along an angle."""
    motion = CameraBlur(lines=None, length=(length, length), paths={'straight': 1}, roll=(0, 0), tilt=(0, 0), defocus=(0, 0),
                        highlights=(1, 1)).draw(np.random.default_rng(int(10 * angle)), *image.shape[-2:])
    wide = torch.nn.functional.pad(image[None], (20, 20, 20, 20), mode='reflect')
    side = wide.shape[-1]
    light = expose(srgb_to_linear_tensor(wide), [motion], [(-(side - 1) / 2, -(side - 1) / 2)], 20)
    return develop(light, [motion], torch.zeros_like(light))[0]


@pytest.mark.parametrize('name', ['astronaut', 'coffee', 'chelsea', 'rocket'])
def test_blur_is_measured(name):
    sharp = photo(name)
    measures = [blur_measure(sharp), blur_measure(shaken(sharp, 4)), blur_measure(shaken(sharp, 12))]
    assert measures[0] < BLURRED < measures[2] and measures == sorted(measures)


@pytest.mark.parametrize('angle', [0.0, 0.7, 1.6])
def test_blur_along_any_direction_counts(angle):
    assert blur_measure(shaken(photo('astronaut'), 10, angle)) > BLURRED


def test_weight_is_where_the_blur_is():
    """In a small part of a sharp scene."""
    blocks = torch.rand(1, 1, 63, 63, generator=torch.Generator().manual_seed(0)).round()
    scene = torch.nn.functional.interpolate(blocks, scale_factor=4)[0].expand(3, -1, -1).contiguous()
    assert blur_weight(scene).max() < 0.2
    scene[:, 150:, 150:] = torch.nn.functional.avg_pool2d(scene, 9, 1, 4)[:, 150:, 150:]
    weight = blur_weight(scene)[0]
    assert weight[200:, 200:].min() > 0.9 and weight[:110, :].max() < 0.2 and weight[:, :110].max() < 0.2


@pytest.mark.parametrize('size', [(1, 1), (2, 9), (3, 3), (40, 5)])
def test_any_size_has_a_weight(size):
    weight = blur_weight(torch.rand(3, *size))
    assert weight.shape == (1, *size) and weight.isfinite().all()


class Darker(nn.Module):
    """A network that would harm every photo."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * x


def test_a_sharp_photo_comes_back_and_a_blurred_one_is_restored():
    checkers = torch.zeros(3, 64, 64)
    checkers[:, ::4] = checkers[:, 1::4] = 1.0
    keeping, plain = (Deblurrer(Darker(), device='cpu', precision='float32', keep_sharp=keep) for keep in (True, False))
    assert np.array_equal(keeping(checkers).image, checkers.permute(1, 2, 0))
    blurred = shaken(photo('astronaut'), 12)
    assert np.allclose(keeping(blurred).image, plain(blurred).image, atol=1e-6)
    assert np.allclose(plain(checkers).image, checkers.permute(1, 2, 0) / 2)
