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
from PIL import Image, features

from stochastic_refine import Deblurrer
from stochastic_refine.archs import build_arch
from stochastic_refine.checkpoints import save_safetensors
from stochastic_refine.cli import main
from stochastic_refine.errors import InputError
from stochastic_refine.inference.videos import reading, restoring, writing

av = pytest.importorskip('av')
NET = {'type': 'PredictRefineNet', 'predictor': unet(global_skip=True), 'denoiser': unet(in_channels=6, noise_conditioned=True)}
#: Milliseconds: a variable frame rate.
TIMES = (0, 40, 100, 120, 200, 1000)
COLOURS = ('colorspace', 'color_range', 'color_primaries', 'color_trc')


def make_video(path: Path, times=TIMES, size=(48, 32), pix_fmt='yuv420p', sound='aac', codec='libx264', turned=90,
               colours=(1, 1, 1, 1), sound_first=False, also=lambda container, video: None, **options) -> Path:
    """A photo-like picture that slides, with a tone; ``also`` adds what else there is."""
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(0)), size[::-1],
                                             mode='bicubic')[0].permute(1, 2, 0).clamp(0, 1).mul(255).byte().numpy()
    with av.open(str(path), 'w', **options) as container:
        audio = container.add_stream(sound, rate=16000, layout='mono') if sound and sound_first else None
        video = container.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        for key, value in zip(COLOURS, colours):
            setattr(video.codec_context, key, value)
        if turned:
            video.set_display_rotation(turned)
        audio = container.add_stream(sound, rate=16000, layout='mono') if sound and not sound_first else audio
        also(container, video)
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


def test_a_changed_video_is_not_ended(restore, tmp_path, monkeypatch, capsys) -> None:
    path = make_video(tmp_path / 'clip.mkv', sound=None)
    monkeypatch.setattr(restoring, 'frames', lambda video, start=0: iter([*reading.frames(video)] * 2))
    assert restore(path) == 2 and 'had 6 frames at first' in capsys.readouterr().err
    assert not (tmp_path / 'out' / 'clip.mkv').exists()


def test_a_kill_or_a_stopped_overwrite_leaves_nothing_for_good(restore, tmp_path, monkeypatch) -> None:
    path, out = make_video(tmp_path / 'clip.mkv', sound=None), tmp_path / 'out'
    write, places = restoring.write_video, []
    monkeypatch.setattr(restoring, 'write_video',
                        lambda video, file, *rest: places.append(file.parent) or write(video, file, *rest))
    assert restore(path) == 0 and places == [out / '.clip.mkv.frames']
    monkeypatch.setattr(restoring, 'write_photo', _first(restoring.write_photo, 1))
    assert restore(path, '--overwrite') == 130 and places[0].exists()
    assert restore(path) == 0 and [file.name for file in out.iterdir()] == ['clip.mkv']


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='this system has no full disk to write to')
def test_a_full_disk_is_no_fault_of_the_video_and_ends_all(restore, tmp_path, monkeypatch, capsys) -> None:
    path, full = make_video(tmp_path / 'clip.mkv', sound=None), tmp_path / 'full.mkv'
    full.symlink_to('/dev/full')
    video = reading.inspect(path)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/result.mkv'"):
        writing.write_video(video, full, reading.frames(video), tmp_path / 'result.mkv')
    write = restoring.write_video
    monkeypatch.setattr(restoring, 'write_video', lambda video, file, *rest: write(video, full, *rest))
    (tmp_path / 'bad.mkv').write_text('no video')
    assert restore(tmp_path / 'bad.mkv', path) == 2
    errors = capsys.readouterr().err
    assert 'bad.mkv is damaged' in errors and 'clip.mkv could not be written' in errors and 'clip.mkv is damaged' not in errors


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


def add_subtitles(container, codec: str) -> None:
    stream = container.add_stream(codec)
    stream.codec_context.subtitle_header = (b'[Script Info]\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\n'
                                            b'Style: Default,Arial,16\n[Events]\n')


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
    ('list.mp4', lambda path: path.write_text('ffconcat version 1.0\nfile good.mkv\n'), 'is no video'),
    ('photo.mp4', lambda path: Image.new('RGB', (64, 64)).save(path, 'JPEG'), 'is no video'),
    pytest.param('photo.mov', lambda path: Image.new('RGB', (64, 64)).save(path, 'AVIF'), 'is no video',
                 marks=pytest.mark.skipif(not features.check('avif'), reason='this Pillow writes no AVIF')),
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


