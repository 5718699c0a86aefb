"""Whole runs of the launchers: training, validating, stopping, resuming, refusing, and several processes."""

from __future__ import annotations

import copy
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import REPOSITORY, for_test, free_port, python_environment, run_python, write_yaml
from launched import assert_refused, iterations, read_log, wait_for

SCORES = ('initial/psnr', 'vivid/psnr', 'faithful/psnr')


def scores(log):
    """The last validation's figures as they are printed."""
    return dict(re.findall(r'# (\S+): (\S+)', log.rpartition('Validation ')[2]))


# ---------------------------------------------------------------- training, testing, resuming


def test_training_testing_and_restoring_agree(launch, refine_options, tmp_path):
    """The figures of the validation during training, of a test of the checkpoint, and of the network it describes."""
    from basicsr.metrics import calculate_psnr
    from basicsr.utils import tensor2img

    from stochastic_refine.data.synthetic_blur_dataset import SyntheticBlurDataset
    from stochastic_refine.inference.restorer import Restorer
    from stochastic_refine.inference.weights import load_network

    run = launch('train', refine_options)
    assert run.code == 0, run.err
    folder = tmp_path / 'experiments' / 'tiny'
    log = read_log(folder)
    trained = scores(log)
    assert tuple(trained) == SCORES and iterations(log) == [1, 2, 3, 4]
    assert set(re.findall(r'@ (\d+) iter', log)) == {'4'}  # also of the validation after the end
    assert 'l_noise' in log and 'l_initial' in log
    assert sorted(path.name for path in (folder / 'models').iterdir()) == ['net_g_2.pth', 'net_g_4.pth', 'net_g_latest.pth']
    assert sorted(path.name for path in (folder / 'training_states').iterdir()) == ['2.state', '4.state']

    checkpoint = folder / 'models' / 'net_g_4.pth'
    options = for_test(refine_options, checkpoint)
    options['val'].update(save_img=True)
    run = launch('test', options)
    assert run.code == 0, run.err
    assert scores(read_log(tmp_path / 'results' / 'tiny', 'test')) == trained
    saved = {path.name for path in (tmp_path / 'results' / 'tiny' / 'visualization' / 'photos').iterdir()}
    assert saved == {f'{photo}_{name}_tiny.png' for photo in ('astronaut', 'chelsea', 'coffee', 'rocket')
                     for name in ('initial', 'vivid', 'faithful')}

    net, points, _ = load_network(checkpoint)
    restorer = Restorer(net)
    dataset = SyntheticBlurDataset({**refine_options['datasets']['val'], 'phase': 'val'})
    for name, point in points.items():
        values = [calculate_psnr(tensor2img(restorer.restore(item['lq'], point).image), tensor2img(item['gt']), 0)
                  for item in (dataset[i] for i in range(len(dataset)))]
        assert f'{sum(values) / len(values):.4f}' == trained[f'{name}/psnr']


def test_auto_resume_falls_back_to_the_newest_whole_state(launch, refine_options, tmp_path):
    assert launch('train', refine_options).code == 0
    folder = tmp_path / 'experiments' / 'tiny'
    newest = folder / 'training_states' / '4.state'
    newest.write_bytes(newest.read_bytes()[:-100])
    (folder / 'training_states' / '.4.k1ll3d.state').write_bytes(b'')  # of a process killed while it saved
    refine_options['train']['total_iter'] = 6
    run = launch('train', {**refine_options, 'manual_seed': 4}, '--auto_resume', '--force_yml', 'total_iter=9')
    assert run.code == 0, run.err
    assert 'Note: total_iter at the top of the options has no meaning; in the block train it has' in run.err
    assert 'Note: manual_seed 4 is not taken over: a resumed training keeps the seed 3' in run.err
    assert 'Resuming training from epoch: 0, iter: 2.' in run.err and iterations(run.err) == [3, 4, 5, 6]
    state = torch.load(folder / 'training_states' / '6.state', weights_only=True)
    assert {int(entry['step']) for entry in state['optimizers'][0]['state'].values()} == {6}
    assert state['schedulers'][0]['last_epoch'] == 5
    assert state['optimizers'][0]['param_groups'][0]['lr'] == pytest.approx(0.0005)  # halved at 3
    assert not list(tmp_path.glob('experiments/*_archived_*'))

    for path in (folder / 'training_states').glob('[0-9]*'):
        path.write_bytes(b'')
    before = sorted(path.name for path in (tmp_path / 'experiments').iterdir())
    assert_refused(launch('train', refine_options, '--auto_resume'), 'No training state', 'is whole', started=True)
    assert sorted(path.name for path in (tmp_path / 'experiments').iterdir()) == before == ['tiny']


