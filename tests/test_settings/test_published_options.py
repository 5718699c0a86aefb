"""Options files in the shapes that NAFNet, HINet and Restormer publish, with small networks and folders, train as they are."""

from __future__ import annotations

import pytest
import yaml
from launched import read_log

from stochastic_refine.settings.check import check_options, unused_keys
from stochastic_refine.settings.published import adapt_published

COMMON = '''
name: tiny
scale: 1
num_gpu: 0
manual_seed: 10
datasets:
  train: {name: gopro-train, dataroot_gt: GT, dataroot_lq: LQ, filename_tmpl: '{}', io_backend: {type: disk}, use_shuffle: true,
          num_worker_per_gpu: 0, batch_size_per_gpu: 2, dataset_enlarge_ratio: 1, prefetch_mode: ~, persistent_workers: true}
  val: {name: gopro-test, dataroot_gt: GT, dataroot_lq: LQ, io_backend: {type: disk}}
path: {pretrain_network_g: ~, strict_load_g: true, resume_state: ~}
train:
  optim_g: {type: AdamW, lr: !!float 1e-3, weight_decay: !!float 1e-3, betas: [0.9, 0.9]}
  total_iter: 2
  warmup_iter: -1
val:
  val_freq: !!float 2
  save_img: false
  max_minibatch: 8
  metrics: {psnr: {type: calculate_psnr, crop_border: 0, test_y_channel: false}}
logger: {print_freq: 1, save_checkpoint_freq: !!float 2, use_tb_logger: false, wandb: {project: ~, resume_id: ~}}
dist_params: {backend: nccl, port: 29500}
'''
KINDS = {
    'NAFNet': '''
model_type: ImageRestorationModel
datasets: {train: {type: PairedImageDataset, gt_size: 32, use_flip: true, use_rot: true}, val: {type: PairedImageDataset}}
network_g: {type: NAFNetLocal, width: 4, enc_blk_nums: [1, 1], middle_blk_num: 1, dec_blk_nums: [1, 1]}
train: {scheduler: {type: TrueCosineAnnealingLR, T_max: 2, eta_min: !!float 1e-7}, mean_grad: true,
        pixel_opt: {type: PSNRLoss, loss_weight: 1, reduction: mean}}
''',
    'HINet': '''
model_type: ImageRestorationModel
datasets: {train: {type: PairedImageDataset, gt_size: 32, use_flip: true, use_rot: true}, val: {type: PairedImageDataset}}
network_g: {type: HINet, wf: 4, depth: 2, hin_position_left: 0, hin_position_right: 1}
train: {scheduler: {type: TrueCosineAnnealingLR, T_max: 2, eta_min: !!float 1e-7}, use_grad_clip: false,
        pixel_opt: {type: PSNRLoss, loss_weight: 0.5, reduction: mean, toY: false}}
val: {grids: true, crop_size: 32}
''',
    'Restormer': '''
model_type: ImageCleanModel
datasets:
  train: {type: Dataset_PairedImage, geometric_augs: true, gt_size: 32, gt_sizes: [16, 32], mini_batch_sizes: [2, 1],
          iters: [1, 1]}
  val: {type: Dataset_PairedImage}
network_g: {type: Restormer, dim: 4, num_blocks: [1, 1, 1, 1], num_refinement_blocks: 1, heads: [1, 1, 1, 1]}
train:
  use_grad_clip: true
  mixing_augs: {mixup: false, mixup_beta: 1.2, use_identity: true}
  scheduler: {type: CosineAnnealingRestartCyclicLR, periods: [1, 1], restart_weights: [1, 1], eta_mins: [0.0003, 0.000001]}
  pixel_opt: {type: L1Loss, loss_weight: 1, reduction: mean}
val: {window_size: 8, rgb2bgr: true, use_image: false}
''',
}


def merged(base: dict, other: dict) -> dict:
    return {**base, **{key: merged(base[key], value) if isinstance(base.get(key), dict) else value
                       for key, value in other.items()}}


@pytest.fixture
def options(pairs):
    def of(kind: str) -> dict:
        text = [part.replace('GT', str(pairs / 'gt')).replace('LQ', str(pairs / 'lq')) for part in (COMMON, KINDS[kind])]
        return merged(*map(yaml.safe_load, text))
    return of


@pytest.mark.parametrize(('kind', 'clip', 'said'), [
    ('NAFNet', 0.01, ['persistent_workers', 'use_flip', 'ImageRestorationModel', 'clip is 0.01', 'mean_grad', 'use_shuffle']),
    ('HINet', None, ['persistent_workers', 'use_flip', 'ImageRestorationModel', 'toY', 'max_minibatch']),
    ('Restormer', 0.01, ['Dataset_PairedImage', 'geometric_augs', 'ImageCleanModel', 'window_size', 'use_image']),
])
def test_published_options_are_taken_and_what_differs_is_said(options, parsed, kind, clip, said):
    opt = parsed(options(kind))
    notes = adapt_published(opt)
    check_options(opt)
    words = '\n'.join([*notes, *unused_keys(opt)])
    assert [word for word in said if word not in words] == [] and 'mixup' not in words
    train = opt['datasets']['train']
    assert (opt['train'].get('grad_clip'), train['use_hflip'], train['use_rot']) == (clip, True, True)
    assert adapt_published(opt) == []  # nothing is left to adapt


def test_it_trains(options, launch, tmp_path):
    done = launch('train', options('Restormer'))
    assert done.code == 0, done.err
    assert 'Note: val: window_size has no meaning here and no effect.' in done.err
    log = read_log(tmp_path / 'experiments' / 'tiny')
    assert 'l_pix' in log and 'psnr' in log
