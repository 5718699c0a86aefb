"""AdversarialRestorationModel: a restoration network trained against a discriminator, as DeblurGAN-v2 was."""

from __future__ import annotations

import inspect
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from basicsr.archs import build_network
from basicsr.losses import build_loss
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..archs.build import check_arch_options
from ..archs.predict_refine_arch import final_output
from ..errors import InputError
from .restoration_model import RestorationModel

#: Those that say for each score what it should be, and so can compare it with the mean of the other side.
GAN_TYPES = ('lsgan', 'vanilla')

#: DistributedDataParallel's argument, which newer versions of PyTorch have renamed.
_SYNC_BUFFERS = next(name for name in ('forward_sync_buffers', 'broadcast_buffers')
                     if name in inspect.signature(DistributedDataParallel).parameters)


class ScoreMeans:
    """Mean scores of the last batches on each side and scale, for the relativistic loss to compare with.

    DeblurGAN-v2 compares with the last 50 predictions instead of the batch, since its batch is one image. There the current
    prediction is among them; here it is not, so that parts of a batch add up to the whole.

    Args:
        size: Batches that count.
    """

    def __init__(self, size: int) -> None:
        self.batches: dict[str, deque[list[float]]] = {'real': deque(maxlen=size), 'fake': deque(maxlen=size)}

    def add(self, side: str, means: list[float]) -> None:
        """Take in a batch's mean score on each scale; ``side`` is ``'real'`` or ``'fake'``."""
        self.batches[side].append(means)

    def of(self, side: str, scales: int) -> list[float]:
        """The mean for each of the scales; 0 before the first batch."""
        batches = self.batches[side]
        return [sum(means) / len(batches) for means in zip(*batches)] if batches else [0.0] * scales