def test_paired_data_with_workers(launch, restoration_options, tmp_path):
    restoration_options['datasets']['train'].update(num_worker_per_gpu=1, persistent_workers=True)
    run = launch('train', restoration_options)
    assert run.code == 0, run.err
    assert iterations(run.err) == [1, 2] and list(scores(run.err)) == ['psnr']


@pytest.mark.slow
def test_the_documented_commands_from_another_folder(refine_options, tmp_path):
    """``python basicsr/train.py`` keeps experiments/ beside itself, wherever it is called from, and resumes there."""
    refine_options['name'] = f'pytest_{uuid.uuid4().hex}'
    refine_options['train']['total_iter'] = 2
    refine_options['val']['val_freq'] = 100
    refine_options['val']['operating_points'] = {'vivid': {'steps': 1}}
    folder = REPOSITORY / 'experiments' / refine_options['name']
    path = write_yaml(tmp_path / 'options.yml', refine_options)
    try:
        first = run_python('basicsr/train.py', '-opt', str(path), cwd=REPOSITORY)
        assert first.returncode == 0, first.stderr
        assert (folder / 'training_states' / '2.state').is_file()
        refine_options['train']['total_iter'] = 3
        write_yaml(path, refine_options)
        second = run_python(str(REPOSITORY / 'basicsr' / 'train.py'), '-opt', 'options.yml', '--auto_resume', cwd=tmp_path)
        assert second.returncode == 0, second.stderr
        assert iterations(second.stderr) == [3]
        assert not (tmp_path / 'experiments').exists()
    finally:
        for left in (REPOSITORY / 'experiments').glob(f"{refine_options['name']}*"):
            shutil.rmtree(left)


# ---------------------------------------------------------------- stopping


def test_ctrl_c_saves_and_auto_resume_goes_on(start, launch, refine_options, tmp_path):
    """As in a terminal, every process of the group gets the signal, the loading worker too."""
    refine_options['train']['total_iter'] = 100_000
    refine_options['val'] = None
    refine_options['logger']['save_checkpoint_freq'] = 100_000
    refine_options['datasets']['train'].update(num_worker_per_gpu=1, dataset_enlarge_ratio=100)
    run = start('train', refine_options)
    wait_for(lambda: not run.process.is_alive() or (run.err_path.exists() and 'iter:       1,' in run.err))
    os.killpg(run.process.pid, signal.SIGINT)
    run.wait()
    assert run.code == 130, run.err
    stopped = int(re.search(r'Stopped and saved at iteration (\d+); continue with --auto_resume', run.err)[1])
    assert 'Traceback' not in run.out + run.err
    folder = tmp_path / 'experiments' / 'tiny'
    assert [path.name for path in (folder / 'training_states').iterdir()] == [f'{stopped}.state']
    assert [path.name for path in (folder / 'models').iterdir()] == [f'net_g_{stopped}.pth']

    refine_options['train']['total_iter'] = stopped + 1
    run = launch('train', refine_options, '--auto_resume')
    assert run.code == 0 and iterations(run.err) == [stopped + 1], run.err


def test_a_diverging_training_stops_with_a_sound_checkpoint(launch, refine_options, tmp_path):
    refine_options['train'].update(optim_g={'type': 'AdamW', 'lr': 1.0e+30}, grad_clip=None)
    refine_options['logger']['save_checkpoint_freq'] = 1
    run = launch('train', refine_options)
    assert_refused(run, 'Training stopped at iteration 2', 'not finite', 'checkpoint of iteration 1 is intact', started=True)
    models = tmp_path / 'experiments' / 'tiny' / 'models'
    assert [path.name for path in models.iterdir()] == ['net_g_1.pth']
    content = torch.load(models / 'net_g_1.pth', weights_only=True)
    assert all(value.isfinite().all() for key in ('params', 'params_ema') for value in content[key].values())


# ---------------------------------------------------------------- refusing


