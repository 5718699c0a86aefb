"""Which refiner learns most from equal training: what it predicts, how much noise it starts with, its loss, what it sees.

    python scripts/compare_refiners.py --photos FOLDER [FOLDER ...] --predictor experiments/bundled/predictor.safetensors

Every variant is the same network, trained from the same first weights on the same crops in the same order, over the same frozen
predictor; so equal iterations are equal work. Scored on photos that are held out: sample against initial prediction in PSNR and
ST-LPIPS, and the grain on flat areas over the sharp photo's; one table in Markdown, a row as soon as it is there. What the file
--output holds is not trained again. ``shortcut`` also learns steps of half and of the whole path from two of its own half as
long (Frans et al., ICLR 2025), on a quarter of each batch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts import train_bundled as bundled  # noqa: E402
from scripts.measure_bundled import bgr, stored  # noqa: E402
from stochastic_refine.diffusion import (  # noqa: E402
    FlowPath,
    FlowSchedule,
    NoiseSchedule,
    SampleNoise,
    conditioning,
    predict_refine_target,
    refine,
    residual,
    to_signed,
)
from stochastic_refine.losses.flow_loss import FlowLoss  # noqa: E402
from stochastic_refine.metrics.stlpips import calculate_stlpips  # noqa: E402

SCALE = bundled.RESIDUAL_SCALE
#: Added to the time that the network sees, for steps of these lengths; 0 is the flow itself.
SHORTCUTS = {0.0: 0.0, 0.5: 2.0, 1.0: 4.0}
HEAD = '| refiner | calls | mild: PSNR, ST-LPIPS | medium: PSNR, ST-LPIPS | grain |\n|---|---|---|---|---|\n'


@dataclass(frozen=True)
class Variant:
    """What is changed of a flow that predicts the residual."""

    start_noise: float = 0.02
    predicts: str = 'residual'  # or velocity, or noise: the paper's diffusion
    norm: str = 'l2'
    weighted: bool = True
    condition: str = 'lq+initial'
    shortcut: bool = False
    calls: int | None = None  # for which alone it is trained

    @property
    def channels(self) -> int:
        return {'none': 3, 'lq': 6, 'lq+initial': 9}[self.condition]


VARIANTS = {
    's 0.02': Variant(), 's 0.005': Variant(start_noise=0.005), 's 0.01': Variant(start_noise=0.01),
    's 0.05': Variant(start_noise=0.05), 'without weight': Variant(weighted=False), 'absolute error': Variant(norm='l1'),
    'velocity predicted': Variant(predicts='velocity'), 'condition lq': Variant(condition='lq'),
    'condition none': Variant(condition='none'), 'shortcut': Variant(shortcut=True), 'for two calls': Variant(calls=2),
    's 0.01 for two calls': Variant(start_noise=0.01, calls=2),
    'noise predicted': Variant(predicts='noise'),
}


class Refiner:
    """A variant's network, its loss and its samples."""

    def __init__(self, variant: Variant, seed: int) -> None:
        torch.manual_seed(seed)
        self.variant = variant
        self.net = bundled.channels_last(bundled.build({**bundled.REFINER, 'in_channels': variant.channels}))
        self.flow = FlowPath(variant.start_noise, SCALE, variant.calls)
        self.criterion = FlowLoss(norm=variant.norm, weighted=variant.weighted)
        self.training = NoiseSchedule.training()

    def call(self, net: nn.Module, z: Tensor, lq: Tensor, initial: Tensor, level: Tensor) -> Tensor:
        with bundled.autocast(z.device):
            if self.variant.condition == 'none':
                return z + net(to_signed(initial) + z / SCALE, level).float()
            seen = conditioning(lq, initial if self.variant.condition == 'lq+initial' else None)
            return net(torch.cat([z, seen], 1), level).float()

    def residual_of(self, net: nn.Module, z: Tensor, t: Tensor, lq: Tensor, initial: Tensor, length: float = 0.0) -> Tensor:
        """The residual at the end of the path, by what is predicted in the state at t for steps of a length."""
        predicted = self.call(net, z, lq, initial, t + SHORTCUTS[length])
        if self.variant.predicts == 'velocity':
            return z + (1 - t)[:, None, None, None] * predicted
        return predicted

    def loss(self, lq: Tensor, gt: Tensor, initial: Tensor) -> Tensor:
        if self.variant.predicts == 'noise':
            r_t, level, noise = predict_refine_target(gt, initial, self.training, SCALE)
            return (self.call(self.net, r_t, lq, initial, level) - noise).abs().mean()
        r = residual(gt, initial, SCALE)
        z, t = self.flow.draw(r)
        if self.variant.predicts == 'velocity':
            rest = (1 - t).clamp(min=1e-3)[:, None, None, None]
            return (self.residual_of(self.net, z, t, lq, initial) - r).div(rest).square().mean()
        loss = self.criterion(self.residual_of(self.net, z, t, lq, initial), r, self.flow.weight(t))
        return loss + self.consistency(lq, initial, r) if self.variant.shortcut else loss

    def consistency(self, lq: Tensor, initial: Tensor, r: Tensor) -> Tensor:
        """Steps of 1 and 1/2 against two half as long, on a quarter of the batch each."""
        count, total = len(r) // 4, torch.zeros(())
        lq, initial, r = lq[:count], initial[:count], r[:count]
        for length, shorter in ((1.0, 0.5), (0.5, 0.0)):
            start = torch.zeros(count) if length == 1 else torch.randint(2, (count, )) / 2
            z = self.flow.state(self.flow.start(torch.randn_like(r)), r, start[:, None, None, None])
            with torch.no_grad():
                ends, state, t = [], z, start
                for _ in range(2):
                    end = self.residual_of(self.net, state, t, lq, initial, shorter)
                    velocity = (end - state) / (1 - t)[:, None, None, None]
                    state, t = state + length / 2 * velocity, t + length / 2
                    ends.append(velocity)
                aim = z + (1 - start)[:, None, None, None] * (ends[0] + ends[1]) / 2
            found = self.residual_of(self.net, z, start, lq, initial, length)
            total = total + self.criterion(found, aim, self.flow.weight(start)) / 4
        return total

    @torch.no_grad()
    def sample(self, net: nn.Module, lq: Tensor, initial: Tensor, calls: int) -> Tensor:
        noise = SampleNoise(range(len(lq)), lq.shape[1:], lq.device)
        if self.variant.predicts == 'noise':
            schedule = NoiseSchedule.linear(calls, final_variance=0.5)
            return refine(lambda z, level: self.call(net, z, lq, initial, torch.full((len(z), ), level)), initial, schedule,
                          noise, 'ddim', residual_scale=SCALE)
        length = 1 / calls if self.variant.shortcut and 1 / calls in SHORTCUTS else 0.0
        return refine(lambda z, t: self.residual_of(net, z, torch.full((len(z), ), t), lq, initial, length), initial,
                      FlowSchedule.even(calls), noise, 'flow_euler', residual_scale=SCALE, flow=self.flow)


