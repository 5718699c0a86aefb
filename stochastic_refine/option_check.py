"""Check an options file before anything is created: types, keys, values and folders, each with a sentence naming the remedy.

BasicSR passes over misspelt optional keys in silence, answers the required ones with a bare KeyError, and meets some mistakes
only at the first validation or when a learning-rate schedule ends.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from .archs.build import ARCHS, arch_class, build_arch, check_arch_options, nearest, without_pretrained
from .errors import InputError
from .inference.operating_point import VALIDATION_KEYS

#: Keys of the whole file; the last row is added by BasicSR.
_TOP_KEYS = {'name', 'model_type', 'num_gpu', 'manual_seed', 'scale', 'datasets', 'path', 'train', 'val', 'logger',
             'dist_params', 'find_unused_parameters',
             'dist', 'rank', 'world_size', 'auto_resume', 'is_train', 'root_path'}
#: Keys of BasicSR's ``path:`` block that are not made from a network's name.
_PATH_KEYS = {'resume_state', 'root', 'experiments_root', 'models', 'training_states', 'log', 'visualization', 'results_root',
              'ignore_resume_networks'}
_NETWORK_PATH_KEYS = ('pretrain_network', 'param_key', 'strict_load')
_TRAIN_KEYS = {'ema_decay', 'optim_g', 'optim_d', 'scheduler', 'total_iter', 'warmup_iter', 'pixel_opt', 'perceptual_opt',
               'gan_opt', 'precision', 'accumulate', 'grad_clip', 'compile', 'noise_opt', 'initial_opt', 'net_d_iters',
               'net_d_init_iters', 'gan_pool_size', 'fix_flow', 'flow_lr_mul'}
_REQUIRED = {
    'top': ('name', 'model_type', 'num_gpu', 'datasets', 'network_g', 'path'),
    'train': ('optim_g', 'scheduler', 'total_iter'),
    'logger': ('print_freq', 'save_checkpoint_freq', 'use_tb_logger'),
    'train data': ('batch_size_per_gpu', 'num_worker_per_gpu'),
}
#: Data sets whose keys are all known: what each needs always, and in training besides.
_DATASETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    'SyntheticBlurDataset': (('dataroot_gt', ), ('gt_size', )),
    'PairedImageDataset': (('dataroot_gt', 'dataroot_lq', 'io_backend'), ('gt_size', 'use_hflip', 'use_rot')),
    'SingleImageDataset': (('dataroot_lq', 'io_backend'), ()),
}
_DATASET_KEYS = {'name', 'type', 'phase', 'scale', 'dataroot_gt', 'dataroot_lq', 'io_backend', 'meta_info_file',
                 'filename_tmpl', 'gt_size', 'use_hflip', 'use_rot', 'mean', 'std', 'color', 'num_worker_per_gpu',
                 'batch_size_per_gpu', 'dataset_enlarge_ratio', 'persistent_workers', 'pin_memory', 'prefetch_mode',
                 'num_prefetch_queue',
                 'gt_sizes', 'mini_batch_sizes', 'iters',
                 'trajectory_length', 'noise_sigma', 'linear_light', 'seed', 'cache', 'skip_corrupt', 'max_images'}
#: What YAML 1.1 reads as text although a number is meant: an exponent without a point or without a sign.
_NUMBER_AS_TEXT = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+')


def check_options_file(argv: list[str]) -> None:
    """Check that the file after ``-opt`` is there and has the blocks that BasicSR's parser goes through.

    Whether ``-opt`` is given is the parser's own business.
    """
    if '-opt' not in argv[:-1]:
        return
    import yaml
    path = Path(argv[argv.index('-opt') + 1])
    if not path.is_file():
        raise InputError(f'Options file {path} does not exist; give one, for example options/train_gopro.yml.')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f'Options file {path} is not valid YAML: {" ".join(str(error).split())}.') from error
    _require(content, ('name', 'datasets', 'path'), f'Options file {path}')
    _require(content['path'], (), 'path')
    _require(content['datasets'], (), 'datasets')
    for name, dataset in content['datasets'].items():
        _require(dataset, (), f'datasets: {name}')


def check_options(opt: dict[str, Any]) -> None:
    """Check parsed options of a training or a test.

    Raises:
        InputError: At the first thing that would fail, or be ignored, later.
    """
    from basicsr.utils import registry
    is_train = opt['is_train']
    _require(opt, _REQUIRED['top'], 'The options file')
    _refuse_slips((key for key in opt if not key.startswith('network_')), _TOP_KEYS, 'The options file')
    _refuse_numbers_as_text({key: value for key, value in opt.items() if key != 'name'}, '')
    _check_num_gpu(opt)
    _known_type(opt['model_type'], registry.MODEL_REGISTRY, 'model_type')
    for key, options in opt.items():
        if key.startswith('network_'):
            _check_network(options, key)
    _check_path(opt)
    model = registry.MODEL_REGISTRY.get(opt['model_type'])
    if is_train:
        _require(opt, ('train', 'logger'), 'The options file')
        _require(opt['train'], _REQUIRED['train'], 'train')
        _require(opt['logger'], _REQUIRED['logger'], 'logger')
        for key in ('print_freq', 'save_checkpoint_freq'):
            _check_number(opt['logger'], key, 'logger', 1)
        _check_train(opt['train'], registry, model)
    for name, dataset in opt['datasets'].items():
        _check_dataset(name, dataset, registry, is_train)
    if is_train and 'train' not in opt['datasets']:
        raise InputError(f"datasets: needs a block 'train'; there are {', '.join(opt['datasets'])}.")
    _check_val(opt, registry)
    if hasattr(model, 'check_options'):  # one of ours
        model.check_options(opt)


def _check_num_gpu(opt: Mapping[str, Any]) -> None:
    if opt['num_gpu'] == 'auto':
        return
    _check_number(opt, 'num_gpu', 'The options file', 0, whole=True)
    if opt['num_gpu'] and not torch.cuda.is_available():
        raise InputError(f"num_gpu: {opt['num_gpu']} GPUs are asked for, but PyTorch finds none; set num_gpu: auto (or 0) to "
                         'use the CPU.')


def _check_network(options: Any, where: str) -> None:
    """Check a network's keys, and those of the networks that are parts of it."""
    check_arch_options(options, where)
    _check_arguments(arch_class(options['type']), options, where)
    for key, part in options.items():
        if isinstance(part, Mapping) and ('type' in part or key in ('predictor', 'denoiser')):
            _check_network({k: v for k, v in part.items() if k not in ('pretrained', 'frozen')}, f'{where}: {key}')
            if part.get('pretrained') and not Path(part['pretrained']).is_file():
                raise InputError(f"{where}: {key}: pretrained {part['pretrained']} does not exist; check the path or remove "
                                 'the key.')
    if options['type'] in ARCHS:  # on the meta device building costs nothing, and shows values that the constructor refuses
        with torch.device('meta'):
            build_arch(without_pretrained(options), where)


