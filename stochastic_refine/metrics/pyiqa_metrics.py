"""MUSIQ, MANIQA, CLIP-IQA and other no-reference scores through the package pyiqa.

pyiqa is no dependency and is imported only when one of these scores is asked for: its licence is PolyForm Noncommercial.
"""

from __future__ import annotations

import difflib
import math
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import InputError
from .images import rgb_tensor, without_border
from .networks import loading, metric_device, scoring

_INSTALL = 'pip install pyiqa (its licence, PolyForm Noncommercial, allows no commercial use)'
#: pyiqa counts these among the no-reference scores, but they judge a folder.
_OF_FOLDERS = ('fid', 'inception_score')
#: Pixels a side that every network takes; those with the largest windows want 224.
_SURELY_ENOUGH = 256
_LIST = "name one of pyiqa.list_models(metric_mode='NR')"


def calculate_pyiqa(img: NDArray[np.uint8], metric: str, crop_border: int = 0, **kwargs: Any) -> float:
    """A no-reference score of pyiqa by its name; which direction is better depends on it. NaN for images too small for it.

    Args:
        img: Image, (H, W, 3), BGR uint8; the network gets it as RGB in [0, 1].
        metric: A name from ``pyiqa.list_models(metric_mode='NR')``.
        crop_border: Pixels left out at each edge.
        **kwargs: BasicSR passes keys such as ``better``; ignored.

    Raises:
        MetricUnavailable: If pyiqa is missing, or the weights cannot be downloaded.
        InputError: If pyiqa has no such score.
    """
    device = metric_device()
    network = _network(metric, device)
    img = without_border(img, crop_border)
    try:
        with scoring():
            return network(rgb_tensor(img).to(device)).item()
    except (AssertionError, IndexError, RuntimeError, ValueError):  # each network says it in another way
        if min(img.shape[:2]) < _SURELY_ENOUGH:
            return math.nan
        raise


def calculate_musiq(img: NDArray[np.uint8], crop_border: int = 0, **kwargs: Any) -> float:
    """MUSIQ (Ke et al., ICCV 2021), trained on KonIQ-10k; 0 to 100, higher is better. See ``calculate_pyiqa``."""
    return calculate_pyiqa(img, 'musiq', crop_border)


def calculate_maniqa(img: NDArray[np.uint8], crop_border: int = 0, **kwargs: Any) -> float:
    """MANIQA (Yang et al., CVPRW 2022), trained on KonIQ-10k; 0 to 1, higher is better. See ``calculate_pyiqa``."""
    return calculate_pyiqa(img, 'maniqa', crop_border)


def calculate_clipiqa(img: NDArray[np.uint8], crop_border: int = 0, **kwargs: Any) -> float:
    """CLIP-IQA (Wang et al., AAAI 2023); 0 to 1, higher is better. See ``calculate_pyiqa``."""
    return calculate_pyiqa(img, 'clipiqa', crop_border)


@cache
def _network(metric: str, device: torch.device) -> nn.Module:
    remedy = f'run once where there is a network; the weights are then kept in {torch.hub.get_dir()}/pyiqa and other caches'
    with loading(metric, _INSTALL, remedy), _no_retries():
        import pyiqa
        names = [name for name in pyiqa.list_models(metric_mode='NR') if not name.startswith(_OF_FOLDERS)]
        if metric not in names:
            known = metric in pyiqa.list_models()
            raise InputError(f"calculate_pyiqa: '{metric}' needs more than one image; {_LIST}." if known else
                             f"calculate_pyiqa: pyiqa has no score '{metric}'; {_nearest(metric, names)}.")
        return pyiqa.create_metric(metric, device=device)


def _nearest(metric: str, names: list[str]) -> str:
    close = difflib.get_close_matches(metric, names, n=3, cutoff=0.5)
    return f'nearest: {", ".join(close)}' if close else _LIST


@contextmanager
def _no_retries() -> Iterator[None]:
    """Without a network, let huggingface_hub look into its cache only; it would retry each file for half a minute."""
    try:
        from huggingface_hub import constants
    except ImportError:  # pyiqa's own import says what is missing
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(urlsplit(constants.ENDPOINT))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers(server: Any) -> bool:
    """Whether a connection can be opened; through a proxy, that is left to the download."""
    if urllib.request.getproxies():
        return True
    try:
        socket.create_connection((server.hostname, server.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
