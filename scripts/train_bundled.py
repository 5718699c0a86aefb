"""Train the bundled weights: first the initial predictor, then the flow refiner over it, each within a budget of minutes.

    python scripts/train_bundled.py --photos FOLDER [FOLDER ...] --part predictor --minutes 60
    python scripts/train_bundled.py --photos FOLDER [FOLDER ...] --part refiner --minutes 60

Each call adds its minutes to what the folder --out holds; --go-on finishes a call that was stopped (Ctrl-C, a lost machine; at
most a minute is lost). The learning rate warms up and decays over the call's own minutes, whatever the machine's speed, so a
call that ends leaves finished weights: predictor.safetensors, and with the refiner the pair small.safetensors.

Photos are blurred on the fly by stochastic_refine.blur, on the training device. Needs torch, numpy, OpenCV, safetensors.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from stochastic_refine.archs.memory_format import channels_last  # noqa: E402
from stochastic_refine.archs.refine_unet_arch import RefineUNet  # noqa: E402
from stochastic_refine.blur import CameraBlur, Exposure, develop, expose, srgb_to_linear_tensor  # noqa: E402
from stochastic_refine.diffusion import FlowPath, FlowSchedule, conditioning, refine, residual  # noqa: E402

UNET = {'type': 'RefineUNet', 'base_channels': 32, 'num_res_blocks': 1, 'patch_size': 2}
PREDICTOR = {**UNET, 'global_skip': True}
REFINER = {**UNET, 'in_channels': 9, 'noise_conditioned': True}
START_NOISE, RESIDUAL_SCALE = 0.02, 8.0
FLOW_CALLS = 2  # trained for any time, it lets noise through in dark places
POINTS = {'vivid': {'sampler': 'flow_euler', 'steps': 2}, 'faithful': {'sampler': 'flow_euler', 'steps': 1},
          'mean': {'sampler': 'flow_euler', 'steps': 2, 'num_samples': 8, 'average': True}}
FRAME = (720, 1280)  # crops are treated as parts of such a frame: its far corners roll more than its middle
STORED_SHARE = 0.4  # of the crops are blurred as if stored values were light, and are almost free of noise
HELD_OUT = 16  # photos that score and never train
FEWEST_PHOTOS = 2 * HELD_OUT
SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


class Stop(Exception):
    """Ends the script with a sentence and exit code 2."""


# -------------------------------------------------------------------------------------------------------------------- data


def find_photos(folders: list[Path]) -> tuple[list[Path], list[Path]]:
    """(training photos, held-out photos), the latter spread evenly."""
    for folder in folders:
        if not folder.is_dir():
            raise Stop(f'--photos {folder} is no folder; give folders of sharp photos.')
    paths = sorted({path for folder in folders for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES})
    if len(paths) < FEWEST_PHOTOS:
        raise Stop(f'--photos: {len(paths)} photos in {", ".join(map(str, folders))} are too few to learn from and to hold '
                   f'{HELD_OUT} out; give at least {FEWEST_PHOTOS}, better some hundreds.')
    held = {round(i * (len(paths) - 1) / (HELD_OUT - 1)) for i in range(HELD_OUT)}
    return [path for i, path in enumerate(paths) if i not in held], [paths[i] for i in sorted(held)]


def read_photo(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise Stop(f'{path} cannot be read as a photo; remove it from the folder.')
    return image[..., ::-1]


class Crops:
    """Draws pairs of blurred and sharp crops, (B, 3, size, size) in [0, 1], on ``device``.

    Args:
        photos: (H, W, 3) uint8, RGB.
        size: Side of the crops.
        device: Where they are blurred.
        rng: Source of everything but the noise.
    """

    def __init__(self, photos: list[NDArray[np.uint8]], size: int, device: torch.device, rng: np.random.Generator) -> None:
        self.photos, self.size, self.device, self.rng = photos, size, device, rng
        self.weights = np.array([photo.shape[0] * photo.shape[1] for photo in photos], float)
        self.weights = np.minimum(self.weights, 4 * np.median(self.weights))  # a large photo is one scene all the same
        self.weights /= self.weights.sum()

    def __call__(self, batch: int, blur: CameraBlur) -> tuple[Tensor, Tensor]:
        # A batch's exposures have equally many moments; on a CPU each crop is its own batch, with no more than it needs.
        sizes = [batch] if self.device.type == 'cuda' else [1] * batch
        pairs = [self._group(count, blur) for count in sizes]
        return torch.cat([lq for lq, _ in pairs]), torch.cat([gt for _, gt in pairs])

    def _group(self, count: int, blur: CameraBlur) -> tuple[Tensor, Tensor]:
        rng, size = self.rng, self.size
        corners = [(rng.uniform(-FRAME[1] / 2, FRAME[1] / 2 - size), rng.uniform(-FRAME[0] / 2, FRAME[0] / 2 - size))
                   for _ in range(count)]
        exposures = [blur.draw(rng, *FRAME, moments=None if count == 1 else 40) for _ in range(count)]
        reach = max(exposure.reach(x, y, x + size - 1, y + size - 1) + math.ceil(exposure.defocus)
                    for exposure, (x, y) in zip(exposures, corners))
        windows = torch.from_numpy(np.stack([self._window(size + 2 * reach) for _ in range(count)]))
        stored = windows.to(self.device).permute(0, 3, 1, 2).float() / 255
        if rng.random() < STORED_SHARE:
            return self._on_stored_values(stored, exposures, corners, reach)
        light = srgb_to_linear_tensor(stored)
        gains = torch.from_numpy(rng.uniform(0.85, 1.15, (count, 3)) * rng.uniform(0.6, 1.1, (count, 1))).to(light)
        light = (light * gains[..., None, None]).clamp(0, 1)
        sharp = light[..., reach:reach + size, reach:reach + size]
        blurred = expose(light, exposures, [(x - reach, y - reach) for x, y in corners], reach)
        still = [replace(exposure, shot_noise=0.0, read_noise=0.0, jpeg=None) for exposure in exposures]
        return develop(blurred, exposures, torch.randn_like(blurred)), develop(sharp, still, torch.zeros_like(sharp))

    def _on_stored_values(self, stored: Tensor, exposures: list[Exposure], corners: list[tuple[float, float]],
                          reach: int) -> tuple[Tensor, Tensor]:
        """The same motion on stored values, with hardly any noise: what most kernels of others are used for."""
        exposures = [replace(exposure, highlight_gain=1.0, defocus=0.0) for exposure in exposures]
        blurred = expose(stored, exposures, [(x - reach, y - reach) for x, y in corners], reach)
        noise = self.rng.uniform(0, 1.5) / 255 * torch.randn_like(blurred) if self.rng.random() < 0.5 else 0.0
        sharp = stored[..., reach:reach + self.size, reach:reach + self.size]
        return ((blurred + noise).clamp(0, 1) * 255).round() / 255, sharp

    def _window(self, side: int) -> NDArray[np.uint8]:
        """A window of a photo: scaled down a little, turned, flipped, at times with lettering and shapes over it."""
        rng = self.rng
        photo = self.photos[rng.choice(len(self.photos), p=self.weights)]
        scale = 1.0 if rng.random() < 0.5 else rng.uniform(1.0, 1.5 if min(photo.shape[:2]) < 1000 else 3.0)
        cut = math.ceil(side * scale)
        if min(photo.shape[:2]) < cut:
            below, right = (max(cut - length, 0) for length in photo.shape[:2])
            photo = cv2.copyMakeBorder(photo, 0, below, 0, right, cv2.BORDER_REFLECT_101)
        top, left = (rng.integers(0, length - cut + 1) for length in photo.shape[:2])
        window = photo[top:top + cut, left:left + cut]
        if cut != side:
            window = cv2.resize(window, (side, side), interpolation=cv2.INTER_AREA)
        window = np.rot90(window, rng.integers(4))
        window = np.ascontiguousarray(window[:, ::-1] if rng.random() < 0.5 else window)
        return lettered(window, rng) if rng.random() < 0.25 else window


def lettered(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image with some words, lines and shapes drawn over it: edges that photos of landscapes lack."""
    side = image.shape[0]
    signs = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:!?&'
    for _ in range(rng.integers(1, 5)):
        colour = tuple(int(value) for value in (rng.integers(0, 256, 3) if rng.random() < 0.6 else [rng.choice([0, 255])] * 3))
        x, y, u, v = (int(value) for value in rng.integers(-side // 8, side, 4))
        kind = rng.integers(6)
        if kind < 3:
            word = ''.join(rng.choice(list(signs), rng.integers(2, 12)))
            size, width = float(rng.uniform(0.3, 2)), int(rng.integers(1, 4))
            cv2.putText(image, word, (x, y), int(rng.integers(0, 8)), size, colour, width, cv2.LINE_AA)
        elif kind == 3:
            cv2.line(image, (x, y), (u, v), colour, int(rng.integers(1, 4)), cv2.LINE_AA)
        elif kind == 4:
            filled = -1 if rng.random() < 0.4 else int(rng.integers(1, 4))
            cv2.rectangle(image, (x, y), (x + u // 3, y + v // 3), colour, filled, cv2.LINE_AA)
        else:
            radius = int(rng.integers(2, max(side // 5, 3)))
            cv2.circle(image, (x, y), radius, colour, -1 if rng.random() < 0.4 else 2, cv2.LINE_AA)
    return image


def curriculum(step: int, crops: int, over: int) -> CameraBlur:
    """The blur after so many crops: paths grow from 10 to 40 pixels at most, since long strokes make a net cautious first."""
    shortest, longest = 4.0, 10 + 30 * min(crops / over, 1.0)
    if step % 3 == 0:  # short strokes go on being a third: a net that sees few of them forgets them
        shortest, longest = 0.0, min(longest, 12)  # with too many that are nearly still, a net leaves all as it is
    return CameraBlur(length=(shortest, longest), roll=(0, longest / 5), tilt=(0, longest / 10), objects=(0, 1),
                      object_length=(0, longest / 2), defocus=(0, 1.0), highlights=(1, 4), lines=None)


def validation_pairs(photos: list[NDArray[np.uint8]], device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """Fixed pairs of the central 256x256 pixels of each photo: still, old mild shake, and two lengths of camera blur."""
    side, pairs = 256, {}
    cut = []
    for photo in photos:
        scale = max(1.0, 320 / min(photo.shape[:2]))
        scale = 700 / min(photo.shape[:2]) if min(photo.shape[:2]) > 1000 else scale
        if scale != 1:
            photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width = photo.shape[:2]
        cut.append(photo[(height - 320) // 2:(height - 320) // 2 + 320, (width - 320) // 2:(width - 320) // 2 + 320])
    light = srgb_to_linear_tensor(torch.from_numpy(np.stack(cut)).to(device).permute(0, 3, 1, 2).float() / 255)
    blurs = {
        'sharp': CameraBlur(length=(0, 0), roll=(0, 0), tilt=(0, 0), defocus=(0, 0), highlights=(1, 1), shot_noise=(0, 0),
                            read_noise=(0, 0), jpeg=None, lines=None),
        'mild': CameraBlur(length=(3, 10), paths={'curved': 1}, roll=(0, 0), tilt=(0, 0), defocus=(0, 0), highlights=(1, 1),
                           shot_noise=(0, 0), jpeg=None, lines=None),
        'medium': CameraBlur(length=(10, 20), lines=None),
        'long': CameraBlur(length=(20, 40), lines=None),
    }
    for number, (name, blur) in enumerate(blurs.items()):
        rng = np.random.default_rng([7, number])
        exposures = [blur.draw(rng, 320, 480, moments=48) for _ in photos]
        blurred = expose(light, exposures, [(-159.5, -159.5)] * len(photos), 32)
        generator = torch.Generator().manual_seed(number)
        noise = torch.randn(blurred.shape, generator=generator).to(device)
        sharp = light[..., 32:32 + side, 32:32 + side]
        still = [replace(exposure, shot_noise=0.0, read_noise=0.0, jpeg=None) for exposure in exposures]
        pairs[name] = develop(blurred, exposures, noise), develop(sharp, still, torch.zeros_like(sharp))
    return pairs


# ---------------------------------------------------------------------------------------------------------------- training


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over images, of [0, 1] images as stored in 8 bits; at most 60 each, which stands for an exact image."""
    squared = ((a.clamp(0, 1) * 255).round() / 255 - b).square().mean((1, 2, 3)).clamp(min=1e-6)
    return float(-10 * squared.log10().mean())


def frequency_loss(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute error of the Fourier coefficients (Cho et al., ICCV 2021, Eq. 4), in units of pixels."""
    return torch.view_as_real(torch.fft.rfft2(a - b, norm='ortho')).abs().mean()


class PredictorTask:
    """What is trained, by what loss, how it is scored: the initial predictor, by its gain in PSNR over the blurred input."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        self.net = build(PREDICTOR)
        if args.init:
            from stochastic_refine.archs.predict_refine_arch import PredictRefineNet
            from stochastic_refine.inference.weights import load_network
            source, _, _ = load_network(Path(args.init))
            source = source.predictor if isinstance(source, PredictRefineNet) else source
            self.net.load_state_dict(source.state_dict())

    def loss(self, net: nn.Module, lq: Tensor, gt: Tensor) -> Tensor:
        with autocast(lq.device):
            output = net(lq)
        output = output.float()
        return (output - gt).abs().mean() + frequency_loss(output, gt)

    def score(self, net: nn.Module, pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
        scores = {}
        for name, (lq, gt) in pairs.items():
            restored = torch.cat([run(net, part) for part in lq.split(4)])
            scores[name] = psnr(restored, gt) - (0 if name == 'sharp' else psnr(lq, gt))
        return scores

    def export(self, net: nn.Module, args: argparse.Namespace, card: dict[str, Any]) -> Path:
        path = args.out / 'predictor.safetensors'
        save(path, net, {'network': PREDICTOR, 'training': card})
        return path


class RefinerTask:
    """The flow refiner over the predictor in --out, which stays as it is; scored by PSNR against the initial prediction's,
    and by the grain of a sample on flat areas."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        path = args.out / 'predictor.safetensors'
        if not path.is_file():
            raise Stop(f'{path} does not exist; train --part predictor to its end first.')
        from safetensors.torch import load_file
        self.predictor = build(PREDICTOR)
        self.predictor.load_state_dict({key: value.float() for key, value in load_file(path).items()})
        self.predictor = channels_last(self.predictor.to(device)).eval().requires_grad_(False)
        self.net = build(REFINER)
        self.flow = FlowPath(START_NOISE, RESIDUAL_SCALE, FLOW_CALLS)

    def loss(self, net: nn.Module, lq: Tensor, gt: Tensor) -> Tensor:
        initial = run(self.predictor, lq)
        r = residual(gt, initial, RESIDUAL_SCALE)
        z_t, t = self.flow.draw(r)
        with autocast(lq.device):
            r_hat = net(torch.cat([z_t, conditioning(lq, initial)], 1), t)
        return ((r_hat.float() - r).square() * self.flow.weight(t)[:, None, None, None]).mean()

    @torch.no_grad()
    def score(self, net: nn.Module, pairs: dict[str, tuple[Tensor, Tensor]]) -> dict[str, float]:
        scores = {}
        for name, (lq, gt) in pairs.items():
            initial = torch.cat([run(self.predictor, part) for part in lq.split(4)])
            noise = torch.randn(lq.shape, generator=torch.Generator().manual_seed(0)).to(lq)
            for steps in (1, FLOW_CALLS):
                parts = [self._sample(net, *each, steps) for each in zip(lq.split(4), initial.split(4), noise.split(4))]
                scores[f'{name}_{steps}'] = psnr(torch.cat(parts), gt) - psnr(initial, gt)
                if name == 'medium':
                    scores[f'grain_{steps}'] = grain(torch.cat(parts), gt)
        return scores

    def _sample(self, net: nn.Module, lq: Tensor, initial: Tensor, noise: Tensor, steps: int) -> Tensor:
        def predict(z: Tensor, t: float) -> Tensor:
            with autocast(lq.device):
                return net(torch.cat([z, conditioning(lq, initial)], 1), torch.full((len(z), ), t, device=z.device)).float()

        return refine(predict, initial, FlowSchedule.even(steps), lambda: noise, 'flow_euler', residual_scale=RESIDUAL_SCALE,
                      flow=self.flow)

    def export(self, net: nn.Module, args: argparse.Namespace, card: dict[str, Any]) -> Path:
        path = args.out / 'small.safetensors'
        pair = nn.ModuleDict({'predictor': self.predictor, 'denoiser': net})
        network = {'type': 'PredictRefineNet', 'predictor': PREDICTOR, 'denoiser': REFINER, 'refiner': 'flow',
                   'start_noise': START_NOISE, 'residual_scale': RESIDUAL_SCALE, 'flow_calls': FLOW_CALLS,
                   'condition': 'lq+initial'}
        save(path, pair, {'network': network, 'operating_points': POINTS, 'training': card})
        return path


def grain(sample: Tensor, sharp: Tensor) -> float:
    """Local standard deviation of grey (8x8 blocks) on the flattest quarter of the sharp image, over the sharp image's own."""
    def deviations(image: Tensor) -> Tensor:
        blocks = nn.functional.unfold(image.clamp(0, 1).mean(1, keepdim=True), 8, stride=8)
        return blocks.std(1)

    ours, true = deviations(sample), deviations(sharp)
    flat = true <= true.quantile(0.25, dim=1, keepdim=True)
    return float((ours * flat).sum() / (true * flat).sum())


def build(options: dict[str, Any]) -> RefineUNet:
    return RefineUNet(**{key: value for key, value in options.items() if key != 'type'})


def autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16)


@torch.no_grad()
def run(net: nn.Module, lq: Tensor) -> Tensor:
    with autocast(lq.device):
        return net(lq).float()


def save(path: Path, net: nn.Module, metadata: dict[str, Any]) -> None:
    """Half precision, written whole or not at all."""
    from safetensors.torch import save_file
    tensors = {key: value.detach().cpu().half().contiguous() for key, value in net.state_dict().items()}
    temporary = path.with_suffix('.part')
    save_file(tensors, temporary, {'stochastic_refine': json.dumps(metadata)})
    os.replace(temporary, path)


class Training:
    """A task's networks, optimizer, clock and state on disk."""

    def __init__(self, args: argparse.Namespace, task: PredictorTask | RefinerTask, device: torch.device) -> None:
        self.args, self.task, self.device = args, task, device
        self.net = channels_last(task.net.to(device)).train()
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        self.state = {'spent': 0.0, 'crops': 0, 'steps': 0, 'start': 0.0, 'minutes': 0.0, 'finished': True}
        self.path = args.out / f'{args.part}.state.pt'

    def resume(self) -> bool:
        if not self.path.is_file():
            return False
        content = torch.load(self.path, map_location=self.device, weights_only=True)
        self.net.load_state_dict(content['net'])
        self.average.load_state_dict(content['average'])
        self.optimizer.load_state_dict(content['optimizer'])
        self.state = content['state']
        return True

    def save(self) -> None:
        temporary = self.path.with_suffix('.part')
        torch.save({'net': self.net.state_dict(), 'average': self.average.state_dict(),
                    'optimizer': self.optimizer.state_dict(), 'state': self.state}, temporary)
        os.replace(temporary, self.path)

    def learning_rate(self) -> float:
        """Warm-up over 2 % of the call's minutes, then half a cosine down to 1/100."""
        share = min((self.state['spent'] - self.state['start']) / (60 * self.state['minutes']), 1.0)
        warm = min(share / 0.02, 1.0)
        return self.args.lr * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))

    def step(self, lq: Tensor, gt: Tensor) -> float:
        for group in self.optimizer.param_groups:
            group['lr'] = self.learning_rate()
        lq, gt = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (lq, gt))
        loss = self.task.loss(self.net, lq, gt)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), self.args.grad_clip)
        if math.isfinite(float(norm)):
            self.optimizer.step()
        self.state['steps'] += 1
        decay = min(0.999, (1 + self.state['steps']) / (10 + self.state['steps']))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.net.parameters()), 1 - decay)
        return float(loss.detach())


def train(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)
    device = torch.device(('cuda' if torch.cuda.is_available() else 'cpu') if args.device == 'auto' else args.device)
    training_paths, held_paths = find_photos(args.photos)
    args.out.mkdir(parents=True, exist_ok=True)
    training = Training(args, TASKS[args.part](args, device), device)
    there = training.resume()
    state = training.state
    if args.go_on:
        if not there or state['finished']:
            raise Stop(f'--go-on: {args.out} holds no {args.part} that was stopped in the middle; give --minutes to train '
                       'more.')
    else:
        state.update(start=state['spent'], minutes=args.minutes, finished=False)
    print(f"{args.part}: {state['spent'] / 3600:.2f} h and {state['crops']} crops so far; this call: {state['minutes']:g} "
          f'minutes on {device}, {len(training_paths)} photos, {len(held_paths)} held out', flush=True)
    crops = Crops([read_photo(path) for path in training_paths], args.crop, device, np.random.default_rng())
    pairs = validation_pairs([read_photo(path) for path in held_paths], device)
    end = state['start'] + 60 * state['minutes']
    clock = saved = scored = time.perf_counter()
    losses: list[float] = []
    try:
        while state['spent'] < end:
            lq, gt = crops(args.batch, curriculum(state['steps'], state['crops'], args.curriculum))
            losses.append(training.step(lq, gt))
            state['crops'] += args.batch
            now = time.perf_counter()
            state['spent'] += now - clock
            clock = now
            if now - saved > 60:
                training.save()
                saved = now
            if now - scored > 60 * args.score_every:
                record(training, pairs, losses)
                losses.clear()
                clock = scored = time.perf_counter()  # scoring costs no budget
    except KeyboardInterrupt:
        training.save()
        print('Stopped; --go-on finishes this call.', flush=True)
        raise SystemExit(130) from None
    state['finished'] = True
    training.save()
    row = record(training, pairs, losses)
    card = {**row, 'photos': len(training_paths), 'device': str(device)}
    print(f'Written: {training.task.export(training.average, args, card)}', flush=True)


def record(training: Training, pairs: dict[str, tuple[Tensor, Tensor]], losses: list[float]) -> dict[str, float]:
    """Score the averaged weights, print and append to the curve."""
    state = training.state
    row = {'hours': round(state['spent'] / 3600, 4), 'crops': state['crops'], 'lr': training.learning_rate(),
           'loss': sum(losses) / max(len(losses), 1), **training.task.score(training.average, pairs)}
    path = training.args.out / f'{training.args.part}.curve.csv'
    new = not path.is_file()
    with path.open('a', newline='') as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print('  '.join(f'{key} {value:.4g}' for key, value in row.items()), flush=True)
    return row


TASKS = {'predictor': PredictorTask, 'refiner': RefinerTask}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--photos', nargs='+', type=Path, required=True, help='folders of sharp photos')
    parser.add_argument('--part', choices=TASKS, default='predictor', help='(default: predictor)')
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument('--minutes', type=float, help='train so long, on top of what is there')
    group.add_argument('--go-on', action='store_true', help='finish the call that was stopped')
    parser.add_argument('--out', type=Path, default=Path('experiments/bundled'), help='(default: experiments/bundled)')
    parser.add_argument('--init', help='weights to start from, where --out holds none yet')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda (default: auto)')
    parser.add_argument('--threads', type=int, default=1, help='on a CPU (default: 1)')
    parser.add_argument('--batch', type=int, default=16, help='crops a step (default: 16)')
    parser.add_argument('--crop', type=int, default=128, help='side of the crops (default: 128)')
    parser.add_argument('--lr', type=float, default=4e-4, help='highest learning rate (default: 4e-4)')
    parser.add_argument('--grad-clip', type=float, default=0.5, help='(default: 0.5)')
    parser.add_argument('--curriculum', type=int, default=300_000, help='crops until paths are longest (default: 300000)')
    parser.add_argument('--score-every', type=float, default=10, help='minutes between scores (default: 10)')
    args = parser.parse_args()
    try:
        if args.minutes is not None and args.minutes < 2:
            raise Stop(f'--minutes {args.minutes:g} is too short for one checkpoint; give at least 2.')
        if args.crop < 96 or args.crop % 16:
            raise Stop(f'--crop {args.crop}: a blur of up to 40 pixels is longer than such a crop can show; give a multiple of '
                       '16 from 96.')
        train(args)
    except Stop as stop:
        print(f'Error: {stop}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
