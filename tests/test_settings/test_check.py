"""Every slip in an options file is refused before anything is created, by a sentence that names it."""

from __future__ import annotations

import copy
import importlib.util
import shutil

import lmdb
import pytest
import torch
from conftest import for_test, unet

from stochastic_refine.archs.build import build_arch
from stochastic_refine.errors import InputError
from stochastic_refine.settings.check import check_options, check_options_file

GONE = object()


def changed(options, path, value):
    """A copy of the options with the entry at the dotted ``path`` set, or removed."""
    options = copy.deepcopy(options)
    *parents, key = path.split('.')
    block = options
    for parent in parents:
        block = block[parent]
    if value is GONE:
        del block[key]
    else:
        block[key] = value
    return options


def refusal(parsed, options):
    with pytest.raises(InputError) as error:
        check_options(parsed(options))
    message = str(error.value)
    assert '\n' not in message and message.rstrip()[-1] in '.?', message
    return message


@pytest.mark.parametrize('fixture', ['refine_options', 'restoration_options'])
def test_sound_options_pass(parsed, request, fixture):
    options = request.getfixturevalue(fixture)
    check_options(parsed(options))
    check_options(parsed(for_test(options)))
    options['train']['my_own_key'] = 1
    options['train']['scheduler'] = {'type': 'TrueCosineAnnealingLR', 'T_max': 4, 'eta_min': 1.0e-7}
    options['datasets']['train'].update(gt_sizes=[16, 32], mini_batch_sizes=[2, 1], iters=[2, 2])
    options['val'].update(grids=True, crop_size=64)
    check_options(parsed(options))
    options['val'] = None
    check_options(parsed(options))