def test_the_last_frames_are_read_whatever_stream_they_are_of(tmp_path) -> None:
    path = make_video(tmp_path / 'a.mp4', times=range(0, 800, 20), sound_first=True)
    video = reading.inspect(path)
    assert [time * video.time_base * 50 for time, _ in video.times] == [*range(40)]


@pytest.mark.parametrize('suffix', ['mkv', 'mp4'])
def test_a_video_may_begin_later(suffix, tmp_path) -> None:
    video = reading.inspect(make_video(tmp_path / f'a.{suffix}', times=range(5000, 5240, 40), sound=None))
    assert [float(time * video.time_base * 1000) for time, _ in video.times] == [*range(5000, 5240, 40)]


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows has no colons in names')
def test_a_colon_is_part_of_a_name(tmp_path, monkeypatch) -> None:
    video = reading.inspect(make_video(tmp_path / '12:30.mkv', sound=None))
    monkeypatch.chdir(tmp_path)
    assert reading.inspect(Path('12:30.mkv')).times == video.times
    writing.write_video(video, Path('12:31.mkv'), reading.frames(video), Path('12:31.mkv'))
    assert reading.inspect(tmp_path / '12:31.mkv').times == video.times


@pytest.mark.parametrize('name, also, lost', [
    ('chapters.mp4', lambda container, _: container.set_chapters([
        {'id': i, 'start': 50 * i, 'end': 50 * i + 50, 'time_base': Fraction(1, 1000), 'metadata': {'title': 'one'}}
        for i in range(2)]), []),
    ('timecode.mov', lambda _, video: video.metadata.update(timecode='01:00:00:00'), []),
    ('font.mkv', lambda container, _: container.add_attachment('a.ttf', 'application/x-truetype-font', b'0' * 9),
     ['a further stream (attachment)']),
])
def test_streams_of_data_are_kept_or_told(name, also, lost, tmp_path) -> None:
    path = make_video(tmp_path / name, also=also)
    video, target = reading.inspect(path), tmp_path / f'result {name}'
    assert writing.check_encodable(video, target) == lost
    writing.write_video(video, target, reading.frames(video), target)
    with av.open(str(path)) as before, av.open(str(target)) as after:
        assert len(before.chapters()) == len(after.chapters()) == 2 * (name == 'chapters.mp4')
        assert before.streams.video[0].metadata.get('timecode') == after.streams.video[0].metadata.get('timecode')


@pytest.mark.parametrize('stamps, expected', [
    ((None, None, None, None), [0, 40, 80, 120]), ((None, None, 0, 40), [0, 40, 80, 120]), ((None, 90, None), [50, 90, 130]),
    ((0, 40, None, 60, 900), [0, 40, 60, 80, 900]), ((0, 40, 40), None), ((100, 140, 0, 40), None),
])
def test_frames_without_times_of_their_own(stamps, expected, tmp_path) -> None:
    if expected:
        assert reading.times_of(tmp_path, stamps, Fraction(40)) == expected
    else:
        with pytest.raises(InputError, match='stand still or jump back; cut it there'):
            reading.times_of(tmp_path, stamps, Fraction(40))


def b_frames(container, video) -> None:
    video.codec_context.max_b_frames = 2


def at_25(container, video) -> None:
    video.time_base = video.codec_context.time_base = Fraction(1, 25)


@pytest.mark.parametrize('form, codec, also', [
    ('h264', 'libx264', at_25), ('avi', 'libx264', at_25), ('avi', 'mpeg4', b_frames),
])
def test_streams_that_know_no_times(form, codec, also, tmp_path) -> None:
    path = make_video(tmp_path / 'a.mp4', times=range(0, 480, 40), sound=None, turned=0, codec=codec, also=also, format=form)
    video = reading.inspect(path)
    times = [time * video.time_base for time, _ in video.times]
    assert [time - times[0] for time in times] == [Fraction(i, 25) for i in range(12)]
    writing.write_video(video, tmp_path / 'b.mp4', reading.frames(video), tmp_path / 'b.mp4')
    after = reading.inspect(tmp_path / 'b.mp4')
    assert [time * after.time_base for time, _ in after.times] == times


def test_a_clip_of_a_frame_or_two_in_hevc(tmp_path) -> None:
    video = reading.inspect(make_video(tmp_path / 'a.mp4', times=(0, 40), size=(64, 64)))
    for count in (1, 2, 1, 2, 1, 2):  # the fault comes and goes
        short = replace(video, codec='hevc', times=video.times[:count])
        spoiled = [bytearray(b'\xab' * 100000) for _ in range(500)]  # what memory holds that is not set
        del spoiled
        assert writing.check_encodable(short, tmp_path / 'b.mp4') == []
        writing.write_video(short, tmp_path / 'b.mp4', reading.frames(video), tmp_path / 'b.mp4')
        assert reading.inspect(tmp_path / 'b.mp4').times == short.times


