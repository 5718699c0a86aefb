"""Videos: times, turn, colours and sound as they were; the same frames however often it was stopped; bad files in words."""

from __future__ import annotations

import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import unet

from stochastic_refine import Deblurrer
from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.cli import main
from stochastic_refine.inference.videos import reading, restoring, writing

av = pytest.importorskip('av')
NET = {'type': 'PredictRefineNet', 'predictor': unet(global_skip=True), 'denoiser': unet(in_channels=6, noise_conditioned=True)}
#: Milliseconds: a variable frame rate.
TIMES = (0, 40, 100, 120, 200, 1000)
COLOURS = ('colorspace', 'color_range', 'color_primaries', 'color_trc')


def make_video(path: Path, times=TIMES, size=(48, 32), pix_fmt='yuv420p', sound='aac', codec='libx264', turned=90,
               colours=(1, 1, 1, 1)) -> Path:
    """A photo-like picture that slides, with a tone."""
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0)), size[::-1],
                                             mode='bicubic')[0].permute(1, 2, 0).clamp(0, 1).mul(255).byte().numpy()
    with av.open(str(path), 'w') as container:
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        for key, value in zip(COLOURS, colours):
            setattr(video.codec_context, key, value)
        if turned:
            video.set_display_rotation(turned)
        audio = container.add_stream(sound, rate=16000, layout='mono') if sound else None
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.roll(smooth, i, axis=1)).reformat(format=pix_fmt, dst_colorspace=1)
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for i in range(16 if audio else 0):
            tone = np.sin(np.arange(1024)[None] / 9)
            tone = tone.astype(np.float32) if sound == 'aac' else (tone * 9999).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(tone, format='fltp' if sound == 'aac' else 's16', layout='mono')
            samples.rate, samples.pts = 16000, 1024 * i
            container.mux(audio.encode(samples))
        if audio:
            container.mux(audio.encode())
    return path