@pytest.mark.parametrize('path, value, fragments', [
    # unknown types, with the nearest names
    ('model_type', 'StochasticRefineMode', ('model_type', 'did you mean StochasticRefineModel')),
    ('network_g.type', 'PredictRefine', ('PredictRefine', 'did you mean PredictRefineNet')),
    ('network_g.denoiser.type', 'RefinUNet', ('RefinUNet', 'did you mean RefineUNet')),
    ('datasets.train.type', 'SyntheticBlurDataSet', ('datasets: train: type', 'did you mean SyntheticBlurDataset')),
    ('train.initial_opt.type', 'L1loss', ('train: initial_opt: type', 'did you mean L1Loss')),
    ('train.noise_opt', {'type': 'NoisePrediction'}, ('train: noise_opt: type', 'did you mean NoisePredictionLoss')),
    ('val.metrics.psnr.type', 'calculate_pnsr', ('val: metrics: psnr: type', 'did you mean calculate_psnr')),
    ('train.optim_g.type', 'Adamw', ('train: optim_g: type', 'did you mean Adam')),
    ('train.scheduler.type', 'MultiSteLR', ('train: scheduler: type', 'did you mean MultiStepLR')),
    ('train.scheduler.type', 'ReduceLROnPlateau', ('train: scheduler: type', 'is unknown')),
    ('train.scheduler', {'type': 'TrueCosineAnealingLR'}, ('did you mean TrueCosineAnnealingLR', )),
    ('train.scheduler', {'type': 'TrueCosineAnnealingLR', 'eta_min': 0.1}, ('train: scheduler', "'T_max'")),
    ('train.scheduler', {'type': 'LinearLR', 'end_facto': 0.1}, ('train: scheduler', 'did you mean end_factor')),
    ('train.scheduler', {'type': 'OneCycleLR', 'max_lr': 0.1, 'total_steps': 3}, ('total_steps', 'total_iter 4')),
    # misspelt keys
    ('network_g.sampling_', {}, ('network_g', 'sampling_', 'did you mean sampling')),
    ('network_g.predictor.base_chanels', 8, ('network_g: predictor', 'base_chanels', 'did you mean base_channels')),
    ('network_g.denoiser.noise_condition', True, ('network_g: denoiser', 'did you mean noise_conditioned')),
    ('train.ema_deacy', 0.9, ('train', 'ema_deacy', 'did you mean ema_decay')),
    ('train.initial_opt.loss_wieght', 1.0, ('initial_opt', 'loss_wieght', 'did you mean loss_weight')),
    ('train.optim_g.weight_decai', 0.1, ('optim_g', 'did you mean weight_decay')),
    ('train.scheduler.gama', 0.1, ('scheduler', 'did you mean gamma')),
    ('path.pretrained', 'x.pth', ("path: unknown key 'pretrained'", 'pretrain_network_g')),
    ('path.pretrain_network_h', None, ('pretrain_network_h', 'pretrain_network_g')),
    ('path.resume_sate', None, ('resume_sate', 'did you mean resume_state')),
    ('val.finalvariance', 0.1, ('finalvariance', 'operating_points')),
    ('val.metrics.psnr.test_y_chanel', True, ('val: metrics: psnr', 'did you mean test_y_channel')),
    ('val.operating_points.vivid.step', 3, ('operating_points: vivid', 'did you mean steps')),
    ('vall', {}, ('vall', 'did you mean val')),
    ('datasets.train.mini_batch_size', [2], ('datasets: train', 'did you mean mini_batch_sizes')),
    ('datasets.train.trajectory_lenght', [3, 9], ('datasets: train', 'did you mean trajectory_length')),
    # missing keys
    ('model_type', GONE, ('model_type', )),
    ('network_g', GONE, ('network_g', )),
    ('network_g.denoiser', GONE, ('network_g', 'denoiser')),
    ('train', None, ('train must be a block', )),
    ('train.total_iter', GONE, ('train lacks', 'total_iter')),
    ('train.optim_g.lr', GONE, ('train: optim_g', "'lr'")),
    ('train.scheduler.milestones', GONE, ('train: scheduler', "'milestones'")),
    ('logger.print_freq', GONE, ('logger', 'print_freq')),
    ('val.val_freq', GONE, ('val lacks', 'val_freq')),
    ('val.save_img', GONE, ('val lacks', 'save_img')),
    ('val.metrics.psnr.crop_border', GONE, ('val: metrics: psnr', "'crop_border'")),
    ('datasets.train.batch_size_per_gpu', GONE, ('datasets: train', 'batch_size_per_gpu')),
    ('datasets.train.gt_size', GONE, ('datasets: train', 'gt_size')),
    ('datasets.train.dataroot_gt', GONE, ('datasets: train', 'dataroot_gt')),
    # values
    ('train.optim_g.lr', '1e-4', ('train: optim_g: lr', "'1e-4'", 'write 0.0001')),
    ('train.optim_g.lr', '1e-5', ('train: optim_g: lr', 'write 1.0e-05')),
    ('train.total_iter', '2e5', ('train: total_iter', 'write 200000.0')),
    ('val.operating_points.vivid.final_variance', '2e-2', ('vivid: final_variance', 'write 0.02')),
    ('train.total_iter', 0, ('total_iter', 'from 1')),
    ('train.accumulate', 0, ('accumulate', 'from 1')),
    ('train.accumulate', 1.5, ('accumulate', 'whole number')),
    ('train.ema_decay', 1, ('ema_decay', 'below 1')),
    ('train.grad_clip', -1, ('grad_clip', )),
    ('train.precision', 'half', ('train: precision', 'bfloat16')),
    ('train.pixel_opt', {'type': 'L1Loss'}, ('pixel_opt has no meaning', 'initial_opt')),
    ('logger.print_freq', 0, ('logger: print_freq', )),
    ('val.val_freq', 0, ('val: val_freq', )),
    ('datasets.train.batch_size_per_gpu', 0, ('batch_size_per_gpu', )),
    ('datasets.train.gt_sizes', [16, 32], ('datasets: train', "'mini_batch_sizes'")),
    ('train.gan_pool_size', -1, ('gan_pool_size', 'from 0')),
    ('val.grids', 'yes please', ('val: grids', 'true or false')),
    ('val.grids', True, ('val: grids needs crop_size', )),
    ('network_g.sampling', {'steps': 0}, ('network_g: sampling', 'steps must be')),
    ('network_g.sampling', {'num_samples': 2}, ('network_g: sampling', 'num_samples')),
    ('network_g.denoiser.in_channels', 9, ('network_g', 'cannot restore an image', 'channels')),
    ('network_g.predictor.out_channels', 4, ('network_g', 'PredictRefineNet')),
    ('network_g.predictor.num_res_blocks', 10**9, ('network_g', 'make it smaller')),
    ('train.initial_opt.loss_weight', 'much', ('train: initial_opt: loss_weight must be a number', )),
    ('train.initial_opt.reduction', 'some', ('train: initial_opt: L1Loss refuses its arguments', )),
    ('train.optim_g.lr', float('nan'), ('train: optim_g: lr is nan', )),
    ('datasets.train.trajectory_length', [9, 3], ('trajectory_length', '[lowest, highest]')),
    ('datasets.train.trajectory', 5, ('datasets: train: trajectory must be a block', )),
    ('datasets.train.trajectory', {'turns': 0}, ('datasets: train: trajectory', 'did you mean turn')),
    ('datasets.train.trajectory', {5: 0}, ('datasets: train: trajectory', "unknown key '5'")),
    ('datasets.train.trajectory', {'turn': 'no'}, ('datasets: train: trajectory: turn', )),
    ('datasets.train.num_worker_per_gpu', None, ('num_worker_per_gpu', )),
    ('datasets.train.persistent_workers', True, ('persistent_workers', 'num_worker_per_gpu above 0')),
    ('datasets.val.persistent_workers', True, ('datasets: val: persistent_workers', )),
    ('num_gpu', '2', ('num_gpu', "'2'")),
    # names that become those of folders and files
    ('name', '..', ('name must be text of less than 200 bytes', )),
    ('name', 'a/b', ('name must be text', )),
    ('datasets.val.name', '../x', ('datasets: val: name must be text', )),
    ('val.suffix', '/../x', ('val: suffix must be text', )),
    ('val.operating_points', {'../x': {'steps': 1}}, ('operating_points: a name must be text', )),
    # data
    ('datasets.train.dataroot_gt', 'nowhere/at/all', ('datasets: train: dataroot_gt nowhere/at/all does not exist', )),
    ('datasets.train.dataroot_gt', None, ('datasets: train: dataroot_gt is empty', )),
    ('datasets.valid', {'name': 'x', 'type': 'SyntheticBlurDataset'}, ("'valid'", 'train or val')),
    ('datasets.test', {'name': 'x', 'type': 'SyntheticBlurDataset'}, ("'test'", 'train or val in training')),
    ('datasets.train', GONE, ("datasets: needs a block 'train'", )),
    ('path.pretrain_network_g', 'gone.pth', ('path: pretrain_network_g gone.pth does not exist', )),
    ('network_g.predictor.pretrained', 'gone.pth', ('predictor: pretrained gone.pth does not exist', )),
])
def test_slips_in_training_are_refused(parsed, refine_options, path, value, fragments):
    message = refusal(parsed, changed(refine_options, path, value))
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_schedules_that_end_too_soon(parsed, restoration_options):
    cosine = 'train.scheduler'
    assert 'iteration 1, before total_iter 2' in refusal(parsed, changed(restoration_options, f'{cosine}.periods', [1]))
    assert '2 periods but 1 restart' in refusal(parsed, changed(restoration_options, f'{cosine}.periods', [1, 1]))
    cyclic = {'type': 'CosineAnnealingRestartCyclicLR', 'periods': [1, 1], 'restart_weights': [1, 1], 'eta_mins': [0.1, 0.01]}
    check_options(parsed(changed(restoration_options, cosine, cyclic)))
    assert '2 periods but 1 eta_mins' in refusal(parsed, changed(restoration_options, cosine, {**cyclic, 'eta_mins': [0.1]}))
    assert 'before total_iter 2' in refusal(parsed, changed(restoration_options, cosine, {
        **cyclic, 'periods': [1], 'restart_weights': [1], 'eta_mins': [0]}))