def _check_path(opt: Mapping[str, Any]) -> None:
    names = {key.removeprefix('network_') for key in opt if key.startswith('network_')} | {'g', 'd'}
    known = _PATH_KEYS | {f'{key}_{name}' for key in _NETWORK_PATH_KEYS for name in names}
    for key, value in opt['path'].items():
        if key not in known:
            raise InputError(f"path: unknown key '{key}'; {nearest(key, known)}")
        if key.startswith('pretrain_network') and value and not Path(value).is_file():
            raise InputError(f'path: {key} {value} does not exist; check the path or set it to ~.')


def _check_train(train: Mapping[str, Any], registry: Any, model: type) -> None:
    # Other models have keys of their own; only what looks like a slip of the pen is refused.
    _refuse_slips(train, _TRAIN_KEYS, 'train')
    _check_number(train, 'total_iter', 'train', 1)
    _check_number(train, 'accumulate', 'train', 1, whole=True)
    _check_number(train, 'ema_decay', 'train', 0, 1)
    for key, low in (('net_d_iters', 1), ('net_d_init_iters', 0), ('gan_pool_size', 0)):
        _check_number(train, key, 'train', low, whole=True)
    if train.get('grad_clip') is not None:
        _check_number(train, 'grad_clip', 'train', 0)
    for key, options in train.items():
        if key.endswith('_opt') and isinstance(options, Mapping):
            _known_type(options.get('type'), registry.LOSS_REGISTRY, f'train: {key}: type')
            _check_arguments(registry.LOSS_REGISTRY.get(options['type']), options, f'train: {key}')
    _check_optimizer(train, model)
    _check_scheduler(train, model)