@pytest.mark.parametrize('name, codec, pix_fmt, lost', [
    ('a.mp4', 'libx264rgb', 'rgb24', ['RGB (YUV instead)']), ('a.mov', 'qtrle', 'rgb24', ['its codec qtrle (h264 instead)',
                                                                                        'RGB (YUV instead)']),
    ('a.mkv', 'ffv1', 'bgr0', []),
])
def test_rgb_keeps_its_colours_in_full(name, codec, pix_fmt, lost, tmp_path) -> None:
    """As players see them, which go by the tag; stripes of red and green would be grey were colours halved."""
    stripes = np.zeros((32, 48, 3), np.uint8)
    stripes[:, ::2, 0] = stripes[:, 1::2, 1] = 220
    path = make_video(tmp_path / name, codec=codec, pix_fmt=pix_fmt, sound=None, colours=(2, 2, 2, 2))
    video, target = reading.inspect(path), tmp_path / f'result {name}'
    assert writing.check_encodable(video, target) == lost
    writing.write_video(video, target, iter([stripes] * 6), target)
    with av.open(str(target)) as container:
        shown = next(container.decode(video=0)).to_ndarray(format='rgb24', interpolation=reading._exactly())
    assert np.abs(shown.astype(int) - stripes).mean() < 4


@pytest.mark.parametrize('changes, lost', [
    ({'codec': 'mpeg4', 'time_base': Fraction(1, 90000)}, ['its codec mpeg4 (h264 instead)']), ({'codec': 'mpeg4'}, []),
    ({'codec': 'dnxhd', 'pix_fmt': 'yuv422p'}, []), ({'codec': 'dnxhd', 'pix_fmt': 'yuv422p10le', 'deep': True}, []),
    ({'codec': 'dnxhd', 'pix_fmt': 'yuv444p10le', 'deep': True}, []),
    ({'codec': 'dnxhd', 'width': 96}, ['its codec dnxhd (h264 instead)']),
    ({'codec': 'vp8', 'width': 255}, ['its codec vp8 (h264 instead)']),
    ({'codec': 'prores', 'pix_fmt': 'yuva444p12le', 'deep': True, 'alpha': True},
     ['its transparency', '12 bits a channel (10 instead)']),
    ({'codec': 'av1', 'pix_fmt': 'yuv444p'}, ['the full resolution of its colours']),
])
def test_what_an_encoder_cannot_take_is_replaced_and_told(changes, lost, tmp_path) -> None:
    video = reading.inspect(make_video(tmp_path / 'a.mov', size=(256, 128), times=(0, 40)))
    video = replace(video, **{'time_base': Fraction(1, 1000), **changes})
    assert writing.check_encodable(video, tmp_path / ('b.mp4' if video.codec == 'av1' else 'b.mov')) == lost


@pytest.mark.parametrize('subtitles, codec, suffix, words', [
    ('mov_text', 'h264', 'mkv', 'cannot hold mov_text subtitles (.*); name a result that ends in .mov'),
    ('subrip', 'h264', 'mp4', 'cannot hold (srt|subrip) subtitles (.*); name a result that ends in .mkv'),
    ('subrip', 'dnxhd', 'mov', 'cannot hold (srt|subrip) subtitles (.*); take that out of the video'),
    (None, 'dnxhd', 'mkv', 'cannot hold dnxhd at 256x128 (.*); name a result that ends in .mov'),
])
def test_the_remedy_for_what_a_container_cannot_hold_helps(subtitles, codec, suffix, words, tmp_path) -> None:
    path = make_video(tmp_path / ('a.mov' if subtitles == 'mov_text' else 'a.mkv'), size=(256, 128),
                      also=lambda container, _: subtitles and add_subtitles(container, subtitles))
    with pytest.raises(InputError, match=words):
        writing.check_encodable(replace(reading.inspect(path), codec=codec), tmp_path / f'b.{suffix}')


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
    (tmp_path / 'frames').mkdir()
    for number in (1, 2):
        Image.new('RGB', (24, 16), 'gray').save(tmp_path / 'frames' / f'{number}.png')
    assert restore(tmp_path / 'frames') == 0
    one, two = (np.asarray(Image.open(tmp_path / 'out' / f'{number}.png')) for number in (1, 2))
    assert (one == two).all() and one.std() > 0