def sound_of(path: Path) -> list[tuple[bytes, Fraction]]:
    with av.open(str(path)) as container:
        return [(bytes(packet), packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.pts is not None]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / 'tiny.safetensors'
    save_safetensors(path, build_arch(NET).state_dict(), {'network': NET, 'operating_points': {'vivid': {'steps': 2}}})
    return path


@pytest.fixture
def restore(weights: Path, tmp_path: Path):
    """A function that restores into the folder ``out`` and gives the exit code."""
    return lambda *inputs: main(['restore', *map(str, inputs), '-o', f"{tmp_path / 'out'}/", '-w', str(weights), '--seed', '3',
                                 '--device', 'cpu', '--precision', 'float32', '--no-keep-sharp'])


@pytest.mark.parametrize('suffix, options', [
    ('mp4', {}), ('mov', {'sound': 'pcm_s16le', 'turned': 0, 'colours': (9, 1, 9, 16), 'pix_fmt': 'yuv420p10le'}),
    ('mkv', {'codec': 'ffv1', 'pix_fmt': 'yuv444p', 'colours': (5, 2, 5, 6)}),
])
def test_all_but_the_pictures_stays(suffix, options, restore, weights, tmp_path) -> None:
    path = make_video(tmp_path / f'clip.{suffix}', **options)
    assert restore(path) == 0
    target = tmp_path / 'out' / path.name
    before, after = reading.inspect(path), reading.inspect(target)
    assert [time * before.time_base for time, _ in before.times] == [time * after.time_base for time, _ in after.times]
    assert [float(time * after.time_base * 1000) for time, _ in after.times] == [*TIMES]
    for what in ('width', 'height', 'matrix', 'colours', 'pix_fmt', 'codec'):
        assert getattr(before, what) == getattr(after, what), what
    assert before.colours == dict(zip(COLOURS, options.get('colours', (1, 1, 1, 1))))
    assert (before.matrix is not None) == (options.get('turned', 90) > 0)
    assert sound_of(path) == sound_of(target) != []
    assert [file.name for file in (tmp_path / 'out').iterdir()] == [path.name], 'frames are left'

    deblurrer, unit = Deblurrer.from_pretrained(weights, device='cpu', precision='float32'), 65535 if before.deep else 255
    for source, result in zip(reading.frames(before), reading.frames(after)):
        expected = deblurrer(source, seed=3).image  # the same seed for each
        # noise is the hardest for an encoder
        stored = reading.frame_of(np.rint(expected * unit).astype(source.dtype), before, before.pix_fmt)
        assert np.abs(reading.rgb(stored, before) / unit - result / unit).mean() < 0.04


def test_colours_go_there_and_back(tmp_path) -> None:
    """BT.709's own figures for red, in limited range; and another matrix, full range and 10 bits lose only rounding."""
    video = reading.inspect(make_video(tmp_path / 'a.mp4', sound=None))
    red = np.full((32, 48, 3), (255, 0, 0), np.uint8)
    planes = reading.frame_of(red, video, 'yuv444p').planes
    assert [bytes(plane)[0] for plane in planes] == [63, 102, 240]
    video = reading.inspect(make_video(tmp_path / 'b.mp4', sound=None, pix_fmt='yuv444p10le', colours=(9, 2, 9, 14)))
    pixels = np.random.default_rng(0).integers(0, 65536, (32, 48, 3)).astype(np.uint16)
    again = reading.rgb(reading.frame_of(pixels, video, 'yuv444p10le'), video)
    assert np.abs(again.astype(int) - pixels).max() < 65535 / 1023 * 5


@pytest.mark.parametrize('codec, size, expected', [
    ('hevc', (64, 96), 'hevc'), ('hevc', (48, 96), 'h264'), ('av1', (96, 32), 'h264'), ('vp9', (16, 16), 'vp9'),
    ('vp8', (96, 96), 'h264'),
])
def test_codecs_that_cannot_hold_so_small_a_picture_are_replaced(codec, size, expected, tmp_path) -> None:
    video = reading.inspect(make_video(tmp_path / 'a.mkv'))
    assert writing.codec_for(replace(video, codec=codec, width=size[0], height=size[1])) == expected


def test_a_stopped_run_goes_on_at_its_next_frame(restore, tmp_path, monkeypatch) -> None:
    path = make_video(tmp_path / 'clip.mkv')
    assert restore(path) == 0
    whole = [*reading.frames(reading.inspect(tmp_path / 'out' / 'clip.mkv'))]
    (tmp_path / 'out' / 'clip.mkv').unlink()
    write, written = restoring.write_photo, []

    def write_some(file, *args, **options) -> None:
        if len(written) == 2:
            written.append('stopped')
            raise KeyboardInterrupt
        write(file, *args, **options)
        written.append(file.name)

    monkeypatch.setattr(restoring, 'write_photo', write_some)
    assert restore(path) == 130 and not (tmp_path / 'out' / 'clip.mkv').exists()
    encode = writing.frame_of
    monkeypatch.setattr(writing, 'frame_of', _first(encode, 3))
    assert restore(path) == 130  # while the video is written
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['.clip.mkv.frames']
    monkeypatch.setattr(writing, 'frame_of', encode)
    assert restore(path) == 0
    assert written == ['000001.png', '000002.png', 'stopped', *(f'00000{i}.png' for i in (3, 4, 5, 6))]
    for one, other in zip(whole, reading.frames(reading.inspect(tmp_path / 'out' / 'clip.mkv')), strict=True):
        # a level here and there, as the network may round otherwise at other places in memory; frames differ by far more
        assert np.abs(one.astype(np.float64) - other).mean() < 1e-3 * np.iinfo(one.dtype).max
    assert restore(path) == 0 and len(written) == 7  # what is there is not restored again


def _first(function, count: int):
    """``function`` at its first calls, Ctrl-C thereafter."""
    left = [None] * count

    def call(*args, **options):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        return function(*args, **options)

    return call


def test_frames_restored_otherwise_are_not_mixed_in(restore, tmp_path, monkeypatch) -> None:
    path = make_video(tmp_path / 'clip.mkv', sound=None)
    write = restoring.write_photo
    monkeypatch.setattr(restoring, 'write_photo', _first(write, 2))
    assert restore(path) == 130
    monkeypatch.setattr(restoring, 'write_photo', write)
    numbers = []
    monkeypatch.setattr(restoring, 'frames', lambda video, start=0: numbers.append(start) or reading.frames(video, start))
    make_video(path, sound=None, times=(0, 40, 80))  # another video of that name
    assert restore(path) == 0 and numbers == [0]


def encrypt(path: Path) -> None:
    plain = path.rename(path.with_name(f'plain {path.name}'))
    cipher = {'encryption_scheme': 'cenc-aes-ctr', 'encryption_key': '5c' * 16, 'encryption_kid': 'a7' * 16}
    with av.open(str(plain)) as source, av.open(str(path), 'w', options=cipher) as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                output.mux(packet)


def interlace(path: Path) -> None:
    with av.open(str(path), 'w') as container:
        video = container.add_stream('libx264', rate=25, options={'x264-params': 'tff=1'})
        video.width, video.height, video.pix_fmt = 64, 64, 'yuv420p'
        video.codec_context.flags |= av.codec.context.Flags.interlaced_dct | av.codec.context.Flags.interlaced_me
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 60 * i, np.uint8)).reformat(format='yuv420p')
            frame.pts = i
            container.mux(video.encode(frame))
        container.mux(video.encode())


