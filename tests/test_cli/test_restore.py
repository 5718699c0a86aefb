"""What ``restore`` refuses before any work, where videos, which take long, come before photos."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from stochastic_refine.cli import main
from stochastic_refine.inference import videos


@pytest.mark.parametrize(('others', 'output', 'words'), [
    (['gone.jpg'], 'out', 'gone.jpg does not exist'),
    (['old.avi'], 'out', 'old.avi is neither a video (.mp4, .mov, .mkv) nor a photo (.jpg'),
    (['a.png'], 'sharp.mp4', 'sharp.mp4 is a file for videos and photos'),
    (['--recursive'], 'out', '--recursive means nothing to the video'),
])
def test_what_is_wrong_is_told_before_videos_are_restored(others, output, words, tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / 'clip.mp4').touch()
    (tmp_path / 'old.avi').touch()
    Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(videos, 'restore_videos', lambda *_, **__: pytest.fail('restored before all was checked'))
    assert main(['restore', 'clip.mp4', *others, '-o', output]) == 2
    assert words in capsys.readouterr().err