def test_what_is_refused_before_the_start_leaves_nothing(launch, refine_options, tmp_path):
    assert_refused(launch('train', 'nowhere.yml'), 'nowhere.yml does not exist')
    (tmp_path / 'broken.yml').write_text('name: [1, 2')
    assert_refused(launch('test', 'broken.yml'), 'broken.yml is not valid YAML')
    wrong = copy.deepcopy(refine_options)
    wrong['network_g']['predictor']['base_chanels'] = 8
    assert_refused(launch('train', wrong), 'network_g: predictor', 'base_channels')
    wrong = for_test(refine_options)
    wrong['datasets']['test']['dataroot_gt'] = 'nowhere'
    assert_refused(launch('test', wrong), 'datasets: test: dataroot_gt nowhere')
    wrong = copy.deepcopy(refine_options)
    del wrong['num_gpu']
    assert_refused(launch('train', wrong), "'num_gpu'")
    wrong = copy.deepcopy(refine_options)
    wrong['path']['resume_state'] = 'gone.state'
    assert_refused(launch('train', wrong), 'resume_state gone.state does not exist')
    assert_refused(launch('train', refine_options, '--force_yml', 'trian:total_iter=3'), "'trian'", '--force_yml')
    assert_refused(launch('train', refine_options, '--force_yml', 'total_iter'), '--force_yml')
    ran = tmp_path / 'ran'
    code = f'open({str(ran)!r}, "w").close()'
    for forced in (f'name"]; {code}; opt["name=x', f'train:total_iter=[{code}]', 'name=two\nlines'):
        assert_refused(launch('train', refine_options, '--force_yml', forced), '--force_yml')
    assert not ran.exists()


