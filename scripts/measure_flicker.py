"""Does restoring a video frame by frame flicker? One table in Markdown.

    python scripts/measure_flicker.py --photos datasets/photos --points default fast vivid --steps 0 3

Each clip slides a crop over a photo by whole pixels, so that the frames, shifted back, show the same scene: what still changes
there is flicker. Per row: mean absolute change between neighbouring frames aligned so, in grey values of 255, and PSNR to the
sharp photo, of the input (blurred, with fresh sensor noise in each frame) and of what restoring makes of it with one seed for
all and with a seed for each. The moving means are over a frame and its two neighbours, aligned by the known motion, as only a
perfect optical flow would, and as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from stochastic_refine.data.synthetic_blur_dataset import read_rgb  # noqa: E402
from stochastic_refine.inference.deblurrer import Deblurrer  # noqa: E402
from stochastic_refine.inference.photos import find_photos  # noqa: E402

Frames = list[NDArray[np.float32]]


def slide(photo: NDArray[np.float32], count: int, side: int, step: int) -> Frames:
    """Crops (side, side, 3) of a photo, each so many pixels further to the right."""
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side - step * (count - 1)) // 2
    if min(top, left) < 0:
        raise SystemExit(f'A photo of {photo.shape[1]}x{photo.shape[0]} is too small for {count} frames of {side} pixels.')
    return [np.ascontiguousarray(photo[top:top + side, left + i * step:left + i * step + side]) for i in range(count)]


def aligned(first: NDArray[np.float32], second: NDArray[np.float32], step: int, margin: int = 16) -> tuple[NDArray, NDArray]:
    """What two neighbouring frames both show, without the margins, where networks see less."""
    return first[margin:-margin, margin + step:-margin], second[margin:-margin, margin:-margin - step]


def change(frames: Frames, step: int) -> float:
    """Mean absolute change between aligned neighbours, in grey values."""
    return 255 * fmean(float(np.abs(np.subtract(*aligned(a, b, step))).mean()) for a, b in zip(frames, frames[1:]))


def moving_mean(frames: Frames, step: int) -> Frames:
    """Each frame averaged with its aligned neighbours; at the sides, where a neighbour shows nothing, the frame itself."""
    result = []
    for i, frame in enumerate(frames):
        total, number = frame.copy(), np.ones(frame.shape[:2] + (1, ), np.float32)
        right = frame.shape[1] - step
        if i:
            total[:, :right] += frames[i - 1][:, step:]
            number[:, :right] += 1
        if i + 1 < len(frames):
            total[:, step:] += frames[i + 1][:, :right]
            number[:, step:] += 1
        result.append(total / number)
    return result


def psnr(frames: Frames, sharp: Frames) -> float:
    return fmean(float(-10 * np.log10(np.square(a - b).mean())) for a, b in zip(frames, sharp))


def measure(paths: Sequence[Path], deblurrer: Deblurrer, point: str, count: int, side: int, step: int,
            noise: float) -> dict[str, tuple[float, float]]:
    """Per row the change and the PSNR, means over the photos."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for number, path in enumerate(tqdm(paths, desc=point)):
        photo = read_rgb(path).astype(np.float32) / 255
        blurred = cv2.blur(photo, (7, 1))  # straight motion of 7 pixels
        sharp, rng = slide(photo, count, side, step), np.random.default_rng(number)
        given = [np.clip(frame + noise / 255 * rng.standard_normal(frame.shape, np.float32), 0, 1)
                 for frame in slide(blurred, count, side, step)]
        fixed = [deblurrer(frame, point=point, seed=0, keep_samples=False) for frame in given]
        fresh = [deblurrer(frame, point=point, seed=1000 * (i + 1), keep_samples=False) for i, frame in enumerate(given)]
        clips = {'input': given, 'one seed': [result.image for result in fixed],
                 'fresh seeds': [result.image for result in fresh],
                 'one seed, mean of three aligned': moving_mean([result.image for result in fixed], step)}
        if step:
            clips['one seed, mean of three as they are'] = moving_mean(clips['one seed'], 0)
        if fixed[0].initial is not None:
            clips['initial prediction'] = [result.initial for result in fixed if result.initial is not None]
        for name, frames in clips.items():
            rows.setdefault(name, []).append((change(frames, step), psnr(frames, sharp)))
    return {name: (fmean(a for a, _ in pairs), fmean(b for _, b in pairs)) for name, pairs in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', type=Path, required=True, help='folder of sharp photos')
    parser.add_argument('--max-photos', type=int, default=4)
    parser.add_argument('--weights', default='small')
    parser.add_argument('--points', nargs='+', default=['vivid'])
    parser.add_argument('--frames', type=int, default=6)
    parser.add_argument('--side', type=int, default=128)
    parser.add_argument('--steps', type=int, nargs='+', default=[0, 3], help='pixels from frame to frame, a clip for each')
    parser.add_argument('--noise', type=float, default=1.0, help="standard deviation of the input's own noise, in grey values")
    args = parser.parse_args()
    deblurrer, paths = Deblurrer.from_pretrained(args.weights), find_photos([str(args.photos)])[:args.max_photos]
    print('| point | pixels a frame | | change, of 255 | PSNR |\n|:--|--:|:--|--:|--:|')
    for point in args.points:
        for step in args.steps:
            rows = measure(paths, deblurrer, point, args.frames, args.side, step, args.noise)
            for name, (flicker, decibels) in rows.items():
                print(f'| `{point}` | {step} | {name} | {flicker:.2f} | {decibels:.2f} |', flush=True)


if __name__ == '__main__':
    main()