def test_gpus_that_are_not_there(parsed, refine_options, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert 'num_gpu: 8 GPUs' in refusal(parsed, {**refine_options, 'num_gpu': 8})
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    check_options(parsed({**refine_options, 'num_gpu': 1}))
    message = refusal(parsed, {**for_test(refine_options), 'num_gpu': 8})
    assert 'one process computes on one GPU' in message and 'torchrun --nproc_per_node=8 basicsr/test.py' in message
    check_options({**parsed({**refine_options, 'num_gpu': 8}), 'dist': True})


@pytest.mark.parametrize('logger, missing, fragments', [
    ({'use_tb_logger': True, 'wandb': {'project': 'x'}}, 'wandb', ('logger: wandb: project', 'pip install wandb')),
    ({'use_tb_logger': True}, 'tensorboard', ('logger: use_tb_logger', 'pip install tensorboard')),
    ({'use_tb_logger': False, 'wandb': {'project': 'x'}}, None, ('needs use_tb_logger: true', )),
])
def test_loggers_that_are_not_installed(parsed, refine_options, monkeypatch, logger, missing, fragments):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name, *rest: None if name == missing else find_spec(name, *rest))
    refine_options['logger'].update(logger)
    message = refusal(parsed, refine_options)
    assert [fragment for fragment in fragments if fragment not in message] == [], message


