"""Exposures of a moving camera: closed forms, what must be kept, and settings that cannot be."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photos

from stochastic_refine.blur import (
    PRESETS,
    CameraBlur,
    Exposure,
    blur_valid,
    camera_shake_trajectory,
    develop,
    expose,
    jpeg_artefacts,
    linear_to_srgb,
    linear_to_srgb_tensor,
    rasterize_trajectory,
    srgb_to_linear_tensor,
)

STREET = dataclasses.replace(PRESETS['street'], lines=None, length=(10, 20), object_length=(5, 15), object_size=(0.2, 0.4))


def photo(side: int = 96) -> torch.Tensor:
    """Linear light, (1, 3, side, side)."""
    pixels = torch.from_numpy(photos.astronaut()[:side, 180:180 + side]).permute(2, 0, 1)
    return srgb_to_linear_tensor(pixels[None].float() / 255)


def shifts(path: np.ndarray) -> np.ndarray:
    """Homographies of a path (M, 2), (x, y)."""
    motion = np.tile(np.eye(3), (len(path), 1, 1))
    motion[:, :2, 2] = path
    return motion


def around(side: int) -> list[tuple[float, float]]:
    """Origin of a window of that side in its frame's middle."""
    return [(-(side - 1) / 2, -(side - 1) / 2)]


def test_pure_translation_is_convolution_with_the_paths_kernel():
    path = camera_shake_trajectory(14, np.random.default_rng(3))  # (y, x)
    kernel = rasterize_trajectory(-path)  # light from p + d is seen at p, so the kernel is the mirrored path
    margin = kernel.shape[0] // 2
    light = photo()
    blurred = expose(light, [Exposure(shifts(path[:, ::-1]))], around(96), margin)
    expected = blur_valid(light[0].permute(1, 2, 0).numpy(), kernel)
    np.testing.assert_allclose(blurred[0].permute(1, 2, 0), expected, atol=1e-5)


def test_without_motion_a_photo_is_stored_as_it_was():
    light = photo()
    still = Exposure(shifts(np.zeros((5, 2))))
    blurred = expose(light, [still], around(96), 4)
    torch.testing.assert_close(blurred, light[..., 4:-4, 4:-4], atol=1e-5, rtol=0)  # positions are float32
    stored = develop(blurred, [still], torch.zeros_like(blurred))
    assert torch.equal(stored, (linear_to_srgb_tensor(light[..., 4:-4, 4:-4]) * 255).round() / 255)


def test_a_constant_image_stays_constant():
    exposure = dataclasses.replace(STREET.draw(np.random.default_rng(0), 96, 96), highlight_gain=1.0)
    assert exposure.objects and exposure.defocus > 0
    blurred = expose(torch.full((1, 3, 96, 96), 0.37), [exposure], around(96), 12)
    torch.testing.assert_close(blurred, torch.full_like(blurred, 0.37), atol=1e-6, rtol=0)


def test_energy_is_kept_where_nothing_clips():
    lamp = torch.zeros(1, 1, 96, 96)
    lamp[..., 45:50, 40:47] = 0.5
    path = camera_shake_trajectory(14, np.random.default_rng(1))[:, ::-1]
    moved = expose(lamp, [Exposure(shifts(path), defocus=2.5)], around(96), 16)
    assert moved.max() < 0.4 and moved.sum() == pytest.approx(float(lamp.sum()), rel=1e-5)
    rolled = expose(lamp, [CameraBlur(lines=None, length=(10, 10), tilt=(0, 0), defocus=(1, 1), highlights=(1, 1)).draw(
        np.random.default_rng(1), 96, 96)], around(96), 16)
    assert rolled.sum() == pytest.approx(float(lamp.sum()), rel=2e-3)  # a turned grid samples a square unevenly
    brighter = expose(lamp * 2, [Exposure(shifts(path), highlight_gain=3)], around(96), 16)
    assert brighter.sum() == pytest.approx(6 * float(lamp.sum()), rel=1e-5)


