"""How well weights deblur photos that they never saw, by blur of several origins; one table in Markdown.

    python scripts/measure_bundled.py --photos datasets/BSDS500/test --weights small maxim-gopro

Rows: 31x31 kernels of another library's generator (deepinv's MotionBlurGenerator; pip install deepinv), the old mild shake, the
presets camera and street, and the sharp photos themselves. The central pixels of each photo are scored: PSNR and ST-LPIPS of
the blurred input, of the initial prediction, of each operating point, and of the mean of 8 samples; and the grain, the local
contrast on flat areas over the sharp photo's.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.train_bundled import grain, psnr  # noqa: E402
from stochastic_refine.archs.sampling import SamplingNetwork  # noqa: E402
from stochastic_refine.blur import blur_valid  # noqa: E402
from stochastic_refine.data.synthetic_blur_dataset import SyntheticBlurDataset, find_images, read_rgb  # noqa: E402
from stochastic_refine.errors import InputError  # noqa: E402
from stochastic_refine.inference.deblurrer import Deblurrer  # noqa: E402
from stochastic_refine.inference.restorer import Restorer  # noqa: E402
from stochastic_refine.inference.sharpness import blur_weight  # noqa: E402
from stochastic_refine.metrics.stlpips import calculate_stlpips  # noqa: E402


@dataclass
class Scores:
    psnr: float
    stlpips: float
    grain: float


def stored(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


def bgr(image: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray((image * 255).round().byte().permute(1, 2, 0).numpy()[..., ::-1])


def scores(image: Tensor, sharp: Tensor) -> Scores:
    image = stored(image.cpu())
    return Scores(psnr(image[None], sharp[None]), calculate_stlpips(bgr(image), bgr(sharp), crop_border=0),
                  grain(image[None], sharp[None]))


def foreign_pairs(photos: list[Path], side: int) -> list[tuple[Tensor, Tensor]]:
    """(blurred, sharp) by deepinv's motion kernels, on stored values, without noise."""
    from deepinv.physics.generator import MotionBlurGenerator
    generator = MotionBlurGenerator((31, 31), rng=torch.Generator().manual_seed(0))
    pairs = []
    for path in photos:
        kernel = generator.step(1)['filter'][0, 0].numpy()
        photo = read_rgb(path).astype(np.float32) / 255
        top, left = ((length - side - 30) // 2 for length in photo.shape[:2])
        window = photo[top:top + side + 30, left:left + side + 30]
        blurred = blur_valid(np.ascontiguousarray(window), kernel)
        pairs.append(tuple(torch.from_numpy(np.ascontiguousarray(each.transpose(2, 0, 1))) for each in (
            np.clip(np.rint(blurred * 255), 0, 255) / 255, window[15:-15, 15:-15])))
    return [(blurred.float(), sharp.float()) for blurred, sharp in pairs]


def synthetic_pairs(folder: Path, indices: list[int], side: int, **blur: object) -> list[tuple[Tensor, Tensor]]:
    dataset = SyntheticBlurDataset({'name': 'measured', 'phase': 'val', 'dataroot_gt': str(folder), 'gt_size': side, **blur})
    return [(item['lq'], item['gt']) for item in (dataset[i] for i in indices)]


def measured(deblurrer: Deblurrer, pairs: list[tuple[Tensor, Tensor]], name: str,
             most_calls: int) -> dict[str, list[Scores]]:
    restorer = Restorer(deblurrer.net, deblurrer.precision)
    found: dict[str, list[Scores]] = {}

    def note(row: str, image: Tensor, sharp: Tensor) -> None:
        found.setdefault(row, []).append(scores(image, sharp))

    for blurred, sharp in tqdm(pairs, desc=name, leave=False):
        note('blurred', blurred, sharp)
        samples = isinstance(deblurrer.net, SamplingNetwork)
        points = deblurrer.points if samples else {'restored': deblurrer.operating_point()}
        initial = restorer.predict(blurred)
        if initial is not None:
            note('initial', initial, sharp)
        for key, point in points.items():
            if samples and point.calls * point.num_samples > most_calls:
                continue
            note(key, restorer.restore(blurred, point, initial=initial).image, sharp)
        if initial is not None and name != 'sharp':
            cheapest = min(points.values(), key=lambda point: (point.average, point.calls))
            mean = replace(cheapest, num_samples=8, average=True)
            note('mean of 8', restorer.restore(blurred, mean, initial=initial).image, sharp)
        if name == 'sharp':
            cheapest = min(points.values(), key=lambda point: point.calls)
            image = restorer.restore(blurred, cheapest, initial=initial).image.cpu()
            note('kept sharp', blurred + blur_weight(blurred) * (image - blurred), sharp)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, required=True, help='folder of sharp photos that no training saw')
    parser.add_argument('--weights', nargs='+', default=['small'])
    parser.add_argument('--max-images', type=int, default=24, help='spread evenly (default: 24)')
    parser.add_argument('--side', type=int, default=256, help='of the central pixels scored (default: 256)')
    parser.add_argument('--blurs', default='foreign,mild,camera,street,sharp', help='(default: all)')
    parser.add_argument('--most-calls', type=int, default=20, help='leave slower points out (default: 20)')
    parser.add_argument('--precision', default='auto')
    args = parser.parse_args()
    cv2.setNumThreads(0)
    try:
        paths = find_images(args.photos)
        indices = [round(i * (len(paths) - 1) / max(args.max_images - 1, 1)) for i in range(min(args.max_images, len(paths)))]
        chosen = [paths[i] for i in indices]
        makers = {
            'foreign': lambda: foreign_pairs(chosen, args.side),
            'mild': lambda: synthetic_pairs(args.photos, indices, args.side, trajectory_length=[3, 10], noise_sigma=[0, 1]),
            'camera': lambda: synthetic_pairs(args.photos, indices, args.side, blur='camera'),
            'street': lambda: synthetic_pairs(args.photos, indices, args.side, blur='street'),
            'sharp': lambda: synthetic_pairs(args.photos, indices, args.side, trajectory_length=[0, 0], noise_sigma=[0, 0]),
        }
        print('| weights | blur | image | PSNR | over blurred | ST-LPIPS | grain |\n|---|---|---|---|---|---|---|')
        for weights in args.weights:
            deblurrer = Deblurrer.from_pretrained(weights, precision=args.precision)
            for blur in args.blurs.split(','):
                try:
                    pairs = makers[blur]()
                except ImportError:
                    print(f'| {weights} | {blur} | deepinv is not installed | | | | |', flush=True)
                    continue
                rows = measured(deblurrer, pairs, blur, args.most_calls)
                base = fmean(score.psnr for score in rows['blurred'])
                for row, values in rows.items():
                    decibels = fmean(score.psnr for score in values)
                    print(f'| {weights} | {blur} | {row} | {decibels:.2f} | {decibels - base:+.2f} | '
                          f'{fmean(score.stlpips for score in values):.4f} | {fmean(score.grain for score in values):.2f} |',
                          flush=True)
    except InputError as error:
        print(f'Error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
