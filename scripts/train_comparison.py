"""Train small versions of several systems under one equal budget on synthetic blur, for the table in the README.

Every system sees the same number of crops of the same size, with the same optimizer, learning-rate schedule, averaging and
precision; network and loss are its own, the network narrowed to what a CPU trains in minutes. The two refiners over frozen
predictors come on top of their predictor's own budget. Stopped, the script goes on where it was. The options files that it
writes to experiments/comparison/ are what ``stochastic-refine evaluate NAME=FILE`` takes afterwards.

    python scripts/train_comparison.py --data datasets/BSDS500
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
ADAMW = {'type': 'AdamW', 'lr': 0.0005, 'weight_decay': 0.0, 'betas': [0.9, 0.99]}
MEAN = {'loss_weight': 1.0, 'reduction': 'mean'}
UNET = {'type': 'RefineUNet', 'base_channels': 32, 'num_res_blocks': 1, 'patch_size': 2}
NAFNET = {'type': 'NAFNet', 'width': 16, 'enc_blk_nums': [1, 1, 1, 4], 'middle_blk_num': 1, 'dec_blk_nums': [1, 1, 1, 1]}
HINET = {'type': 'HINet', 'wf': 16, 'depth': 4, 'hin_position_left': 2, 'hin_position_right': 3}


def pair(predictor: dict[str, Any]) -> dict[str, Any]:
    """A predict-and-refine network over ``predictor``."""
    denoiser = {**UNET, 'in_channels': 9, 'noise_conditioned': True}
    return {'type': 'PredictRefineNet', 'residual_scale': 8.0, 'condition_on_initial': True, 'predictor': predictor,
            'denoiser': denoiser}


def frozen(predictor: dict[str, Any], name: str) -> dict[str, Any]:
    """``predictor`` as the system ``name`` left it, not trained further."""
    weights = Path('experiments') / f'comparison_{name}' / 'models/net_g_latest.pth'
    return {**predictor, 'frozen': True, 'pretrained': str(weights)}


#: Network and losses (keys of ``train:``); the order is that of training.
SYSTEMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    'regression': ({**UNET, 'global_skip': True}, {'pixel_opt': {'type': 'MSELoss', **MEAN}}),
    'predict_refine': (pair({**UNET, 'global_skip': True}), {'initial_opt': {'type': 'L1Loss', **MEAN}}),
    'hinet': (HINET, {'pixel_opt': {'type': 'PSNRLoss', 'loss_weight': 0.5}}),
    'mimo_unet': ({'type': 'MIMOUNet', 'num_res': 4, 'base_channel': 16}, {'pixel_opt': {'type': 'MultiScaleLoss'}}),
    'nafnet': (NAFNET, {'pixel_opt': {'type': 'PSNRLoss'}}),
    'hinet_refine': (pair(frozen(HINET, 'hinet')), {}),
    'nafnet_refine': (pair(frozen(NAFNET, 'nafnet')), {}),
    # The perceptual loss is left out: VGG19's weights would have to be downloaded.
    'deblurganv2': ({'type': 'DeblurGANv2', 'image_statistics': True}, {
        'pixel_opt': {'type': 'MSELoss', 'loss_weight': 0.5, 'reduction': 'mean'},
        'gan_opt': {'type': 'GANLoss', 'gan_type': 'lsgan', 'real_label_val': 1.0, 'fake_label_val': -1.0,
                    'loss_weight': 0.001},
        'optim_d': ADAMW}),
    'mprnet': ({'type': 'MPRNet', 'n_feat': 16, 'scale_unetfeats': 8, 'scale_orsnetfeats': 8, 'num_cab': 2},
               {'pixel_opt': {'type': 'CharbonnierEdgeLoss'}}),
}


def options(name: str, data: Path, iterations: int, batch: int, crop: int) -> dict[str, Any]:
    """The options file of a system."""
    network, losses = SYSTEMS[name]
    diffusion, adversarial = network['type'] == 'PredictRefineNet', 'gan_opt' in losses
    model = 'StochasticRefineModel' if diffusion else 'AdversarialRestorationModel' if adversarial else 'RestorationModel'
    blur = {'type': 'SyntheticBlurDataset', 'name': 'BSDS500', 'trajectory_length': [3, 10], 'noise_sigma': [0, 1]}
    points = {'vivid': {'steps': 30, 'final_variance': 0.1, 'clamp': True}}
    if name == 'predict_refine':
        points['faithful'] = {'steps': 10, 'final_variance': 0.2, 'clamp': True, 'num_samples': 4, 'average': True}
    return {
        'name': f'comparison_{name}',
        'model_type': model,
        'num_gpu': 'auto',
        'manual_seed': 0,
        'datasets': {
            'train': {**blur, 'dataroot_gt': str(data / 'train'), 'gt_size': crop, 'use_hflip': True, 'use_rot': True,
                      'cache': True, 'num_worker_per_gpu': 1, 'batch_size_per_gpu': batch, 'dataset_enlarge_ratio': 1000,
                      'persistent_workers': True},
            'val': {**blur, 'dataroot_gt': str(data / 'val'), 'gt_size': 256, 'max_images': 8},
        },
        'network_g': network,
        **({'network_d': {'type': 'DoubleScaleDiscriminator'}} if adversarial else {}),
        'path': {'pretrain_network_g': None, 'resume_state': None},
        'train': {
            'ema_decay': 0.999,
            'precision': 'bfloat16',
            'optim_g': ADAMW,
            'scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [iterations], 'restart_weights': [1],
                          'eta_min': 0.000001},
            'total_iter': iterations,
            'warmup_iter': 100,
            'grad_clip': 0.05,
            **losses,
        },
        'val': {
            'val_freq': iterations // 3,
            'save_img': False,
            'precision': 'bfloat16',
            **({'operating_points': points} if diffusion else {}),
            'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 0, 'test_y_channel': False}},
        },
        'logger': {'print_freq': 100, 'save_checkpoint_freq': 500, 'use_tb_logger': False},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, default=Path('datasets/BSDS500'),
                        help='folder with train/ and val/ of sharp photos')
    parser.add_argument('--systems', nargs='+', default=list(SYSTEMS), choices=list(SYSTEMS), help='default: all')
    parser.add_argument('--iterations', type=int, default=2000)
    parser.add_argument('--batch', type=int, default=16)
    parser.add_argument('--crop', type=int, default=64)
    args = parser.parse_args()
    folder = ROOT / 'experiments' / 'comparison'
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.systems:
        file = folder / f'{name}.yml'
        file.write_text(yaml.safe_dump(options(name, args.data, args.iterations, args.batch, args.crop), sort_keys=False))
        if (ROOT / f'experiments/comparison_{name}/models/net_g_latest.pth').is_file():
            print(f'{name}: trained already.')
            continue
        code = subprocess.call([sys.executable, 'basicsr/train.py', '-opt', str(file), '--auto_resume'], cwd=ROOT)
        if code:
            return code
    return 0


if __name__ == '__main__':
    sys.exit(main())
