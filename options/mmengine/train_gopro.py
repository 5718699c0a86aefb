# torchrun --nproc_per_node=8 -m stochastic_refine.integrations.mmengine options/mmengine/train_gopro.py --launcher pytorch
#
# The paper's settings on GoPro, options/train_gopro.yml in BasicSR, by OpenMMLab's runner: predictor of 64 and denoiser of 32
# base channels, trained from scratch and jointly by Eq. (6) alone, 128x128 crops, batch 256 over 8 GPUs, 1 M iterations, EMA.
# On another number of GPUs: --cfg-options train_dataloader.batch_size=N. Lay the data out first:
#   stochastic-refine prepare gopro --from GOPRO_Large --to datasets/GoPro
# Not printed in the paper, and SR3's here: optimizer, learning rate, warm-up, EMA decay. Ours: bfloat16.
default_scope = 'stochastic_refine'
custom_imports = dict(imports=['stochastic_refine.integrations.mmengine'], allow_failed_imports=False)
work_dir = 'work_dirs/train_gopro'
randomness = dict(seed=0)

model = dict(
    type='StochasticRefine',
    net=dict(
        type='PredictRefineNet',
        predictor=dict(type='RefineUNet', base_channels=64),
        denoiser=dict(type='RefineUNet', in_channels=6, base_channels=32, noise_conditioned=True)),
    objective=dict(type='NoisePredictionLoss', norm='l1'),
    # initial_loss=dict(type='L1Loss'),  # absent in the paper; short trainings need it
    precision='bfloat16',
    operating_points=[  # the first one is validated, all are written into checkpoints
        dict(name='ours', sampler='ancestral', steps=100, final_variance=0.1, seed=0),
        dict(name='ours_sa', sampler='ancestral', steps=10, final_variance=0.5, num_samples=4, average=True, seed=0),
    ])

train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DrawSampler'),
    dataset=dict(
        type='PairedImageDataset', phase='train', dataroot_gt='datasets/GoPro/train/sharp_crops',
        dataroot_lq='datasets/GoPro/train/blur_crops', gt_size=128, use_hflip=True, use_rot=True))
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='PairedImageDataset', phase='val', dataroot_gt='datasets/GoPro/test/target',
        dataroot_lq='datasets/GoPro/test/input', max_images=24))  # of 1111, spread evenly: a glance in passing

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='Adam', lr=1e-4, betas=(0.9, 0.999)))
param_scheduler = dict(type='LinearLR', by_epoch=False, start_factor=1e-4, end=10000)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1000000, val_interval=20000)
val_cfg = dict(type='ValLoop')
val_evaluator = [dict(type='PSNR'), dict(type='SSIM')]

default_hooks = dict(
    logger=dict(type='LoggerHook', interval=100),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=5000, save_best='PSNR', rule='greater'))
custom_hooks = [
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.0001),  # 1 - decay
    dict(type='IterationSeedHook'),
    dict(type='PortableCheckpointHook'),
]
log_processor = dict(by_epoch=False)
