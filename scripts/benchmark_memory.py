"""Peak memory of ``stochastic-refine restore`` against the photo's size, as a Markdown table.

Each figure is the high-water mark of a fresh process (VmHWM, so Linux only). A network keeps its activations for one tile, the
sampler its state for the whole photo: with a fixed tile the peak grows by the latter alone, told in MiB per megapixel and as a
multiple of the photo itself in float32 (12 bytes per pixel). The network is a tiny one with random weights unless --weights
names another; neither depth nor width changes what is kept per pixel.

    python scripts/benchmark_memory.py
    python scripts/benchmark_memory.py --weights small --megapixels 1 4
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.comparison.provenance import commit, machine
from stochastic_refine.inference.devices import process_device

UNET = {'type': 'RefineUNet', 'base_channels': 16, 'channel_mults': [1, 2], 'num_res_blocks': 1}
TINY = {'type': 'PredictRefineNet', 'predictor': UNET, 'denoiser': {**UNET, 'in_channels': 6, 'noise_conditioned': True}}
#: Runs the command line and prints the process's peak in KiB and the GPU's in bytes.
MEASURED = '''
import sys
from pathlib import Path
from stochastic_refine.cli import main
if main(sys.argv[1:]):
    sys.exit(1)
import torch
gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
print([line for line in Path('/proc/self/status').read_text().splitlines() if line.startswith('VmHWM')][0].split()[1], gpu)
'''


def write_tiny(path: Path) -> Path:
    """A checkpoint of the tiny network, random weights."""
    torch.manual_seed(0)
    save_safetensors(path, build_arch(TINY).state_dict(), {'network': TINY, 'operating_points': {}})
    return path


def write_square_photo(path: Path, megapixels: float) -> Path:
    """A photo of ``megapixels`` million pixels: one textured block, repeated."""
    side = round((megapixels * 1e6)**0.5)
    block = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    Image.fromarray(np.tile(block, (-(-side // 128), -(-side // 128), 1))[:side, :side]).save(path, quality=95)
    return path


def peak_mib(photo: Path, weights: str, tile: str, options: list[str]) -> tuple[float, float]:
    """Peak MiB of the process, and of the GPU (0 without), that restores ``photo``."""
    command = ['restore', str(photo), '-o', str(photo.with_name('restored.jpg')), '--overwrite', '-w', weights, '--tile', tile,
               *options]
    run = subprocess.run([sys.executable, '-c', MEASURED, *command], capture_output=True, text=True)
    if run.returncode:
        sys.exit(run.stderr)
    kib, gpu = run.stdout.split()[-2:]
    return int(kib) / 2**10, int(gpu) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--megapixels', type=float, nargs='+', default=[1, 4, 16, 64],
                        help='the first is what others are above')
    parser.add_argument('--tiles', nargs='+', default=['512', 'auto'], help='values of restore --tile (default: 512 auto)')
    parser.add_argument('--weights', help='name or checkpoint file instead of the tiny network')
    parser.add_argument('--options', default='--steps 2', help="further options of restore (default: '--steps 2')")
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, ... (default: auto)')
    args = parser.parse_args()
    device = process_device(args.device)
    options = [*args.options.split(), '--device', str(device)]

    rows = ['| --tile | megapixels | peak MiB | MiB per megapixel above the first | times the photo in float32 | GPU MiB |',
            '|:--|--:|--:|--:|--:|--:|']
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(args.tiles) * len(args.megapixels), unit='run') as bar:
        weights = args.weights or str(write_tiny(Path(folder) / 'tiny.safetensors'))
        first: dict[str, float] = {}
        for megapixels in args.megapixels:
            photo = write_square_photo(Path(folder) / 'photo.jpg', megapixels)
            for tile in args.tiles:
                peak, gpu = peak_mib(photo, weights, tile, options)
                growth = '– | –'
                if tile in first:
                    mib = (peak - first[tile]) / (megapixels - args.megapixels[0])
                    growth = f'{mib:.0f} | {mib * 2**20 / 12e6:.1f}'
                first.setdefault(tile, peak)
                rows.append(f"| {tile} | {megapixels:g} | {peak:.0f} | {growth} | {f'{gpu:.0f}' if gpu else '–'} |")
                bar.update()
    print('\n'.join(rows))
    print(f"\nWeights: {args.weights or 'tiny, random'}; {args.options}. Machine: {machine(device)}. Commit: {commit()}.")


if __name__ == '__main__':
    main()
