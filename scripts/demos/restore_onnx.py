"""Restore a photo with an ONNX file of ours, by onnxruntime and numpy alone (Pillow reads and writes the photo).

    stochastic-refine export small --point fast --part restore -o small.onnx
    python scripts/demos/restore_onnx.py small.onnx photo.jpg sharp.png [SEED]
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image


def torch_normal(random: np.random.RandomState, count: int) -> np.ndarray:
    """The next ``torch.empty(count).normal_(generator=g)``: Box-Muller in blocks of 16, on the same Mersenne twister."""

    def blocks(n: int) -> np.ndarray:
        uniform = (random.randint(2**32, size=n, dtype=np.uint32) & (2**24 - 1)).astype(np.float32) * np.float32(2**-24)
        first, second = np.split(uniform[:n // 16 * 16].reshape(-1, 16), 2, axis=1)
        radius, angle = np.sqrt(-2 * np.log(1 - first)), np.float32(2 * np.pi) * second
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()

    normal = blocks(count)
    return normal if count % 16 == 0 else np.concatenate([normal[:count - 16], blocks(16)])  # the last block is drawn anew


def restore(session: onnxruntime.InferenceSession, image: np.ndarray, seed: int | None = None) -> np.ndarray:
    """Restore (H, W, 3) in [0, 1]: one sample of the seed, or the mean of several where the file's operating point says so."""
    told = session.get_modelmeta().custom_metadata_map
    height, width = image.shape[:2]
    if min(height, width) < int(told['least_side']):
        raise SystemExit(f"The photo is {width}x{height}; this file takes sides from {told['least_side']} pixels.")
    lq = image.transpose(2, 0, 1)[None].astype(np.float32)
    if 'draws' not in told or told['part'] != 'restore':  # a deterministic network's, or the predictor
        return session.run(None, {'lq': lq})[0][0].transpose(1, 2, 0)
    seed = int(told['seed']) if seed is None else seed
    results = []
    for i in range(int(told['samples']) if told['average'] == 'true' else 1):
        random = np.random.RandomState((seed + i) % 2**32)
        draws = [torch_normal(random, lq.size).reshape(lq.shape) for _ in range(int(told['draws']))]
        results.append(session.run(None, {'lq': lq, 'noise': np.stack(draws)})[0][0])
    return np.mean(results, axis=0).transpose(1, 2, 0)


if __name__ == '__main__':
    model, source, target, *seeds = sys.argv[1:]
    photo = np.asarray(Image.open(source).convert('RGB'), np.float32) / 255
    result = restore(onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider']), photo, *map(int, seeds))
    Image.fromarray((result.clip(0, 1) * 255).round().astype(np.uint8)).save(target)
