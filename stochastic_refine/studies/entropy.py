"""Residuals are simpler than images (Sec. 6.1): bits per dimension of sharp images and of what the predictor leaves over.

The paper's proxy is the entropy of pixel values aggregated over all positions, images and channels: 7.42 bits per dimension for
sharp images, 3.91 for residuals. It does not say how residuals were made discrete; here the initial prediction is rounded to
8 bits, so that a residual is a whole number from -255 to 255 and sharp image = prediction + residual holds exactly.

That proxy sees single values only. Beside it stands what a lossless coder that looks at neighbours needs: Pillow's PNG at its
strongest setting, on the image and on the residual modulo 256 (from which prediction and residual still give the image back).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..archs.sampling import SamplingNetwork
from ..comparison.published import published_table
from ..comparison.systems import Network
from ..errors import InputError
from ..inference.operating_point import OperatingPoint
from .frame import Study, to_bgr
from .inputs import restorer_of
from .report import COLOURS, StudyReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTITIES = ('reference', 'residual')
#: The smallest value of each quantity.
_LOWEST = {'reference': 0, 'residual': -255}


def entropy_study(study: Study, network: Network) -> StudyReport:
    """Write ``entropy.csv|json|png``; one row per quantity.

    Raises:
        InputError: If the network has no predictor.
    """
    predict = _predictor(network, study.device)

    def compute(lq: Tensor, gt: NDArray[np.uint8]) -> dict[str, Any]:
        residual = gt.astype(np.int16) - to_bgr(predict(lq))
        return {'reference_counts': np.bincount(gt.ravel(), minlength=256),
                'residual_counts': np.bincount(residual.ravel() + 255, minlength=511),
                'reference_png': png_bytes(gt), 'residual_png': png_bytes((residual % 256).astype(np.uint8)), 'values': gt.size}

    total: dict[str, NDArray[Any]] = {}
    for found in study.each_image(network, compute, 'Entropy'):
        total = {name: total.get(name, 0) + part for name, part in found.items()}
    published = published_table('residual_entropy')['rows']
    rows = [{
        'quantity': name,
        'entropy_bits': entropy(total[f'{name}_counts']),
        'png_bits': float(8 * total[f'{name}_png'] / total['values']),
        'published_entropy_bits': published[name.capitalize()]['bits_per_dim'],
    } for name in QUANTITIES]
    study.words += [f"{row['quantity']}: {row['entropy_bits']:.2f} bits per dimension (paper "
                    f"{row['published_entropy_bits']:.2f}), {row['png_bits']:.2f} as PNG" for row in rows]
    settings = {'network': network.record, 'values': int(total['values'])}
    return study.write(rows, settings, lambda figure: _draw(figure, rows, total))


def _predictor(network: Network, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What gives the initial prediction; a deterministic network is a predictor as a whole."""
    restorer = restorer_of(network, device)
    if not isinstance(restorer.net, SamplingNetwork):
        return lambda lq: restorer.restore(lq, OperatingPoint()).image
    if not restorer.net.has_initial:
        raise InputError(f'{network.name} has no predictor, so it leaves no residual; give a predict-and-refine network with '
                         '--weights.')
    return restorer.predict


def entropy(counts: NDArray[Any]) -> float:
    """Shannon entropy in bits of the distribution that the counts estimate."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log2(share)).sum()) + 0.0  # no -0.0


def png_bytes(image: NDArray[np.uint8]) -> int:
    """Size of an image, (H, W, 3), as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format='png', optimize=True)
    return len(buffer.getvalue())


def _draw(figure: Figure, rows: list[dict[str, Any]], total: dict[str, NDArray[Any]]) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    for name, colour, style in zip(QUANTITIES, COLOURS, ('-', '--')):
        counts = total[f'{name}_counts']
        values = np.arange(len(counts)) + _LOWEST[name]
        share = np.where(counts > 0, counts / counts.sum(), np.nan)
        left.semilogy(values, share, style, color=colour, label={'reference': 'sharp image', 'residual': 'residual'}[name])
    left.set(xlabel='value (8-bit grey values)', ylabel='share of all values', title='Distribution of values')
    left.legend()
    for offset, key, hatch, label in ((-0.27, 'entropy_bits', '', 'entropy of values'), (0, 'png_bits', '//', 'PNG, lossless'),
                                      (0.27, 'published_entropy_bits', '..', 'entropy, paper')):
        bars = right.bar([i + offset for i in range(2)], [row[key] for row in rows], 0.25, hatch=hatch, label=label,
                         edgecolor='white', color=COLOURS[{'': 0, '//': 2, '..': 4}[hatch]])
        right.bar_label(bars, fmt='%.2f', fontsize=7)
    right.set(ylabel='bits per dimension', title='Information', xticks=[0, 1], xticklabels=['sharp image', 'residual'],
              ylim=(0, 10.5))
    right.legend(fontsize=7, loc='upper right')
