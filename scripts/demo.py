"""Blur photos that ship with scikit-image, restore them with the bundled weights, and draw a picture with scores.

python scripts/demo.py [--out demo] [--samples 8]

Writes OUT/photos (sharp, also the training photos of options/train_demo.yml), OUT/blurred and OUT/restored.png.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import data
from tqdm import tqdm

from stochastic_refine import Deblurrer
from stochastic_refine.data.synthetic_blur_dataset import SyntheticBlurDataset
from stochastic_refine.inference.folder import STD_WHITE, std_picture

#: Photo, and the top left corner of the 256x256 part that is shown.
PHOTOS = {'astronaut': (30, 110), 'coffee': (60, 200), 'chelsea': (20, 90), 'rocket': (80, 180)}
SIZE = 256


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('demo'))
    parser.add_argument('--samples', type=int, default=8)
    args = parser.parse_args()

    (args.out / 'photos').mkdir(parents=True, exist_ok=True)
    (args.out / 'blurred').mkdir(exist_ok=True)
    for name, (top, left) in PHOTOS.items():
        photo = getattr(data, name)()[top:top + SIZE, left:left + SIZE, :3]
        Image.fromarray(photo).save(args.out / 'photos' / f'{name}.png')
    blurred = SyntheticBlurDataset({
        'name': 'demo', 'phase': 'val', 'dataroot_gt': args.out / 'photos', 'seed': 1,
        'trajectory_length': [5, 9], 'noise_sigma': [0, 1]
    })

    deblurrer = Deblurrer.from_pretrained('small')
    rows, start = [], time.time()
    for i in tqdm(range(len(blurred)), desc='Restoring', unit='photo'):
        item = blurred[i]
        lq, gt = (item[key].permute(1, 2, 0).numpy() for key in ('lq', 'gt'))
        name = Path(item['gt_path']).stem
        Image.fromarray(np.uint8(np.rint(lq * 255))).save(args.out / 'blurred' / f'{name}.png')
        result = deblurrer(lq, samples=args.samples, average=True)
        rows.append({
            'blurred': lq, 'initial': result.initial, 'sample 1': result.samples[0], 'sample 2': result.samples[1],
            f'mean of {args.samples}': result.image, 'std': std_picture(result.std), 'sharp': gt
        })
    seconds = (time.time() - start) / len(rows)
    draw(rows).save(args.out / 'restored.png')
    print(f"{args.out / 'restored.png'}: {len(rows)} photos, {args.samples} samples each, {seconds:.1f} s per photo.")
    for column in rows[0]:
        if column not in ('std', 'sharp'):
            print(f"{column:12s} {np.mean([psnr(row[column], row['sharp']) for row in rows]):.2f} dB")


def psnr(image: NDArray[np.float32], sharp: NDArray[np.float32]) -> float:
    """PSNR of two 8-bit-rounded images in dB."""
    error = np.rint(np.clip(image, 0, 1) * 255) - np.rint(sharp * 255)
    return float(20 * np.log10(255) - 10 * np.log10(np.mean(error**2)))


def draw(rows: list[dict[str, NDArray[np.float32]]]) -> Image.Image:
    """One row per photo, one captioned column per picture."""
    caption, gap = 24, 4
    font = ImageFont.load_default(15)
    canvas = Image.new('RGB', (len(rows[0]) * (SIZE + gap), len(rows) * (SIZE + caption)), 'white')
    pen = ImageDraw.Draw(canvas)
    for y, row in enumerate(rows):
        for x, (name, picture) in enumerate(row.items()):
            left, top = x * (SIZE + gap), y * (SIZE + caption)
            score = f'0 to {STD_WHITE}' if name == 'std' else '' if name == 'sharp' else f"{psnr(picture, row['sharp']):.2f} dB"
            pen.text((left + 2, top + 3), f'{name}  {score}', fill='black', font=font)
            canvas.paste(Image.fromarray(np.uint8(np.rint(np.clip(picture, 0, 1) * 255))), (left, top + caption))
    return canvas


if __name__ == '__main__':
    main()