def _check_optimizer(train: Mapping[str, Any], model: type) -> None:
    for key in ('optim_g', 'optim_d'):
        if key == 'optim_d' and not train.get(key):
            continue
        where = f'train: {key}'
        _require(train[key], ('type', 'lr'), where)
        if hasattr(model, 'check_options'):  # the others know fewer types than torch.optim
            known = {name: cls for name, cls in vars(torch.optim).items() if isinstance(cls, type)}
            _known_type(train[key]['type'], known, f'{where}: type')
            _check_arguments(known[train[key]['type']], train[key], where, given=('params', ))


def _check_scheduler(train: Mapping[str, Any], model: type) -> None:
    from basicsr.models.base_model import BaseModel

    from .models.lr_scheduler import SCHEDULERS
    where, options, total_iter = 'train: scheduler', train['scheduler'], train['total_iter']
    _require(options, ('type', ), where)
    known = SCHEDULERS
    if not hasattr(model, 'check_options'):
        if model.setup_schedulers is not BaseModel.setup_schedulers:
            return
        known = {name: SCHEDULERS[name] for name in ('MultiStepLR', 'MultiStepRestartLR', 'CosineAnnealingRestartLR')}
    _known_type(options['type'], known, f'{where}: type')
    _check_arguments(known[options['type']], options, where, given=('optimizer', ))
    if 'periods' in options:
        periods = options['periods']
        for key in {'restart_weights', 'eta_mins'} & inspect.signature(known[options['type']]).parameters.keys():
            values = options.get(key, [1])  # what is not given is one number
            if len(periods) != len(values):
                raise InputError(f'{where}: there are {len(periods)} periods but {len(values)} {key}; give one for each.')
        if sum(periods) < total_iter:
            raise InputError(f'{where}: the periods end at iteration {sum(periods)}, before total_iter {total_iter}; make them '
                             'longer.')
    if options['type'] == 'OneCycleLR' and (options.get('total_steps') or 0) < total_iter:
        raise InputError(f"{where}: OneCycleLR needs total_steps of at least total_iter {total_iter}, got "
                         f"{options.get('total_steps')}.")