@pytest.mark.parametrize('kind', ['shake', 'objects', 'defocus'])
def test_an_exposure_is_linear_in_light_and_has_its_adjoint(kind):
    """<A x, y> = <x, A^T y>, with A^T the gradient taken at another place, where it is the same only if A is linear."""
    camera = dataclasses.replace(STREET, defocus=(2, 3) if kind == 'defocus' else (0, 0), highlights=(1, 1),
                                 objects=(3, 3) if kind == 'objects' else (0, 0))
    exposure = camera.draw(np.random.default_rng(5), 96, 96)
    margin = exposure.reach(-48, -48, 48, 48) + 3
    x, elsewhere = torch.randn(2, 1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    elsewhere.requires_grad_()

    def blur(light: torch.Tensor) -> torch.Tensor:
        return expose(light, [exposure], around(96), margin)

    seen = blur(x)
    y = torch.randn(seen.shape, generator=torch.Generator().manual_seed(1))
    adjoint, = torch.autograd.grad(blur(elsewhere), elsewhere, y)
    left, right = (seen * y).double().sum().item(), (x * adjoint).double().sum().item()
    scale = (seen.norm() * y.norm()).item()
    assert abs(left - right) < 1e-5 * scale and adjoint.abs().sum() > 0


def test_a_batch_is_its_members():
    rng = np.random.default_rng(2)
    exposures = [STREET.draw(rng, 200, 300, moments=20) for _ in range(3)] + [PRESETS['mild'].draw(rng, 200, 300, moments=20)]
    light = torch.cat([photo()] * 4)
    origins = [(-100.0, -60.5), (-48, -48), (10, 0), (-150, -100)]
    together = expose(light, exposures, origins, 16)
    for i in range(4):
        alone = expose(light[i:i + 1], exposures[i:i + 1], origins[i:i + 1], 16)
        torch.testing.assert_close(together[i:i + 1], alone, atol=2e-6, rtol=0)
        stored = develop(alone, exposures[i:i + 1], torch.zeros_like(alone))
        assert (develop(together, exposures, torch.zeros_like(together))[i] - stored[0]).abs().mean() < 1e-3


def test_reach_covers_all_that_is_seen():
    """Beyond the margin nothing matters: noise put there changes nothing."""
    exposure = STREET.draw(np.random.default_rng(4), 400, 400)
    reach = exposure.reach(-100, 20, -60, 60) + 2
    side = 41 + 2 * reach
    wide = torch.rand(1, 3, side + 40, side + 40)
    origin = (-100 - reach, 20 - reach)
    narrow = expose(wide[..., 20:-20, 20:-20], [exposure], [origin], reach)
    widely = expose(wide, [exposure], [(origin[0] - 20, origin[1] - 20)], reach + 20)
    torch.testing.assert_close(narrow, widely, atol=1e-5, rtol=0)


def test_motion_is_drawn_as_asked():
    rng = np.random.default_rng(0)
    centred = CameraBlur(lines=None, length=(30, 30), paths={'straight': 1}, roll=(0, 0), tilt=(0, 0))
    path = centred.draw(rng, 300, 400).motion[:, :2, 2]
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).sum() == pytest.approx(30, rel=0.02)
    assert np.abs(path.mean(0)).max() < 1e-9
    chord = np.linalg.norm(path[-1] - path[0])
    assert chord > 29  # straight
    taller = dataclasses.replace(centred, lines=720).draw(rng, 1440, 2000).motion[:, :2, 2]
    assert np.linalg.norm(np.diff(taller, axis=0), axis=1).sum() == pytest.approx(60, rel=0.02)
    rolled = CameraBlur(lines=None, length=(0, 0), roll=(10, 10), tilt=(0, 0)).draw(rng, 300, 400)
    corner = np.array([200, 150, 1.0])
    swept = np.linalg.norm(np.diff((rolled.motion @ corner)[:, :2], axis=0), axis=1).sum()
    assert 0 < swept <= 10.01


def test_noise_is_as_large_as_asked():
    light = torch.full((1, 3, 64, 64), 0.25)
    noisy = Exposure(shifts(np.zeros((1, 2))), shot_noise=4e-4, read_noise=5e-3)
    noise = torch.randn(light.shape, generator=torch.Generator().manual_seed(0))
    measured = srgb_to_linear_tensor(develop(light, [noisy], noise)).std()
    assert measured == pytest.approx((4e-4 * 0.25 + 25e-6)**0.5, rel=0.03)


@pytest.mark.parametrize('quality', [40, 75, 95])
def test_jpeg_is_what_an_encoder_makes(quality):
    pixels = photos.chelsea()[:150, :203]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'JPEG', quality=quality, subsampling='4:2:0')
    encoded = np.asarray(Image.open(buffer), float)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    ours = jpeg_artefacts(image, quality)[0].permute(1, 2, 0).numpy() * 255
    artefacts, error = np.abs(encoded - pixels).mean(), np.abs(ours - encoded).mean()
    assert error < 0.7 and error < max(0.3 * artefacts, 0.65)  # in grey levels; roundings differ


def test_tensor_curve_is_the_arrays():
    light = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(linear_to_srgb_tensor(torch.from_numpy(light)), linear_to_srgb(light), atol=1e-6)
    torch.testing.assert_close(srgb_to_linear_tensor(linear_to_srgb_tensor(torch.from_numpy(light))), torch.from_numpy(light))


@pytest.mark.parametrize('options, fragments', [
    ('stret', ("'stret'", 'street')),
    ({'preset': 'mild', 'lenght': [0, 4]}, ("'lenght'", 'length')),
    ({'length': [20, 10]}, ('length', 'lowest, highest')),
    ({'length': 20}, ('length', 'lowest, highest')),
    ({'preset': 'mild', 'object_length': [3, 4]}, ('object_length', 'objects')),
    ({'jpeg': None, 'jpeg_share': 0.5}, ('jpeg_share', 'jpeg')),
    ({'jpeg_share': 2}, ('jpeg_share', 'between 0 and 1')),
    ({'paths': {'wild': 1}}, ('paths', 'straight')),
    ({'paths': {'curved': 0}}, ('paths', )),
    ({'lines': 0}, ('lines', )),
])
def test_settings_that_cannot_be_are_refused(options, fragments):
    with pytest.raises(ValueError) as error:
        CameraBlur.from_options(options)
    assert all(fragment in str(error.value) for fragment in fragments)