class RunsCode:
    """Creates the file ``ran`` when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path, )


@pytest.mark.parametrize('kind, fragments', [
    ('code', ('holds Python objects besides tensors', 'could run code')),
    ('another net', ('another network than PredictRefineNet', 'missing')),
    ('cut short', ('damaged or cut short', )),
])
def test_checkpoints_that_do_not_fit(launch, refine_options, tmp_path, kind, fragments):
    path, ran = tmp_path / 'weights.pth', tmp_path / 'ran'
    torch.save({'params': {'w': torch.zeros(3)}, **({'x': RunsCode(ran)} if kind == 'code' else {})}, path)
    if kind == 'cut short':
        path.write_bytes(path.read_bytes()[:-40])
    run = launch('test', for_test(refine_options, path))
    assert_refused(run, str(path), *fragments, started=True)
    assert not ran.exists()
    if kind == 'code':
        with path.open('rb') as file:  # it would have run
            torch.load(file, weights_only=False)
        assert ran.exists()


def test_fewer_images_than_a_batch(launch, refine_options):
    refine_options['datasets']['train']['batch_size_per_gpu'] = 5
    run = launch('train', refine_options)
    assert_refused(run, 'datasets: train has 4 images, fewer than one batch of 5', started=True)


@pytest.mark.parametrize('skip', [False, True])
def test_a_truncated_photo_in_training(launch, refine_options, photos, tmp_path, skip):
    folder = tmp_path / 'photos'
    shutil.copytree(photos, folder)
    bad = folder / 'chelsea.png'
    bad.write_bytes(bad.read_bytes()[:2000])
    refine_options['datasets']['train'].update(
        dataroot_gt=str(folder), num_worker_per_gpu=1, batch_size_per_gpu=4, skip_corrupt=skip)
    run = launch('train', refine_options)
    if skip:
        assert run.code == 0 and iterations(run.err) == [1, 2, 3, 4], run.err
        assert f'{bad} is damaged or no image; mend or remove it. Skipped.' in run.err
    else:
        assert_refused(run, str(bad), 'skip_corrupt: true', started=True)


@pytest.mark.parametrize('trouble', ['truncated', 'size'])
def test_a_bad_pair_in_training(launch, restoration_options, pairs, tmp_path, trouble):
    from PIL import Image
    folder = tmp_path / 'pairs'
    shutil.copytree(pairs, folder)
    bad = folder / 'lq' / 'coffee.png'
    if trouble == 'size':
        Image.open(bad).resize((90, 80)).save(bad)
    else:
        bad.write_bytes(bad.read_bytes()[:2000])
    restoration_options['datasets']['train'].update(dataroot_lq=str(folder / 'lq'), batch_size_per_gpu=4)
    run = launch('train', restoration_options)
    assert_refused(run, str(bad), 'skip_corrupt: true', started=True)


# ---------------------------------------------------------------- several processes


@pytest.mark.slow
def test_two_processes_train_and_validate_as_one_and_stop_together(launch, refine_options, tmp_path):
    """torchrun on CPUs: one log, one set of checkpoints, workers that are spawned, the scores of a single process, Ctrl-C."""
    refine_options['train']['total_iter'] = 100_000
    refine_options['val']['val_freq'] = 2
    refine_options['logger']['save_checkpoint_freq'] = 2
    refine_options['datasets']['train'].update(num_worker_per_gpu=1, persistent_workers=True, dataset_enlarge_ratio=1000)
    path = write_yaml(tmp_path / 'options.yml', refine_options)
    with (tmp_path / 'output').open('w') as output:
        process = subprocess.Popen(
            [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={free_port()}',
             '-m', 'stochastic_refine.cli', 'train', '-opt', str(path), '--launcher', 'pytorch'],
            cwd=tmp_path, env=python_environment(), stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: 'iter:       3,' in (tmp_path / 'output').read_text() or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        process.wait(900)
    finally:
        process.kill()
    text = (tmp_path / 'output').read_text()
    stopped = int(re.search(r'Stopped and saved at iteration (\d+)', text)[1])
    assert len(set(re.findall(r'Stopped and saved at iteration (\d+)', text))) == 1
    folder = tmp_path / 'experiments' / 'tiny'
    assert [entry.name for entry in (tmp_path / 'experiments').iterdir()] == ['tiny']
    assert (folder / 'training_states' / f'{stopped}.state').is_file()
    log = read_log(folder)
    assert iterations(log)[:3] == [1, 2, 3] and len(iterations(log)) in (stopped - 1, stopped)
    first = scores(log.split('iter:       3,')[0])
    assert tuple(first) == SCORES
    run = launch('test', for_test(refine_options, folder / 'models' / 'net_g_2.pth'))
    assert scores(run.err) == first


def test_the_pytorch_launcher_without_torchrun(launch, refine_options):
    assert_refused(launch('train', refine_options, '--launcher', 'pytorch'), 'needs torchrun')


def test_torchrun_without_the_launcher_is_refused(monkeypatch):
    from stochastic_refine.errors import InputError
    from stochastic_refine.integrations.basicsr.launch import _check_launcher
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '8')
    _check_launcher(['train.py', '-opt', 'x.yml', '--launcher', 'pytorch'])
    with pytest.raises(InputError, match='started 8 processes.*without --launcher pytorch'):
        _check_launcher(['train.py', '-opt', 'x.yml'])


@pytest.mark.parametrize('asked, forced, used', [('auto', (), 1), (1, (), 1), (2, ('num_gpu=auto', ), 1), (8, (), None),
                                                 ('auto', ('num_gpu=8', ), None)])
def test_one_process_trains_on_one_gpu(refine_options, tmp_path, monkeypatch, asked, forced, used):
    """On a machine with eight GPUs: BasicSR would take all of them, with eight times the batch."""
    from stochastic_refine.errors import InputError
    from stochastic_refine.integrations.basicsr import launch
    from stochastic_refine.registration import register_all
    register_all()
    import basicsr.utils
    from basicsr.utils.options import parse_options
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 8)
    path = write_yaml(tmp_path / 'train.yml', {**refine_options, 'num_gpu': asked})
    monkeypatch.setattr(sys, 'argv', ['basicsr/train.py', '-opt', str(path), *(('--force_yml', *forced) if forced else ())])
    if used is None:
        with pytest.raises(InputError, match='one process computes on one GPU, not on 8; .*torchrun --nproc_per_node=8'):
            launch._parse_and_check(parse_options, str(tmp_path), is_train=True)
        return
    opt, _ = launch._parse_and_check(parse_options, str(tmp_path), is_train=True)
    assert opt['num_gpu'] == used
    lines = []
    monkeypatch.setattr(basicsr.utils, 'get_root_logger', lambda: SimpleNamespace(info=lines.append))
    launch._build_model(lambda opt: None, opt)
    line, = lines
    assert 'one of 8 GPUs' in line and f'torchrun --nproc_per_node=8 basicsr/train.py -opt {path} --launcher pytorch' in line


def test_datasets_reach_spawned_workers(launch, restoration_options, pairs, tmp_path):
    """Spawned workers import BasicSR while they unpickle the data set, so its compatibility layer must come before."""
    from basicsr.data import build_dataset

    from stochastic_refine.integrations.basicsr.launch import _build_checked
    opt = {**restoration_options['datasets']['val'], 'phase': 'val', 'scale': 1}
    dataset = _build_checked(build_dataset, opt)
    (tmp_path / 'dataset.pkl').write_bytes(pickle.dumps(dataset))
    code = 'import pickle, sys; d = pickle.load(open(sys.argv[1], "rb")); print(len(d), d[0]["lq_path"])'
    result = run_python('-c', code, str(tmp_path / 'dataset.pkl'), cwd=tmp_path)
    assert result.stdout.split() == ['4', str(pairs / 'lq' / 'astronaut.png')], result.stderr
