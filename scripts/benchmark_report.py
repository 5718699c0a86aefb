"""How fast the page of ``stochastic-refine report`` opens: with all images against a page with ten of them, in one run.

    python scripts/benchmark_report.py results/evaluate
    python scripts/benchmark_report.py --photos datasets/BSDS500/train   # 200 photos of 256x256 in six rows, made from these

Needs playwright and a Chromium on the PATH (or in the environment's CHROMIUM). Opens both pages in turn, with a cold cache
each, and prints the medians as a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from stochastic_refine.cli import main as stochastic_refine
from stochastic_refine.comparison.provenance import machine
from stochastic_refine.report.page import write_report

IMAGES, SYSTEMS, SIDE = 200, 4, 256


def make_run(photos: Path, folder: Path) -> Path:
    """An evaluation of blurred and noisy copies of photos: sharp, blurred and four systems."""
    rng = np.random.default_rng(0)
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in ('.jpg', '.png'))
    if not files:
        raise SystemExit(f'Error: {photos} holds no .jpg or .png photos; choose another folder.')
    for name in ('target', 'input', *(f'system {i}' for i in range(SYSTEMS))):
        (folder / name).mkdir()
    for number in range(IMAGES):
        sharp = cv2.imread(str(files[number % len(files)]))[:SIDE, :SIDE]
        noise = rng.normal(0, 4, sharp.shape)
        pictures = {'target': sharp, 'input': cv2.blur(sharp, (7, 7)),
                    **{f'system {i}': cv2.blur(sharp, (i + 2, i + 2)) + noise for i in range(SYSTEMS)}}
        for name, picture in pictures.items():
            cv2.imwrite(str(folder / name / f'{number:04d}.png'), np.clip(picture, 0, 255).astype(np.uint8))
    systems = [f'system {i}={folder / f"system {i}"}' for i in range(SYSTEMS)]
    if stochastic_refine(['evaluate', '--gt', str(folder / 'target'), '--lq', str(folder / 'input'), '--metrics', 'psnr,ssim',
                          '-o', str(folder / 'run'), *systems]):
        raise SystemExit(2)
    return folder / 'run'


def opening_times(browser: object, page: Path) -> tuple[float, float]:
    """Seconds from the address to the first pair of images on the screen, and to the end of reading."""
    context = browser.new_context(viewport={'width': 1200, 'height': 800})
    tab = context.new_page()
    start = time.perf_counter()
    tab.goto(page.as_uri(), wait_until='commit')
    tab.wait_for_selector('#canvas-b[data-shown]', state='attached', timeout=120_000)
    first = time.perf_counter() - start
    tab.wait_for_load_state('load', timeout=120_000)
    whole = time.perf_counter() - start
    context.close()
    return first, whole


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', type=Path, nargs='?', help='output folder of stochastic-refine evaluate')
    parser.add_argument('--photos', type=Path, help='instead: a folder of photos to make a run of 200 images from')
    parser.add_argument('--repetitions', type=int, default=5)
    args = parser.parse_args()
    if (args.run is None) == (args.photos is None):
        parser.error('give either a run or --photos')
    from playwright.sync_api import sync_playwright
    chromium = os.environ.get('CHROMIUM') or shutil.which('chromium') or shutil.which('google-chrome')
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        run = args.run or make_run(args.photos, Path(scratch))
        pages = {'ten images': Path(scratch) / 'ten.html', 'all images': Path(scratch) / 'all.html'}
        write_report([run], pages['ten images'], max_images=10)
        write_report([run], pages['all images'])
        browser = playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        times = {name: [] for name in pages}
        for _ in range(args.repetitions):
            for name, page in pages.items():
                times[name].append(opening_times(browser, page))
        browser.close()
        print(f'Machine: {machine(torch.device("cpu"))}\n\n| page | MB | first image (s) | all read (s) |\n|---|--:|--:|--:|')
        medians = {}
        for name, page in pages.items():
            medians[name] = [statistics.median(column) for column in zip(*times[name])]
            print(f'| {name} | {page.stat().st_size / 1e6:.1f} | {medians[name][0]:.2f} | {medians[name][1]:.2f} |')
        ratios = [large / small for large, small in zip(medians['all images'], medians['ten images'])]
        print(f'| ratio | | {ratios[0]:.2f} | {ratios[1]:.2f} |')
    return 0


if __name__ == '__main__':
    sys.exit(main())