@pytest.mark.parametrize('name, make, words', [
    ('encrypted.mp4', encrypt, 'damaged, cut short or encrypted'),
    ('interlaced.mp4', interlace, 'is interlaced'),
    ('cut.mp4', lambda path: path.write_bytes(path.read_bytes()[:3000]), 'damaged, cut short or encrypted'),
    ('cut.mkv', lambda path: path.write_bytes(path.read_bytes()[:len(path.read_bytes()) // 2]), 'damaged, cut short'),
    ('empty.mov', lambda path: path.write_bytes(b''), 'damaged, cut short'),
    ('text.mp4', lambda path: path.write_text('no video'), 'damaged, cut short'),
])
def test_a_broken_video_is_left_out_and_others_go_on(name, make, words, restore, tmp_path, capsys) -> None:
    good, bad = make_video(tmp_path / 'good.mkv', sound=None), make_video(tmp_path / name)
    make(bad)
    assert restore(bad, good) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('Error: ')]
    assert len(errors) == 1 and name in errors[0] and words in errors[0]
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['good.mkv']


def test_sound_alone_no_av_and_no_encoder_are_told(restore, tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / 'sound.mp4'
    with av.open(str(path), 'w') as container:
        audio = container.add_stream('aac', rate=16000, layout='mono')
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format='fltp', layout='mono')
        samples.rate = 16000
        container.mux(audio.encode(samples))
        container.mux(audio.encode())
    assert restore(path) == 2 and 'has no video, only audio' in capsys.readouterr().err
    path = make_video(tmp_path / 'clip.mp4')
    monkeypatch.setitem(writing._ENCODERS, 'h264', ('none_such', {}))
    assert restore(path) == 2 and 'needs the encoder none_such' in capsys.readouterr().err
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, 'av', None)
    assert restore(path) == 2 and "pip install 'stochastic_refine[video]'" in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_what_a_container_cannot_hold_is_said_before_any_work(weights, tmp_path, monkeypatch, capsys) -> None:
    path = make_video(tmp_path / 'clip.mkv', codec='ffv1', sound='pcm_s16le')
    monkeypatch.setattr(restoring, '_restore', lambda *_: pytest.fail('restored for nothing'))
    command = ['restore', str(path), '-w', str(weights), '-o']
    assert main([*command, str(tmp_path / 'clip.mov')]) == 2
    assert 'name a result that ends in .mkv' in capsys.readouterr().err
    assert main([*command, str(path)]) == 2 and 'overwritten by its own result' in capsys.readouterr().err
    assert main([*command, str(tmp_path / 'out'), '--save', 'std']) == 2 and '--save means nothing' in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()].count('clip.mov') == 0


def test_frames_in_a_folder_have_the_noise_of_one_seed(restore, tmp_path) -> None:
    from PIL import Image
    (tmp_path / 'frames').mkdir()
    for number in (1, 2):
        Image.new('RGB', (24, 16), 'gray').save(tmp_path / 'frames' / f'{number}.png')
    assert restore(tmp_path / 'frames') == 0
    one, two = (np.asarray(Image.open(tmp_path / 'out' / f'{number}.png')) for number in (1, 2))
    assert (one == two).all() and one.std() > 0
