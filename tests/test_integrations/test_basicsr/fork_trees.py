"""Stand-ins for NAFNet, HINet and Restormer, whose repositories cannot be had here: trees that have what is known of how those
find networks and models, load data, log, validate, save and resume, reduced to what a training of a few iterations meets.

They were written from the facts that are known of commits 2b4af71, 4e72315 and df766d5; what passes here may still fail there.
"""

from __future__ import annotations

from pathlib import Path

KINDS = ('NAFNet', 'HINet', 'Restormer')

_SCAN = '''
import importlib, os
from os import path as osp

_folder = osp.dirname(osp.abspath(__file__))
_names = [osp.splitext(osp.basename(v.path))[0] for v in os.scandir(_folder) if v.name.endswith('{suffix}.py')]
_modules = [importlib.import_module(f'{package}.{{name}}') for name in _names]


def _find(name):
    for module in _modules:
        cls = getattr(module, name, None)
        if cls is not None:
            return cls
    raise ValueError(f'{{name}} is not found.')
'''

_FILES = {
    'basicsr/models/archs/__init__.py': _SCAN.format(suffix='_arch', package='basicsr.models.archs') + '''

def define_network(opt):
    network_type = opt.pop('type')
    return _find(network_type)(**opt)
''',
    # the fork's own network bears a name that ours has too
    'basicsr/models/archs/own_arch.py': '''
EINOPS
from torch import nn


class KIND(nn.Module):

    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return x + self.body(x)
''',
    'basicsr/models/losses/__init__.py': '''
import torch.nn.functional as F
from torch import nn


class L1Loss(nn.Module):

    def __init__(self, loss_weight=1.0, reduction='mean'):
        super().__init__()
        self.loss_weight, self.reduction = loss_weight, reduction

    def forward(self, pred, target, weight=None, **kwargs):
        return self.loss_weight * F.l1_loss(pred, target, reduction=self.reduction)
''',
    'basicsr/models/__init__.py': _SCAN.format(suffix='_model', package='basicsr.models') + '''

def create_model(opt):
    return _find(opt['model_type'])(opt)
''',
    'basicsr/models/base_model.py': '''
import os
import torch
from torch import nn
from basicsr.utils import MASTER_ONLY


class BaseModel():

    def __init__(self, opt):
        self.opt, self.is_train = opt, opt['is_train']
        self.device = torch.device('cuda' if opt['num_gpu'] != 0 else 'cpu')
        self.schedulers, self.optimizers = [], []

    def model_to_device(self, net):
        return net.to(self.device)

    def get_bare_model(self, net):
        return net.module if isinstance(net, nn.DataParallel) else net

    def validation(self, dataloader, current_iter, tb_logger, save_img=False, rgb2bgr=True, use_image=True):
        if self.opt['dist']:
            return self.dist_validation(dataloader, current_iter, tb_logger, save_img, rgb2bgr, use_image)
        return self.nondist_validation(dataloader, current_iter, tb_logger, save_img, rgb2bgr, use_image)

    def setup_schedulers(self):
        for optimizer in self.optimizers:
            self.schedulers.append(torch.optim.lr_scheduler.MultiStepLR(optimizer, [1000]))

    def get_current_log(self):
        return self.log_dict

    def reduce_loss_dict(self, loss_dict):
        with torch.no_grad():
            return {name: value.mean().item() for name, value in loss_dict.items()}

    def load_network(self, net, load_path, strict=True, param_key='params'):
        load_net = torch.load(load_path, map_location=lambda storage, loc: storage)
        self.get_bare_model(net).load_state_dict(load_net[param_key], strict=strict)

    @MASTER_ONLY
    def save_network(self, net, net_label, current_iter, param_key='params'):
        nets, keys = (net, param_key) if isinstance(net, list) else ([net], [param_key])
        name = 'latest' if current_iter == -1 else current_iter
        torch.save({key: self.get_bare_model(each).state_dict() for each, key in zip(nets, keys)},
                   os.path.join(self.opt['path']['models'], f'{net_label}_{name}.pth'))

    def save_training_state(self, epoch, current_iter):
        if current_iter != -1:
            state = {'epoch': epoch, 'iter': current_iter, 'optimizers': [o.state_dict() for o in self.optimizers],
                     'schedulers': [s.state_dict() for s in self.schedulers]}
            torch.save(state, os.path.join(self.opt['path']['training_states'], f'{current_iter}.state'))

    def resume_training(self, resume_state):
        for i, o in enumerate(resume_state['optimizers']):
            self.optimizers[i].load_state_dict(o)
        for i, s in enumerate(resume_state['schedulers']):
            self.schedulers[i].load_state_dict(s)
''',
    'basicsr/models/image_restoration_model.py': '''
import importlib
from collections import OrderedDict
from copy import deepcopy
import torch
from basicsr.metrics import calculate_psnr
from basicsr.models.archs import define_network
from basicsr.models.base_model import BaseModel
from basicsr.utils import get_root_logger

loss_module = importlib.import_module('basicsr.models.losses')


class HOST(BaseModel):

    def __init__(self, opt):
        super().__init__(opt)
        self.net_g = self.model_to_device(define_network(deepcopy(opt['network_g'])))
        load_path = self.opt['path'].get('pretrain_network_g', None)
        if load_path is not None:
            self.load_network(self.net_g, load_path, param_key=self.opt['path'].get('param_key', 'params'))
        if self.is_train:
            self.init_training_settings()

    def init_training_settings(self):
        self.net_g.train()
        train_opt = self.opt['train']
        AVERAGING
        if not train_opt.get('pixel_opt'):
            raise ValueError('pixel loss are None.')
        self.cri_pix = getattr(loss_module, train_opt['pixel_opt'].pop('type'))(**train_opt['pixel_opt']).to(self.device)
        params = [v for v in self.net_g.parameters() if v.requires_grad]
        self.optimizer_g = getattr(torch.optim, train_opt['optim_g'].pop('type'))(params, **train_opt['optim_g'])
        self.optimizers.append(self.optimizer_g)
        self.setup_schedulers()

    MODEL_EMA

    def feed_data(self, data, is_val=False):
        self.lq, self.gt = data['lq'].to(self.device), data['gt'].to(self.device)

    def optimize_parameters(self, current_iterARGUMENT):
        self.optimizer_g.zero_grad()
        preds = self.net_g(self.lq)
        preds = preds if isinstance(preds, list) else [preds]
        self.output = preds[-1]
        loss_dict = OrderedDict(l_pix=sum(self.cri_pix(pred, self.gt) for pred in preds))
        loss_dict['l_pix'].backward()
        self.optimizer_g.step()
        self.log_dict = self.reduce_loss_dict(loss_dict)

    def test(self):
        if hasattr(self, 'net_g_ema'):
            with torch.no_grad():
                self.output = self.net_g_ema(self.lq)
        else:
            self.net_g.eval()
            with torch.no_grad():
                self.output = self.net_g(self.lq)
            self.net_g.train()

    def score(self, dataloader, current_iter):
        scores = []
        for data in dataloader:
            self.feed_data(data, is_val=True)
            self.test()
            scores.append(calculate_psnr(self.output, self.gt))
        get_root_logger().info(f'Validation {current_iter} psnr: {sum(scores) / len(scores):.4f}')
        return scores

    VALIDATION

    def save(self, epoch, current_iter):
        if hasattr(self, 'net_g_ema'):
            self.save_network([self.net_g, self.net_g_ema], 'net_g', current_iter, param_key=['params', 'params_ema'])
        else:
            self.save_network(self.net_g, 'net_g', current_iter)
        self.save_training_state(epoch, current_iter)
''',
    'basicsr/metrics/__init__.py': '''
def calculate_psnr(img, img2):
    return -10 * float((img - img2).square().mean().log10())
''',
    'basicsr/data/__init__.py': _SCAN.format(suffix='_dataset', package='basicsr.data') + '''

def create_dataset(opt):
    return _find(opt['type'])(opt)


def create_dataloader(dataset, opt):
    from torch.utils.data import DataLoader
    if opt['phase'] == 'train':
        return DataLoader(dataset, opt['batch_size_per_gpu'], num_workers=opt['num_worker_per_gpu'], drop_last=TruePERSISTENT)
    return DataLoader(dataset, 1)
''',
    'basicsr/data/paired_image_dataset.py': '''
import os
import numpy as np
import torch
from PIL import Image
from torch.utils import data


class DATASET(data.Dataset):

    def __init__(self, opt):
        self.opt, self.names = opt, sorted(os.listdir(opt['dataroot_gt'])) * 8

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        size = self.opt.get('gt_size')
        item = {}
        for key in ('lq', 'gt'):
            image = np.asarray(Image.open(os.path.join(self.opt['dataroot_' + key], self.names[index])).convert('RGB'))
            item[key] = torch.from_numpy(image[:size, :size].transpose(2, 0, 1).copy()).float() / 255
        return item
''',
    'basicsr/utils/__init__.py': '''
import logging


def MASTER_ONLY(function):
    return function


def get_root_logger(log_file=None):
    logger = logging.getLogger('basicsr')
    if log_file is not None:
        logging.basicConfig(level=logging.INFO, handlers=[logging.FileHandler(log_file), logging.StreamHandler()])
    return logger


def get_env_info():
    VERSION
    return 'Version Information'
''',
    'basicsr/train.py': '''
import argparse, os
import torch
import yaml
from basicsr.data import create_dataloader, create_dataset
from basicsr.models import create_model
from basicsr.utils import get_env_info, get_root_logger


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('-opt', required=True)
    opt = yaml.safe_load(open(parser.parse_args().opt))
    opt.update(is_train=True, dist=False, rank=0, world_size=1)
    root = os.path.join('experiments', opt['name'])
    opt['path'].update(models=os.path.join(root, 'models'), training_states=os.path.join(root, 'training_states'))
    try:
        states = os.listdir(opt['path']['training_states'])
    except OSError:
        states = []
    resume_state = None
    if len(states) > 0:
        last = max(int(name[:-6]) for name in states)
        device_id = torch.cuda.current_device()
        resume_state = torch.load(os.path.join(opt['path']['training_states'], f'{last}.state'),
                                  map_location=lambda storage, loc: storage.cuda(device_id))
        opt['path']['pretrain_network_g'] = os.path.join(opt['path']['models'], f'net_g_{last}.pth')
    for folder in ('models', 'training_states'):
        os.makedirs(opt['path'][folder], exist_ok=True)
    logger = get_root_logger(os.path.join(root, 'train.log'))
    logger.info(get_env_info())
    torch.manual_seed(opt['manual_seed'])
    for phase, dataset_opt in opt['datasets'].items():
        dataset_opt['phase'] = phase
    train_loader, val_loader = (create_dataloader(create_dataset(opt['datasets'][phase]), opt['datasets'][phase])
                                for phase in ('train', 'val'))
    model = create_model(opt)
    epoch, current_iter = 0, 0
    if resume_state:
        logger.info(f"Resuming training from epoch: {resume_state['epoch']}, iter: {resume_state['iter']}.")
        model.resume_training(resume_state)
        current_iter = resume_state['iter']
    while current_iter < opt['train']['total_iter']:
        for train_data in train_loader:
            current_iter += 1
            if current_iter > opt['train']['total_iter']:
                break
            model.FEED(train_data)
            model.optimize_parameters(current_iterTB)
            message = ' '.join(f'{name}: {value:.4e}' for name, value in model.get_current_log().items())
            logger.info(f'[iter: {current_iter}] {message}')
            if current_iter % opt['logger']['save_checkpoint_freq'] == 0:
                model.save(epoch, current_iter)
            if current_iter % opt['val']['val_freq'] == 0:
                model.validation(val_loader, current_iter, None, False, rgb2bgr=True, use_image=False)
    model.save(epoch=-1, current_iter=-1)


if __name__ == '__main__':
    main()
''',
    'VERSION': '1.2.0\n',
}
_IN_A_GROUP = '''def dist_validation(self, dataloader, current_iter, tb_logger, save_img, rgb2bgr, use_image):
        scores = torch.tensor(self.score(dataloader, current_iter))
        torch.distributed.reduce(scores, dst=0)
        torch.distributed.barrier()

    def nondist_validation(self, *args, **kwargs):
        get_root_logger().warning('nondist_validation is not implemented. Run dist_validation.')
        self.dist_validation(*args, **kwargs)'''
