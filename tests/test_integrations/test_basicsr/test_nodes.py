"""Training over several machines, as torchrun starts it on each, here two of them on one machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import free_port, python_environment, write_yaml
from launched import iterations, read_log


def weights_after(folder: Path, options: dict, nodes: list[list[str]]) -> dict[str, torch.Tensor]:
    """Train in ``folder`` with one torchrun for each of ``nodes``, its arguments."""
    folder.mkdir()
    path = write_yaml(folder / 'options.yml', options)
    runs = []
    for number, arguments in enumerate(nodes):
        with (folder / f'output{number}').open('w') as output:
            runs.append(subprocess.Popen(
                [sys.executable, '-m', 'torch.distributed.run', *arguments, '-m', 'stochastic_refine.cli', 'train',
                 '-opt', str(path), '--launcher', 'pytorch'],
                cwd=folder, env=python_environment(), stdout=output, stderr=subprocess.STDOUT))
    try:
        codes = [run.wait(600) for run in runs]
    finally:
        for run in runs:
            run.kill()
    assert codes == [0] * len(nodes), (folder / 'output0').read_text()
    experiment = folder / 'experiments' / options['name']
    assert iterations(read_log(experiment)) == [1, 2]
    return torch.load(experiment / 'models' / 'net_g_latest.pth', weights_only=True)['params']


@pytest.mark.slow
def test_two_machines_train_as_two_processes_of_one(restoration_options, tmp_path) -> None:
    restoration_options['datasets']['train'].update(batch_size_per_gpu=1, dataset_enlarge_ratio=2)
    endpoint = f'--rdzv_endpoint=localhost:{free_port()}'
    two = weights_after(tmp_path / 'two', restoration_options,
                        [['--nnodes=2', f'--node_rank={node}', '--nproc_per_node=1', endpoint] for node in (0, 1)])
    one = weights_after(tmp_path / 'one', restoration_options, [['--nproc_per_node=2', f'--master_port={free_port()}']])
    assert two.keys() == one.keys() and all(torch.equal(two[name], one[name]) for name in two)
