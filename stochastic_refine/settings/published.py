"""Options files as NAFNet, HINet and Restormer publish them, made those of this package: what differs is said."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

#: Their model classes, and whether they clip gradients where nothing is said.
_MODELS = {'ImageRestorationModel': True, 'ImageCleanModel': False}
_CLIP = 0.01
#: Keys of losses and optimizers there that mean nothing as they are published.
_IDLE = {'toY': False, 'mean_grad': None}


def adapt_published(opt: MutableMapping[str, Any]) -> list[str]:
    """Turn parsed options of a fork into this package's, in place; what is no block is left to the checks.

    Returns:
        A sentence for each thing that is another here.
    """
    datasets, train, model = opt.get('datasets'), opt.get('train'), opt.get('model_type')
    notes = []
    for name, dataset in datasets.items() if isinstance(datasets, MutableMapping) else ():
        if isinstance(dataset, MutableMapping):
            notes += [f'datasets: {name}: {words}' for words in _adapt_dataset(dataset, name)]
    if model in _MODELS:
        opt['model_type'] = 'RestorationModel'
        notes.append(f'model_type: {model} is RestorationModel here.')
    if model in _MODELS and isinstance(train, MutableMapping):
        if train.pop('use_grad_clip', _MODELS[model]) and 'grad_clip' not in train:
            train['grad_clip'] = _CLIP
            notes.append(f'train: grad_clip is {_CLIP}, at which {model} clips.')
        mixing = train.pop('mixing_augs', None)
        if train.pop('mixup', False) or isinstance(mixing, MutableMapping) and mixing.get('mixup'):
            notes.append('train: mixup is not done here; the training goes on without it.')
        for name, block in [('train', train), *((f'train: {key}', value) for key, value in train.items())]:
            for key, idle in _IDLE.items():
                if isinstance(block, MutableMapping) and key in block and idle in (None, block[key]):
                    notes.append(f'{name}: {key} has no meaning here and no effect.')
                    del block[key]
    return notes


def _adapt_dataset(dataset: MutableMapping[str, Any], name: str) -> list[str]:
    notes = []
    if dataset.get('persistent_workers') is True and not (name == 'train' and dataset.get('num_worker_per_gpu') != 0):
        dataset['persistent_workers'] = False
        notes.append('persistent_workers has no effect without workers: num_worker_per_gpu, of the block train alone.')
    if dataset.get('type') == 'Dataset_PairedImage':
        dataset['type'] = 'PairedImageDataset'
        notes.append('Dataset_PairedImage is PairedImageDataset here.')
    for theirs, ours in {'use_flip': ['use_hflip'], 'geometric_augs': ['use_hflip', 'use_rot']}.items():
        if theirs in dataset:
            dataset.update({key: dataset.get(key, dataset[theirs]) for key in ours})
            notes.append(f"{theirs} is {' and '.join(ours)} here.")
            del dataset[theirs]
    return notes