def _check_dataset(name: str, dataset: dict[str, Any], registry: Any, is_train: bool) -> None:
    from .models.progressive import ProgressivePatches
    where = f'datasets: {name}'
    phase = name.split('_')[0]
    phases = ('train', 'val') if is_train else ('test', 'val')
    if phase not in phases or (phase == 'train' != name):
        run = 'training' if is_train else 'a test'
        raise InputError(f"{where}: a data set's block is called {' or '.join(phases)} in {run} "
                         f"({phases[1]}_2 and so on for more), not '{name}'.")
    _require(dataset, ('name', 'type'), where)
    _known_type(dataset['type'], registry.DATASET_REGISTRY, f'{where}: type')
    if dataset.get('prefetch_mode') == 'cpu':
        raise InputError(f"{where}: prefetch_mode cpu hangs for ever, in BasicSR, once an image cannot be read; write ~ or cuda.")
    if dataset['type'] in _DATASETS:
        _refuse_slips(dataset, _DATASET_KEYS, where)
        always, in_training = _DATASETS[dataset['type']]
        _require(dataset, (*always, *(in_training if phase == 'train' else ())), where)
    if phase == 'train':
        _require(dataset, _REQUIRED['train data'], where)
        for key, low in (('batch_size_per_gpu', 1), ('num_worker_per_gpu', 0), ('dataset_enlarge_ratio', 1), ('gt_size', 1)):
            _check_number(dataset, key, where, low, whole=True)
        ProgressivePatches.from_options(dataset, where)
    if dataset.get('persistent_workers') and not (phase == 'train' and dataset['num_worker_per_gpu'] > 0):
        raise InputError(f'{where}: persistent_workers needs num_worker_per_gpu above 0, which only the block train can have; '
                         'remove persistent_workers.')
    for key in (key for key in dataset if key.startswith('dataroot')):
        if dataset[key] is None:
            raise InputError(f'{where}: {key} is empty; give the folder.')
        if not Path(dataset[key]).expanduser().exists():
            raise InputError(f'{where}: {key} {dataset[key]} does not exist; correct the path, or lay the data out with '
                             'stochastic-refine prepare.')
    if 'io_backend' in dataset:
        _require(dataset['io_backend'], ('type', ), f'{where}: io_backend')
    _check_images(where, dataset, phase)


def _check_images(where: str, dataset: Mapping[str, Any], phase: str) -> None:
    """Check that a folder holds images, and that two folders hold pairs."""
    from .data.synthetic_blur_dataset import find_images
    if dataset['type'] == 'SyntheticBlurDataset':
        find_images(dataset['dataroot_gt'])
    if dataset['type'] != 'PairedImageDataset' or dataset['io_backend']['type'] != 'disk' or dataset.get('meta_info_file'):
        return
    lq, gt = (Path(dataset[key]).expanduser() for key in ('dataroot_lq', 'dataroot_gt'))
    lq_names, gt_names = ({path.name for path in root.iterdir() if path.is_file() and path.name[0] != '.'} for root in (lq, gt))
    for root, names in ((lq, lq_names), (gt, gt_names)):
        if not names:
            raise InputError(f'{where}: {root} holds no image; check the path.')
    template = dataset.get('filename_tmpl', '{}')
    expected = {template.format(Path(name).stem) + Path(name).suffix: name for name in gt_names}
    if lq_names != expected.keys():
        only_lq, only_gt = sorted(lq_names - expected.keys()), sorted(expected[name] for name in expected.keys() - lq_names)
        lone = [f'{len(names)} only in {folder} (first: {names[0]})'
                for names, folder in ((only_lq, lq), (only_gt, gt)) if names]
        raise InputError(f'{where}: images do not pair up by name: {"; ".join(lone)}. Remove or add the missing ones.')
    if phase != 'train' and dataset.get('scale', 1) == 1:  # in training they differ in a crop at the latest, which names them
        for name in sorted(expected):
            _check_sizes(lq / name, gt / expected[name], where)


def _check_sizes(lq: Path, gt: Path, where: str) -> None:
    """Refuse a pair of different sizes, whose sharp image BasicSR would crop in silence; only the headers are read."""
    from PIL import Image, UnidentifiedImageError
    sizes = []
    for path in (lq, gt):
        try:
            with Image.open(path) as image:
                sizes.append(image.size)
        except (UnidentifiedImageError, OSError):  # named when it is read
            return
    if sizes[0] != sizes[1]:
        raise InputError(f'{where}: {lq} and {gt} differ in size, {sizes[0][0]}x{sizes[0][1]} and {sizes[1][0]}x{sizes[1][1]}; '
                         'mend or remove the pair.')


