# python scripts/demo.py && python -m stochastic_refine.integrations.mmengine options/mmengine/train_demo.py
#
# What options/train_demo.yml is in BasicSR: a training that runs anywhere in minutes, from the bundled weights, with the same
# data, seeds and losses; here by OpenMMLab's runner.
default_scope = 'stochastic_refine'
custom_imports = dict(imports=['stochastic_refine.integrations.mmengine'], allow_failed_imports=False)
work_dir = 'work_dirs/train_demo'
randomness = dict(seed=0)

model = dict(
    type='StochasticRefine',
    net=dict(
        type='PredictRefineNet',
        residual_scale=8.0,
        condition_on_initial=True,
        predictor=dict(type='RefineUNet', base_channels=32, num_res_blocks=1, patch_size=2, global_skip=True),
        denoiser=dict(type='RefineUNet', in_channels=9, base_channels=32, num_res_blocks=1, patch_size=2,
                      noise_conditioned=True)),
    objective=dict(type='NoisePredictionLoss', norm='l1'),
    initial_loss=dict(type='L1Loss', loss_weight=1.0),
    pretrained='small',
    precision='bfloat16',
    operating_points=[  # the first one is validated, all are written into checkpoints
        dict(name='vivid', sampler='ancestral', steps=50, final_variance=0.1, clamp=True, seed=0),
        dict(name='faithful', sampler='ancestral', steps=20, final_variance=0.2, clamp=True, num_samples=4, average=True,
             seed=0),
    ])

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DrawSampler', ratio=500),
    dataset=dict(
        type='SyntheticBlurDataset', phase='train', dataroot_gt='demo/photos', gt_size=96, trajectory_length=[3, 10],
        noise_sigma=[0, 1], cache=True))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='SyntheticBlurDataset', phase='val', dataroot_gt='demo/photos', trajectory_length=[5, 9], noise_sigma=[0, 1]))

optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.0, betas=(0.9, 0.99)))
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=False, T_max=200, end=200)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=200, val_interval=100)
val_cfg = dict(type='ValLoop')
val_evaluator = [dict(type='PSNR'), dict(type='SSIM')]

default_hooks = dict(
    logger=dict(type='LoggerHook', interval=20),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=100, save_best='PSNR', rule='greater'))
custom_hooks = [
    dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.01),  # 1 - decay
    dict(type='IterationSeedHook'),
    dict(type='PortableCheckpointHook'),
]
log_processor = dict(by_epoch=False)
