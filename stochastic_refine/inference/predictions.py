"""Predict every blurred image of a folder once, for the training of a refiner over a slow predictor."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from ..checkpoints.weights_folder import find_weights
from ..data.image_files import FORMATS, is_system_file
from ..data.predictions import FOLDER, Origin, origin_of, write_prediction
from ..errors import InputError
from ..files import make_folder, sha256_of
from .deblurrer import Deblurrer, as_tensor
from .photos import read_photo


def prepare_predictions(source: Path, weights: str | Path, destination: Path | None = None, device: str = 'auto',
                        precision: str = 'auto') -> str:
    """Write what a network predicts of each image in ``source/input`` to ``source/initial``, as PNG of 8 bits.

    A prediction that is there already, of these weights and this image, is kept: a stopped run goes on.

    Args:
        source: Folder of pairs, as ``prepare`` lays them out, or a folder of blurred images itself.
        weights: Name or file of the network; of a pair its initial predictor.
        destination: Folder of the predictions.
        device, precision: See :class:`~.deblurrer.Deblurrer`.

    Returns:
        A sentence that says what was done.

    Raises:
        InputError: If there are no images, two have one name, an image or the weights cannot be read, or the predictions
            cannot be written.
    """
    lq_folder = source / 'input' if (source / 'input').is_dir() else source
    if not lq_folder.is_dir():
        raise InputError(f'{source} is no folder; give the folder that holds input/ and target/.')
    paths = sorted(path for path in lq_folder.iterdir() if path.suffix.lower() in FORMATS and not is_system_file(path))
    if not paths:
        raise InputError(f'{lq_folder} holds no image; give the folder that holds input/ and target/.')
    stems = [path.stem for path in paths]
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise InputError(f'Two images in {lq_folder} are called {twice}; rename one, since a prediction has the name alone.')
    file = find_weights(weights)
    digest = sha256_of(file)
    destination = destination or lq_folder.parent / FOLDER
    make_folder(destination)
    jobs = [(path, destination / f'{path.stem}.png', Origin(digest, sha256_of(path))) for path in paths]
    outstanding = [job for job in jobs if not _is_done(*job[1:])]
    if outstanding:
        deblurrer = Deblurrer.from_pretrained(file, device=device, precision=precision)
        for path, target, origin in tqdm(outstanding, desc='Predicting', unit='image'):
            write_prediction(target, _predict(deblurrer, path), origin)
    return (f'{destination} holds {len(jobs)} predictions of {weights}: {len(outstanding)} made now, '
            f'{len(jobs) - len(outstanding)} were there already.')


def _predict(deblurrer: Deblurrer, path: Path) -> Tensor:
    """(3, H, W): the initial prediction, or what a network without one restores."""
    lq, restorer = as_tensor(read_photo(path)), deblurrer.restorer()
    initial = restorer.predict(lq)
    if initial is None:
        initial = restorer.restore(lq, deblurrer.operating_point()).image
    return initial


def _is_done(path: Path, origin: Origin) -> bool:
    try:
        return path.is_file() and origin_of(path) == origin
    except InputError:  # damaged, or something else of this name: made anew
        return False