def _check_val(opt: Mapping[str, Any], registry: Any) -> None:
    val = opt.get('val')
    if val is None:
        if not opt['is_train']:
            raise InputError("The options file lacks the block 'val', which says how to validate.")
        return
    _require(val, ('save_img', 'val_freq') if opt['is_train'] else ('save_img', ), 'val')
    _refuse_slips(val, VALIDATION_KEYS, 'val')
    _check_number(val, 'val_freq', 'val', 1)
    for name, options in (val.get('metrics') or {}).items():
        where = f'val: metrics: {name}'
        _require(options, ('type', ), where)
        _known_type(options['type'], registry.METRIC_REGISTRY, f'{where}: type')
        _check_arguments(registry.METRIC_REGISTRY.get(options['type']), options, where, given=('img', 'img2'))


# -------------------------------------------------------------------- single checks


def _require(block: Any, keys: Iterable[str], where: str) -> None:
    if not isinstance(block, Mapping):
        raise InputError(f'{where} must be a block of keys, got {block!r}.')
    for key in keys:
        if key not in block:
            close = difflib.get_close_matches(key, block, n=1, cutoff=0.7)
            raise InputError(f"{where} lacks the key '{key}'{f' (is {close[0]} meant for it?)' if close else ''}; add it.")


def _refuse_slips(keys: Iterable[str], known: Iterable[str], where: str) -> None:
    """Refuse keys that are almost, but not quite, one of the known ones."""
    for key in keys:
        if key not in known and difflib.get_close_matches(key, known, cutoff=0.75):
            raise InputError(f"{where}: unknown key '{key}'; {nearest(key, known)}")


def _known_type(name: Any, known: Any, where: str) -> None:
    names = [key.removesuffix('_basicsr') for key in known.keys()]
    if name not in names:
        raise InputError(f"{where} '{name}' is unknown; {nearest(str(name), names)}")


def _check_arguments(target: Callable[..., Any], options: Mapping[str, Any], where: str, given: tuple[str, ...] = ()) -> None:
    """Check that ``target(**given, **options)`` can be called; ``options`` may also hold ``type``."""
    parameters = inspect.signature(target).parameters.values()
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    names = {p.name for p in parameters if p.kind not in variable} - set(given)
    keys = options.keys() - {'type'}
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        _refuse_slips(sorted(keys), names, where)
    elif keys - names:
        key = min(keys - names)
        raise InputError(f"{where}: {options['type']} has no option '{key}'; {nearest(key, names)}")
    needed = [p.name for p in parameters if p.name in names - keys and p.default is p.empty]
    if needed:
        raise InputError(f"{where}: {options['type']} needs the key '{needed[0]}'; add it.")


def _check_number(block: Mapping[str, Any], key: str, where: str, low: float, high: float | None = None,
                  whole: bool = False) -> None:
    """Check an optional number of ``block``: at least ``low``, below ``high``."""
    if key not in block:
        return
    value, kinds = block[key], int if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or value < low or (high is not None and value >= high):
        kind = 'a whole number' if whole else 'a number'
        raise InputError(f"{where}: {key} must be {kind} from {low}{'' if high is None else f', below {high}'}, got {value!r}.")


def _refuse_numbers_as_text(value: Any, where: str) -> None:
    """Refuse ``1e-4``, which YAML 1.1 reads as text, wherever it stands."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key not in ('name', 'suffix'):
                _refuse_numbers_as_text(item, f'{where}: {key}' if where else str(key))
    elif isinstance(value, list):
        for item in value:
            _refuse_numbers_as_text(item, where)
    elif isinstance(value, str) and _NUMBER_AS_TEXT.fullmatch(value):
        number = repr(float(value))
        if 'e' in number and '.' not in number:
            number = number.replace('e', '.0e')
        raise InputError(f"{where} is the text '{value}', since YAML knows a number with an exponent only by a point and a "
                         f'sign; write {number}.')