def test_models_of_basicsr_keep_their_own_rules(parsed, restoration_options):
    restoration_options['model_type'] = 'SRModel'
    restoration_options['train']['optim_g']['type'] = 'AdamOfAnotherFork'
    check_options(parsed(restoration_options))
    assert 'train: scheduler: type' in refusal(parsed, changed(restoration_options, 'train.scheduler.type', 'MultiSteLR'))


def test_a_test_needs_val_and_takes_no_training_data(parsed, refine_options):
    options = for_test(refine_options)
    assert "lacks the block 'val'" in refusal(parsed, changed(options, 'val', None))
    options['datasets']['train'] = options['datasets']['test']
    assert "'train'" in refusal(parsed, options)


# ---------------------------------------------------------------- folders of pairs


@pytest.fixture
def own_pairs(restoration_options, pairs, tmp_path):
    """Options whose pairs the test may spoil, and their folder."""
    folder = tmp_path / 'own'
    shutil.copytree(pairs, folder)
    for name in ('train', 'val'):
        restoration_options['datasets'][name].update(dataroot_gt=str(folder / 'gt'), dataroot_lq=str(folder / 'lq'))
    return restoration_options, folder


def test_an_empty_folder(parsed, own_pairs, tmp_path, refine_options):
    options, folder = own_pairs
    (tmp_path / 'empty').mkdir()
    message = refusal(parsed, changed(options, 'datasets.train.dataroot_lq', str(tmp_path / 'empty')))
    assert f'{tmp_path / "empty"} holds no image' in message
    message = refusal(parsed, changed(refine_options, 'datasets.train.dataroot_gt', str(tmp_path / 'empty')))
    assert f'{tmp_path / "empty"} holds no image' in message


def test_names_that_do_not_pair_up(parsed, own_pairs):
    options, folder = own_pairs
    (folder / 'lq' / 'coffee.png').rename(folder / 'lq' / 'tea.png')
    message = refusal(parsed, options)
    assert f'1 only in {folder / "lq"} (first: tea.png)' in message
    assert f'1 only in {folder / "gt"} (first: coffee.png)' in message


def test_system_files_are_passed_over_and_strangers_named(parsed, own_pairs):
    from basicsr.data import build_dataset
    options, folder = own_pairs
    (folder / 'lq' / 'Thumbs.db').write_text('no image')
    for side in ('lq', 'gt'):
        (folder / side / 'desktop.ini').write_text('no image')
    opt = parsed(options)
    check_options(opt)
    assert len(build_dataset(opt['datasets']['train'])) == 4
    for side in ('lq', 'gt'):
        (folder / side / 'notes.txt').write_text('no image')
    assert f'{folder / "lq"} holds 1 files that are no images (notes.txt)' in refusal(parsed, options)


def test_pairs_of_two_suffixes(parsed, own_pairs):
    from PIL import Image
    options, folder = own_pairs
    for path in list((folder / 'lq').iterdir()):
        Image.open(path).save(path.with_suffix('.jpg'))
        path.unlink()
    message = refusal(parsed, options)
    assert 'astronaut.jpg' in message and 'astronaut.png' in message and 'one name but two suffixes' in message


@pytest.mark.parametrize('listed', ['../lq/coffee.png', '{gt}/coffee.png'])
def test_lists_name_images_of_their_folder_only(parsed, own_pairs, listed):
    options, folder = own_pairs
    (folder / 'list.txt').write_text(f"coffee.png\n{listed.format(gt=folder / 'gt')}\n")
    options['datasets']['train']['meta_info_file'] = str(folder / 'list.txt')
    assert 'outside the data folder' in refusal(parsed, options)


def test_a_filename_template_is_understood(parsed, own_pairs):
    options, folder = own_pairs
    for path in list((folder / 'lq').iterdir()):
        path.rename(path.with_name(f'{path.stem}_blur.png'))
    for name in ('train', 'val'):
        options['datasets'][name]['filename_tmpl'] = '{}_blur'
    check_options(parsed(options))


@pytest.fixture
def lmdbs(parsed, own_pairs):
    """A function that makes LMDBs of images by BasicSR's helper, without some, and gives the options of a training on them."""
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    def make(names, missing=()):
        options, folder = copy.deepcopy(own_pairs[0]), own_pairs[1]
        for side in ('gt', 'lq'):
            path = folder / f'{side}.lmdb'
            make_lmdb_from_imgs(str(folder / side), str(path), names, [name[:-4] for name in names])
            with lmdb.open(str(path)) as base, base.begin(write=True) as content:
                assert all([content.delete(name[:-4].encode()) for name in missing])
            options['datasets']['train'][f'dataroot_{side}'] = str(path)
        options['datasets']['train']['io_backend'] = {'type': 'lmdb'}
        return options

    return make