def pool_of(args: argparse.Namespace, paths: list[Path], predict: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """(blurred, sharp, initial) crops, uint8, the latter with the prediction's overshoot clipped."""
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    crops = bundled.Crops([bundled.read_photo(path) for path in paths], args.crop, torch.device('cpu'), rng)
    kept: list[list[Tensor]] = [[], [], []]
    for step in tqdm(range(args.crops // 16), desc='Crops'):
        lq, gt = crops(16, bundled.curriculum(step, 0, 1))
        for store, image in zip(kept, (lq, gt, predict(lq))):
            store.append((image.clamp(0, 1) * 255).round().byte())
    return tuple(torch.cat(store) for store in kept)


def train(refiner: Refiner, pool: tuple[Tensor, ...], args: argparse.Namespace, name: str) -> nn.Module:
    """The averaged network after ``args.iterations``."""
    optimizer = torch.optim.AdamW(refiner.net.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=0.0)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.iterations, pct_start=0.05)
    average = torch.optim.swa_utils.AveragedModel(refiner.net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995))
    order = torch.from_numpy(np.random.default_rng(args.seed + 1).permuted(
        np.tile(np.arange(len(pool[0])), (-(-16 * args.iterations // len(pool[0])), 1)), axis=1).reshape(-1))
    for step in tqdm(range(args.iterations), desc=name, leave=False):
        chosen = order[16 * step:16 * (step + 1)]
        batch = [(image[chosen].float() / 255).contiguous(memory_format=torch.channels_last) for image in pool]
        loss = refiner.loss(*batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(refiner.net.parameters(), 0.5)
        optimizer.step()
        rates.step()
        average.update_parameters(refiner.net)
    return average.module.eval()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', nargs='+', type=Path, required=True, help='folders of sharp photos')
    parser.add_argument('--predictor', type=Path, required=True, help='predictor.safetensors of scripts/train_bundled.py')
    parser.add_argument('--variants', default=','.join(VARIANTS), help='(default: all)')
    parser.add_argument('--iterations', type=int, default=1500, help='of 16 crops each (default: 1500)')
    parser.add_argument('--crops', type=int, default=12000, help='different ones (default: 12000)')
    parser.add_argument('--crop', type=int, default=64, help='side in pixels (default: 64)')
    parser.add_argument('--lr', type=float, default=6e-4, help='highest learning rate (default: 6e-4)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--output', type=Path, default=Path('results/refiners.md'), help='(default: results/refiners.md)')
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    there = args.output.read_text() if args.output.is_file() else ''
    names = [name for name in args.variants.split(',') if f'| {name} |' not in there]
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or not args.predictor.is_file():
        print(f'Error: --variants has no {unknown[0]}; choose from {", ".join(VARIANTS)}.' if unknown else
              f'Error: --predictor {args.predictor} does not exist; train it by scripts/train_bundled.py.', file=sys.stderr)
        return 2
    from safetensors.torch import load_file
    predictor = bundled.channels_last(bundled.build(bundled.PREDICTOR)).eval()
    predictor.load_state_dict({key: value.float() for key, value in load_file(args.predictor).items()})
    try:
        training, held = bundled.find_photos(args.photos)
        pool = pool_of(args, training, lambda lq: bundled.run(predictor, lq))
        pairs = bundled.validation_pairs([bundled.read_photo(path) for path in held[::2]], torch.device('cpu'))
    except bundled.Stop as stop:
        print(f'Error: {stop}', file=sys.stderr)
        return 2
    initials = {blur: bundled.run(predictor, pairs[blur][0]) for blur in ('mild', 'medium')}
    if not there:
        args.output.write_text(HEAD + row('(initial prediction)', 0, initials, pairs))
    for name in names:
        refiner = Refiner(VARIANTS[name], args.seed)
        net = train(refiner, pool, args, name)
        counts = (5, 10) if VARIANTS[name].predicts == 'noise' else (1, 2) if VARIANTS[name].calls else (1, 2, 4)
        rows = [row(name, calls, {blur: refiner.sample(net, pairs[blur][0], initials[blur], calls) for blur in initials}, pairs)
                for calls in counts]
        with args.output.open('a') as file:
            file.write(''.join(rows))
        print(''.join(rows), end='', flush=True)
    return 0


def row(name: str, calls: int, images: dict[str, Tensor], pairs: dict[str, tuple[Tensor, Tensor]]) -> str:
    """A line of the table."""
    cells = []
    for blur, image in images.items():
        sharp = pairs[blur][1]
        perceptual = fmean(calculate_stlpips(bgr(stored(ours)), bgr(stored(true)), crop_border=0)
                           for ours, true in zip(image, sharp))
        cells.append(f'{bundled.psnr(image, sharp):.2f}, {perceptual:.4f}')
    grain = bundled.grain(images['medium'], pairs['medium'][1])
    return f"| {name} | {calls or '-'} | {' | '.join(cells)} | {grain:.2f} |\n"


if __name__ == '__main__':
    sys.exit(main())