_AVERAGING = """self.ema_decay = train_opt.get('ema_decay', 0)
        if self.ema_decay > 0:
            self.net_g_ema = define_network(deepcopy(self.opt['network_g'])).to(self.device)
            self.model_ema(0)
            self.net_g_ema.eval()"""
_MODEL_EMA = """def model_ema(self, decay=0.999):
        net_g_params = dict(self.get_bare_model(self.net_g).named_parameters())
        for k, v in self.net_g_ema.named_parameters():
            v.data.mul_(decay).add_(net_g_params[k].data, alpha=1 - decay)"""
_ALONE = '''def nondist_validation(self, dataloader, current_iter, tb_logger, save_img, rgb2bgr, use_image):
        self.score(dataloader, current_iter)'''


def write_fork(root: Path, kind: str) -> Path:
    """A stand-in for the fork of that name."""
    clean = kind == 'Restormer'
    for name, text in _FILES.items():
        for word, meant in {
            'KIND': kind, 'HOST': 'ImageCleanModel' if clean else 'ImageRestorationModel',
            'AVERAGING': _AVERAGING if clean else 'pass', 'MODEL_EMA': _MODEL_EMA if clean else '',
            'EINOPS': 'from einops import rearrange' if clean else '', 
            'PERSISTENT': ', persistent_workers=True' * (kind == 'NAFNet'),
            'VERSION': 'from basicsr.version import __version__' if kind == 'HINet' else '',
            'VALIDATION': _IN_A_GROUP if kind == 'NAFNet' else _ALONE,
            'DATASET': 'Dataset_PairedImage' if clean else 'PairedImageDataset',
            'FEED': 'feed_train_data' if clean else 'feed_data', 'ARGUMENT': ', tb_logger' * (kind == 'NAFNet'),
            'current_iterTB': 'current_iter, None' if kind == 'NAFNet' else 'current_iter',
        }.items():
            text = text.replace(word, meant)
        if clean and name.endswith('image_restoration_model.py'):
            text = text.replace('    def feed_data(', '    def feed_train_data(self, data):\n        self.feed_data(data)\n\n'
                                '    def feed_data(')
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root
