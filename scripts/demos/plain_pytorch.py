"""A refiner on any network that restores, in a loop of your own: plain_pytorch.py PAIRS (lq/, gt/, all one size) PHOTO OUT."""
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stochastic_refine import Deblurrer
from stochastic_refine.archs import NAFNet, PredictRefineNet

pairs, photo, out, iterations = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int((sys.argv[4:] or [10000])[0])
lq, gt = (torch.stack([torch.from_numpy(np.asarray(Image.open(path).convert('RGB'), np.float32) / 255).permute(2, 0, 1)
                       for path in sorted((pairs / side).iterdir())]) for side in ('lq', 'gt'))
mine = NAFNet(width=8, enc_blk_nums=[1], dec_blk_nums=[1])  # or yours: (B, 3, H, W) in [0, 1] to the same; it stays as it is
net = PredictRefineNet(mine, {'type': 'RefineUNet', 'in_channels': 6, 'base_channels': 16, 'noise_conditioned': True}).train()
optimizer = torch.optim.AdamW(net.denoiser.parameters(), lr=1e-4)
for _ in range(iterations):
    chosen = torch.randint(len(lq), (8, ))
    terms = net(lq[chosen], gt=gt[chosen])
    optimizer.zero_grad()
    torch.nn.functional.l1_loss(terms['noise_prediction'], terms['noise']).backward()  # Eq. (6) of the paper
    optimizer.step()
Deblurrer(net)(photo, samples=4, average=True, sampler='ddim', steps=10).save(out)