def test_lmdbs_have_every_image_they_list(parsed, own_pairs, lmdbs):
    folder = own_pairs[1]
    check_options(parsed(lmdbs(['coffee.png', 'rocket.png'])))
    shutil.rmtree(folder / 'gt.lmdb'), shutil.rmtree(folder / 'lq.lmdb')
    message = refusal(parsed, lmdbs(['coffee.png', 'rocket.png'], missing=['rocket.png']))
    assert 'lq.lmdb lacks 1 of 2 images' in message and 'by the key rocket' in message
    shutil.rmtree(folder / 'gt.lmdb'), shutil.rmtree(folder / 'lq.lmdb')
    for side in ('gt', 'lq'):
        (folder / side / 'coffee.png').rename(folder / side / 'IMG.0001.png')
    message = refusal(parsed, lmdbs(['IMG.0001.png']))
    assert '(IMG.0001)' in message and "ends an LMDB's keys at the first dot" in message


def test_pairs_of_different_sizes_in_validation(parsed, own_pairs):
    from PIL import Image
    options, folder = own_pairs
    path = folder / 'gt' / 'coffee.png'
    Image.open(path).resize((80, 72)).save(path)
    message = refusal(parsed, options)
    assert 'datasets: val' in message and str(path) in message and '72x64 and 80x72' in message


# ---------------------------------------------------------------- the file itself


@pytest.mark.parametrize('text, fragments', [
    ('name: [1, 2', ('not valid YAML', 'line 1')),
    ('a: b: c', ('not valid YAML', )),
    ('', ('holds no keys', )),
    ('name: x\ndatasets: {}\n', ("lacks the key 'path'", )),
    ('name: x\ndatasets: {train: }\npath: {}\n', ('datasets: train must be a block', )),
    ('name: x\ndatasets: {}\npath:\n', ('path must be a block', )),
    ('name: x\ntrain:\n  total_iter: 4\n  total_iter: 6\n', ("train has the key 'total_iter' twice, in lines 3 and 4", )),
    ('name: x\ndatasets: {a: [{b: 1, b: 2}]}\n', ("datasets: a has the key 'b' twice", )),
])
def test_broken_files(tmp_path, text, fragments):
    path = tmp_path / 'broken.yml'
    path.write_text(text)
    with pytest.raises(InputError) as error:
        check_options_file(['train', '-opt', str(path)])
    assert all(fragment in str(error.value) for fragment in fragments) and '\n' not in str(error.value)


def test_a_missing_file():
    with pytest.raises(InputError, match='Options file nowhere.yml does not exist'):
        check_options_file(['train', '-opt', 'nowhere.yml', '--auto_resume'])
    check_options_file(['train'])  # the parser's business


def test_networks_are_checked_without_a_type_too(parsed, refine_options):
    refine_options['network_g']['denoiser'] = {key: value for key, value in unet().items() if key != 'type'}
    assert 'network_g: denoiser' in refusal(parsed, refine_options)


def test_weights_of_another_network_are_refused(parsed, refine_options, tmp_path):
    """Before a folder is made; for the whole network and for a part of it."""
    other = build_arch(unet(base_channels=8))
    torch.save({'params': other.state_dict()}, tmp_path / 'other.pth')
    for path in ('path.pretrain_network_g', 'network_g.predictor.pretrained'):
        assert 'other.pth holds weights of another network' in refusal(parsed, changed(
            refine_options, path, str(tmp_path / 'other.pth')))
    refine_options['path'].update(pretrain_network_g=str(tmp_path / 'other.pth'), strict_load_g=False)
    check_options(parsed(refine_options))
    torch.save({'params': build_arch(unet(global_skip=True)).state_dict()}, tmp_path / 'own.pth')
    check_options(parsed(changed(refine_options, 'network_g.predictor.pretrained', str(tmp_path / 'own.pth'))))


def test_a_file_is_found_as_the_parser_finds_it(tmp_path):
    path = tmp_path / 'hostile.yml'
    path.write_text('x: !!python/object/apply:os.getcwd []')
    for arguments in (['-opt', str(path)], [f'-opt={path}'], ['-op', str(path)]):
        with pytest.raises(InputError, match='hostile.yml is not valid YAML'):
            check_options_file(['train', *arguments, '--auto_resume'])
