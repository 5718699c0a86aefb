"""Validation shared by processes: each image once, and the figures of one process to the last bit."""

from __future__ import annotations

import shutil

import pytest
from conftest import for_test, write_yaml


@pytest.fixture
def command(refine_options, pairs, tmp_path):
    """BasicSR's test on three pairs, scoring the input and all results, which it saves."""
    data = tmp_path / 'pairs'
    shutil.copytree(pairs, data)
    for side in ('gt', 'lq'):
        (data / side / 'rocket.png').unlink()
    refine_options['datasets']['val'] = {
        'name': 'pairs', 'type': 'PairedImageDataset', 'dataroot_gt': str(data / 'gt'), 'dataroot_lq': str(data / 'lq'),
        'io_backend': {'type': 'disk'}}
    refine_options['val'].update(save_img=True, score_input=True)
    refine_options['val']['metrics']['ssim'] = {'type': 'calculate_ssim', 'crop_border': 0}
    return 'test', '-opt', str(write_yaml(tmp_path / 'test.yml', for_test(refine_options)))


def test_each_image_once_and_the_figures_of_one_process(ranks, command) -> None:
    """An odd number of images over two processes, the second of which has fewer."""
    alone, one = ranks(1, *command)
    assert one.codes == [0] and len(one.images[0]) == 3 * 4, one.errors  # input, initial and two operating points
    assert len(one.figures) == 4 * 2
    together, two = ranks(2, *command, '--launcher', 'pytorch')
    assert two.codes == [0, 0], two.errors
    assert two.figures == one.figures
    assert [len(images) for images in two.images] == [8, 4] and sorted(sum(two.images, [])) == sorted(one.images[0])
    saved = [{path.name: path.read_bytes() for path in folder.glob('results/**/*.png')} for folder in (alone, together)]
    assert saved[0] == saved[1] and len(saved[0]) == 3 * 4


def test_an_image_that_one_process_cannot_read_ends_all(ranks, command, tmp_path) -> None:
    """The second image is the second process's; the first would else wait for its scores."""
    (tmp_path / 'pairs' / 'lq' / 'chelsea.png').write_bytes(b'')
    _, two = ranks(2, *command, '--launcher', 'pytorch')
    assert two.codes[1] == 2 and two.codes[0] and not two.figures
    errors = [line for error in two.errors for line in error.splitlines() if line.startswith('Error: ')]
    assert len(errors) == 1 and 'chelsea.png' in errors[0]