class AdversarialRestorationModel(RestorationModel):
    """RestorationModel with a relativistic average adversarial loss (RaGAN; RaGAN-LS with ``gan_type: lsgan``).

    ``network_d`` maps images in [0, 1] to scores, a tensor or one for each of its scales, over which losses are averaged. With
    scores r of the sharp images and f of the restored ones, their means over the last batches (:class:`ScoreMeans`), and
    GANLoss l(scores, label):
        discriminator: ``l(r - mean f, real) / 2 + l(f - mean r, fake) / 2``,
        generator: the content losses ``+ loss_weight (l(r - mean f, fake) / 2 + l(f - mean r, real) / 2)``; with the means
        held fixed only its second part has a gradient, so the first is left out.

    Keys of ``train:``, besides RestorationModel's:
        optim_d: The discriminator's optimizer; both follow ``scheduler``.
        gan_opt: BasicSR's GANLoss, for example ``{type: GANLoss, gan_type: lsgan, fake_label_val: -1.0, loss_weight: 0.001}``;
            its weight is for the generator alone.
        gan_pool_size: How many batches the mean scores are taken over; default 50.
        net_d_iters, net_d_init_iters: As in SRGANModel: the generator learns in every ``net_d_iters``-th iteration, after the
            first ``net_d_init_iters``.

    Both networks' gradients are taken before either is updated. The mean scores are those over all processes.

    Overridden: the losses, and what a second network takes in set-up, saving and resuming. Inherited: everything else.
    """

    @classmethod
    def check_options(cls, opt: dict[str, Any]) -> None:
        if opt['is_train'] and not opt.get('network_d'):
            raise InputError('AdversarialRestorationModel needs a block network_d in training, for example {type: '
                             'DoubleScaleDiscriminator}; add it.')
        super().check_options(opt)

    @classmethod
    def check_losses(cls, train_opt: dict[str, Any]) -> None:
        super().check_losses(train_opt)
        if not train_opt.get('optim_d'):
            raise InputError("train: AdversarialRestorationModel needs optim_d, the discriminator's optimizer, for example "
                             '{type: Adam, lr: 1.0e-4}; add it.')
        if (train_opt.get('gan_opt') or {}).get('gan_type') not in GAN_TYPES:
            raise InputError(f"train: AdversarialRestorationModel needs gan_opt with gan_type {' or '.join(GAN_TYPES)}, for "
                             'example {type: GANLoss, gan_type: lsgan, fake_label_val: -1.0, loss_weight: 0.001}.')

    # ---------------------------------------------------------------- set-up

    def init_training_settings(self) -> None:
        train_opt, paths = self.opt['train'], self.opt['path']
        check_arch_options(self.opt['network_d'], 'network_d')
        # Its statistics are never used, and exchanging them would write into what the first of two calls keeps for backward.
        self.net_d = self.model_to_device(build_network(self.opt['network_d']), **{_SYNC_BUFFERS: False})
        self.print_network(self.net_d)
        if paths.get('pretrain_network_d'):
            self.load_network(self.net_d, paths['pretrain_network_d'], paths.get('strict_load_d', True),
                              paths.get('param_key_d', 'params'))
        self.net_d.train()
        self.cri_gan = build_loss(train_opt['gan_opt']).to(self.device)
        self.score_means = ScoreMeans(train_opt.get('gan_pool_size', 50))
        super().init_training_settings()

    def setup_optimizers(self) -> None:
        options = dict(self.opt['train']['optim_d'])
        super().setup_optimizers()
        self.optimizer_d = self.get_optimizer(options.pop('type'), list(self.net_d.parameters()), **options)
        self.optimizers.append(self.optimizer_d)

    # ---------------------------------------------------------------- one iteration

    def backward(self, current_iter: int) -> dict[str, Tensor]:
        train_opt, losses = self.opt['train'], OrderedDict()
        learns_g = (current_iter % train_opt.get('net_d_iters', 1) == 0
                    and current_iter > train_opt.get('net_d_init_iters', 0))
        self.restored: list[Tensor] = []
        self.net_d.requires_grad_(False)
        if learns_g:
            losses.update(self.backward_by_parts(self.net_g, self.generator_losses, self.lq, self.gt))
        else:
            self._restore()
        self.net_d.requires_grad_(True)
        self.scores: dict[str, list[list[Tensor]]] = {'real': [], 'fake': []}
        losses.update(self.backward_by_parts(self.net_d, self.discriminator_losses, self.gt, torch.cat(self.restored)))
        for side, parts in self.scores.items():
            means = torch.stack([torch.cat(scale).mean() for scale in zip(*parts)])
            if self.opt['dist']:
                dist.all_reduce(means)
                means /= self.opt['world_size']
            self.score_means.add(side, means.tolist())
        return losses

    def generator_losses(self, lq: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """The generator's losses on a part of a batch."""
        with self._autocast():
            outputs = self.net_g(lq)
        losses = {f'l_g{name.removeprefix("l")}': loss for name, loss in self.content_losses(outputs, gt).items()}
        fake = final_output(self.get_bare_model(self.net_g), outputs).float()
        self.restored.append(fake.detach())
        # In several processes the discriminator gets no gradients here, so there are none to exchange.
        scores = self._scores(self.get_bare_model(self.net_d) if self.opt['dist'] else self.net_d, fake)
        losses['l_g_gan'] = relativistic_loss(self.cri_gan, scores, self.score_means.of('real', len(scores)), True,
                                              is_disc=False)
        return losses

    def discriminator_losses(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The discriminator's losses on a part of a batch, and its mean scores for the log."""
        losses = OrderedDict()
        for side, other, images in (('real', 'fake', real), ('fake', 'real', fake)):
            scores = self._scores(self.net_d, images)
            losses[f'l_d_{side}'] = relativistic_loss(
                self.cri_gan, scores, self.score_means.of(other, len(scores)), side == 'real', is_disc=True)
            losses[f'out_d_{side}'] = _mean([scale.detach().mean() for scale in scores])
            self.scores[side].append([scale.detach() for scale in scores])
        return losses

    def _scores(self, net_d: nn.Module, images: Tensor) -> list[Tensor]:
        """Scores, one tensor for each of the discriminator's scales."""
        with self._autocast():
            scores = net_d(images)
        return [scale.float() for scale in ([scores] if isinstance(scores, Tensor) else scores)]

    @torch.no_grad()
    def _restore(self) -> None:
        """Let the generator restore the batch, part by part, without learning."""
        net = self.get_bare_model(self.net_g)
        with self._autocast():
            self.restored = [final_output(net, net(part)).float() for part in self.lq.chunk(self.accumulate)]

    # ---------------------------------------------------------------- saving

    def save(self, epoch: int, current_iter: int) -> None:
        self.save_network(self.net_d, 'net_d', current_iter)  # before the state, by which resuming starts
        super().save(epoch, current_iter)

    def training_state(self, epoch: int, current_iter: int) -> dict[str, Any]:
        means = {side: list(batches) for side, batches in self.score_means.batches.items()}
        return {**super().training_state(epoch, current_iter), 'score_means': means}

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        super().resume_training(resume_state)
        for side, batches in resume_state.get('score_means', {}).items():  # states of earlier versions have none
            self.score_means.batches[side].extend(batches)


def relativistic_loss(criterion: nn.Module, scores: Sequence[Tensor], other_means: Sequence[float], target_is_real: bool,
                      is_disc: bool) -> Tensor:
    """One side's half of the relativistic average loss, ``l(scores - mean of the other side, target) / 2``, over the scales.

    Args:
        criterion: GANLoss, l(scores, target_is_real, is_disc).
        scores: Scores for each scale, (B, ...).
        other_means: Mean score of the other side for each scale.
        target_is_real: What the scores should look like.
        is_disc: Whether for the discriminator.
    """
    return _mean([criterion(scale - mean, target_is_real, is_disc=is_disc) / 2 for scale, mean in zip(scores, other_means)])


def _mean(values: Sequence[Tensor]) -> Tensor:
    return sum(values) / len(values)
