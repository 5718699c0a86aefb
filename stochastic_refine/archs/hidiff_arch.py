"""HI-Diff: "Hierarchical Integration Diffusion Model for Realistic Image Deblurring" (Chen et al., NeurIPS 2023).

A diffusion of few small numbers, the prior, guides a network that restores. Provenance: written from the paper and from facts
about the published implementation (zhengchen1999/HI-Diff, commit b3bfd16): parameter names and shapes, schedule, padding,
epsilon. Released checkpoints (one file for each part, key ``params``) load strictly, with no key map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..diffusion import NoiseSchedule, SampleNoise, ancestral
from .build import arch
from .padding import reflect_pad_to_multiple
from .predict_refine_arch import build_part
from .sampling import Part, Rules, Run


@arch
class HIDiff(nn.Module):
    """HI-Diff as it restores: the prior is drawn from noise, given the blurred image's; a network restores with it.

    Args:
        net_g: Options of the network that restores, a :class:`~.hidiff_transformer.HIDiffTransformer`. Of this and the other
            parts ``pretrained`` loads weights, by name or from a file, which tell type and settings too.
        net_le_dm: Options of the encoder of the blurred image, a :class:`~.hidiff_prior.HIDiffEncoder` with 3 channels.
        net_d: Options of the denoiser, a :class:`~.hidiff_prior.HIDiffDenoiser`.
        timesteps: Steps of the prior's diffusion, all of which are walked.
        linear_start, linear_end: First and last beta of its schedule, between which they are evenly spread.

    Shape:
        (B, 3, H, W), [0, 1], any H and W, to the same.
    """

    def __init__(self,
                 net_g: Mapping[str, Any],
                 net_le_dm: Mapping[str, Any],
                 net_d: Mapping[str, Any],
                 timesteps: int = 8,
                 linear_start: float = 0.1,
                 linear_end: float = 0.99) -> None:
        super().__init__()
        self.net_g = build_part(net_g, 'net_g')
        self.net_le_dm = build_part(net_le_dm, 'net_le_dm')
        self.net_d = build_part(net_d, 'net_d')
        self.schedule = NoiseSchedule.linear(timesteps, linear_start, linear_end)
        self.rules = Rules.native(timesteps)

    # ------------------------------------------------------------ the prior

    def condition(self, lq: Tensor) -> Tensor:
        """The blurred image's prior, (B, 16, 256), of the image padded as ``net_g`` pads it."""
        return self.net_le_dm(reflect_pad_to_multiple(lq, self.net_g.size_multiple)).float()

    def sample_prior(self, condition: Tensor, start: Tensor, on_call: Callable[[], None] = lambda: None) -> Tensor:
        """Walk all steps from noise to a prior, by the means of the posteriors: the noise is all in the start.

        Args:
            condition: The blurred image's prior, (B or 1, 16, 256).
            start: The state after the last step, (B, 16, 256).
            on_call: Called after each call of the denoiser.
        """
        step_of = {level: t for t, level in enumerate(self.schedule.levels, start=1)}
        condition = condition.expand_as(start)

        def denoise(z: Tensor, level: float) -> Tensor:
            eps = self.net_d(z, condition, z.new_full((len(z), 1, 1), step_of[level])).float()
            on_call()
            return eps

        return ancestral(denoise, start, self.schedule, lambda: 0.0, constrain=lambda z: z.clamp(-1, 1))

    def noised(self, prior: Tensor) -> Tensor:
        """The state after the last step, to train on; (B, 16, 256).

        The prior's share is alpha-bar itself, as published, where its root would be expected; both are next to nothing.
        """
        alpha_bar = self.schedule.alpha_bars[-1].item()
        return alpha_bar * prior + (1 - alpha_bar)**0.5 * torch.randn_like(prior)

    def forward(self, lq: Tensor, prior: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """Restore ``lq``, or with the ``prior`` of the sharp image, which training knows, return what losses need.

        Args:
            lq: Blurred image, (B, 3, H, W), [0, 1].
            prior: What the first stage's encoder makes of blurred and sharp image, (B, 16, 256); given in training only.

        Returns:
            Without a prior one sample like ``lq``, the same at each call. With it ``{'image', 'prior'}``: the restored image,
            and the prior that it is restored with, through all steps of the diffusion.
        """
        condition = self.condition(lq)
        if prior is not None:
            found = self.sample_prior(condition, self.noised(prior))
            return {'image': self.net_g(lq, found), 'prior': found}
        noise = SampleNoise([0] * len(lq), self.net_d.shape, lq.device)
        return self.net_g(lq, self.sample_prior(condition, noise()))

    # ------------------------------------------------------------ sampling, by the restorer (:mod:`.sampling`)

    @classmethod
    def rules_of(cls, options: Mapping[str, Any]) -> Rules:
        return Rules.native(options.get('timesteps', 8))

    @property
    def has_initial(self) -> bool:
        return False

    def trial(self, lq: Tensor) -> list[Tensor]:
        condition = self.condition(lq)
        return [self.net_g(lq, self.net_d(condition, condition, condition.new_ones(1)))]

    def parts(self, point: Any) -> list[Part]:
        def tokens(device: torch.device | str) -> Tensor:
            return torch.zeros(1, *self.net_d.shape, device=device)

        return [
            Part(self.net_le_dm, per_image=True),
            Part(self.net_d, calls=point.calls,
                 inputs=lambda height, width, device: (tokens(device), tokens(device), torch.ones(1, device=device))),
            Part(self.net_g, inputs=lambda height, width, device: (torch.zeros(1, 3, height, width, device=device),
                                                                   tokens(device))),
        ]

    def predict_initial(self, lq: Tensor, run: Run) -> Tensor | None:
        return None

    def begin(self, lq: Tensor, initial: Tensor | None, point: Any, batches: Sequence[range],
              run: Run) -> tuple[Tensor | None, Callable[[range], Tensor]]:
        restoring = run.tiled(self.parts(point)[-1], lq, max(map(len, batches)), sampling=True)
        run.start(1 + len(batches) * (point.calls + restoring.calls(*lq.shape[-2:])))
        condition = self.condition(lq)  # of the whole image: all tiles are guided by the same prior
        run.advance()

        def draw(seeds: range) -> Tensor:
            start = SampleNoise(seeds, self.net_d.shape, lq.device)()
            prior = self.sample_prior(condition, start, run.advance)
            return restoring(lq.expand(len(seeds), -1, -1, -1), prior).float().clamp(0, 1)

        return None, draw
