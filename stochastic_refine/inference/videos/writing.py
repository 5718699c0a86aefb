"""A video like another one, with other pictures: same times, turn and colours, sound and subtitles copied packet by packet."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, words_of
from .reading import SUFFIXES, Video, damaged, frame_of, is_rgb, opened, require_av

#: The encoder for each codec and its settings, so fine that what was restored stays.
_ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    'h264': ('libx264', {'crf': '15', 'preset': 'medium'}),
    'hevc': ('libx265', {'crf': '17', 'preset': 'medium', 'x265-params': 'log-level=error'}),
    'vp9': ('libvpx-vp9', {'crf': '20', 'b': '0'}),
    'av1': ('libsvtav1', {'crf': '18', 'preset': '6', 'svtav1-params': ''}),
    'prores': ('prores_ks', {'profile': '3'}),
    'mjpeg': ('mjpeg', {'q': '2'}),
    'ffv1': ('ffv1', {}),
    'mpeg4': ('mpeg4', {'q': '2'}),
    'dnxhd': ('dnxhd', {}),
}
#: Widths and heights below which x265 fails or spoils memory and SVT-AV1 and DNxHR refuse.
_SMALLEST = {'hevc': (64, 64), 'av1': (64, 64), 'dnxhd': (256, 120)}
#: Ticks of a second that MPEG-4 can count.
_MPEG4_TICKS = 65535
#: With fewer frames x265 gives packets with B-frames times that it never set.
_FEW_FRAMES = 8
#: For codecs that are not encoded any more, or not such a video: played everywhere.
_FALLBACK = 'h264'
#: What is copied as it is, and how it is called.
_COPIED = {'audio': 'sound', 'subtitle': 'subtitles'}


class _Unfit(Exception):
    """An encoder or a container refuses what it is given."""


def codec_for(video: Video) -> str:
    """FFmpeg's name of the codec that the result of a video is encoded by."""
    width, height = _SMALLEST.get(video.codec, (0, 0))
    fits = video.width >= width and video.height >= height
    if video.codec == 'mpeg4':
        fits = video.time_base.denominator <= _MPEG4_TICKS
    return video.codec if video.codec in _ENCODERS and fits else _FALLBACK


def check_encodable(video: Video, target: Path) -> list[str]:
    """Begin such a video and throw it away; return what it will not keep, in words.

    Raises:
        InputError: If the encoder is missing, or the container of ``target`` cannot hold the sound.
    """
    why = _trial(video, target, target.suffix)
    if why:
        raise _refusal(video, target, why)
    lost = [name.lower().replace('_', ' ') for name in video.static]
    if video.alpha:
        lost.append('its transparency')
    if codec_for(video) != video.codec:
        lost.append(f'its codec {video.codec} ({codec_for(video)} instead)')
    lost += _lost_of_pixels(video.pix_fmt, _format(video, _encoder(video, target)[0]))
    with opened(video.path) as (container, stream):
        for other in container.streams:
            chapters = other.type == 'data' and other.name == 'bin_data' and 0 < other.frames == len(container.chapters())
            timecode = other.metadata.get('timecode', '') == stream.metadata.get('timecode')
            if other is not stream and other.type not in _COPIED and not chapters and not timecode:
                lost.append(f'a further stream ({other.type})')
    return lost


def _trial(video: Video, target: Path, suffix: str, only: Collection[int] | None = None) -> str:
    """Begin a video with a black frame in a passing file; return why it cannot be, empty if it can."""
    blank = np.zeros((video.height, video.width, 3), np.uint16 if video.deep else np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _write(video, Path(folder) / f'trial{suffix}', iter([blank]), target, only, trial=True)
        except _Unfit as unfit:
            return str(unfit)
    return ''


def _refusal(video: Video, target: Path, why: str) -> InputError:
    """What a result cannot hold, found by leaving things out, and a remedy, found by trying."""
    with opened(video.path) as (source, _):
        copied = {other.index: f'{other.name or other.type} {_COPIED[other.type]}' for other in source.streams
                  if other.type in _COPIED}
    pictures = f'{codec_for(video)} at {video.width}x{video.height}'
    if _trial(video, target, target.suffix, only=()):
        what = [pictures]
        remedy = 'convert the video to H.264 of a usual size by another program first'
    else:
        alone = [words for index, words in copied.items() if _trial(video, target, target.suffix, only=[index])]
        what = alone or [pictures, *copied.values()]
        remedy = 'take that out of the video by another program first'
    others = (suffix for suffix in reversed(SUFFIXES) if suffix != target.suffix.lower())  # .mkv first, which holds most
    other = next((suffix for suffix in others if not _trial(video, target, suffix)), None)
    if other:
        remedy = f'name a result that ends in {other}'
    return InputError(f'{target} cannot hold {", ".join(dict.fromkeys(what))} ({why}); {remedy}.')


def write_video(video: Video, path: Path, pictures: Iterator[NDArray[Any]], target: Path) -> None:
    """Encode pictures, (H, W, 3) RGB of uint8 or uint16, at the times of a video's frames, beside its sound.

    Args:
        video: Whose times, turn, colours, sound, subtitles, chapters and texts are kept.
        path: The file to write.
        pictures: One for each frame.
        target: The name that the file will have, for messages.

    Raises:
        InputError: If the encoder is missing, or the container cannot hold a stream.
        OSError: If ``path`` cannot be written.
    """
    try:
        _write(video, path, pictures, target)
    except _Unfit as unfit:
        raise _refusal(video, target, str(unfit)) from unfit


def _write(video: Video, path: Path, pictures: Iterator[NDArray[Any]], target: Path, only: Collection[int] | None = None,
           trial: bool = False) -> None:
    """:func:`write_video` with the streams of these indices alone, or the first picture alone; raises :class:`_Unfit`."""
    av = require_av()
    name, options = _encoder(video, target, few=trial or len(video.times) < _FEW_FRAMES)
    with opened(video.path) as (source, stream):
        copied = [other for other in source.streams if other.type in _COPIED and (only is None or other.index in only)]
        try:
            flags = {} if path.suffix.lower() == '.mkv' else {'movflags': 'use_metadata_tags+faststart'}
            with av.open(os.path.abspath(path), 'w', container_options=flags) as output:
                output.metadata.update({key: value for key, value in source.metadata.items() if key != 'encoder'})
                if source.chapters():
                    output.set_chapters(source.chapters())
                encoder = _add_encoder(output, video, stream, name, options)
                copies = {other.index: output.add_stream_from_template(other) for other in copied}
                for other in copied:
                    copies[other.index].metadata.update(other.metadata)
                    copies[other.index].disposition = other.disposition
                output.start_encoding()
                times = zip(video.times[:1] if trial else video.times, pictures)
                for packet in () if trial else _packets(source, video.path):
                    index = packet.stream.index
                    if index == stream.index and packet.size:
                        output.mux(_encoded(encoder, video, next(times, None)))
                    elif index in copies and packet.dts is not None:
                        packet.stream = copies[index]
                        output.mux(packet)
                for moment in times:
                    output.mux(_encoded(encoder, video, moment))
                output.mux(encoder.encode())
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            if isinstance(error, OSError):  # not FFmpeg's class, which opened() would take for a fault of the source
                raise OSError(error.errno, error.strerror, str(path if trial else target)) from error
            raise _Unfit(words_of(error)) from error


def _packets(source: Any, path: Path) -> Iterator[Any]:
    """The packets of a source, whose faults are told from those of what is written meanwhile."""
    try:
        yield from source.demux()
    except require_av().FFmpegError as error:
        raise damaged(path, words_of(error)) from error


def _encoded(encoder: Any, video: Video, moment: tuple[tuple[int, int], NDArray[Any]] | None) -> Iterable[Any]:
    if moment is None:
        return []
    (time, duration), pixels = moment
    frame = frame_of(pixels, video, encoder.pix_fmt)
    frame.pts, frame.duration, frame.time_base = time, duration, video.time_base
    return encoder.encode(frame)


def _add_encoder(output: Any, video: Video, stream: Any, name: str, options: dict[str, str]) -> Any:
    encoder = output.add_stream(name, rate=stream.average_rate or stream.guessed_rate or 25, options=dict(options))
    encoder.width, encoder.height = video.width, video.height
    encoder.pix_fmt = _format(video, name)
    encoder.time_base = encoder.codec_context.time_base = video.time_base
    if stream.sample_aspect_ratio:
        encoder.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio
    for key, value in video.tags(encoder.pix_fmt).items():
        setattr(encoder.codec_context, key, value)
    if video.matrix:
        encoder.set_display_matrix(video.matrix)
    encoder.metadata.update({key: value for key, value in stream.metadata.items() if key not in ('encoder', 'DURATION')})
    encoder.disposition = stream.disposition
    return encoder


def _encoder(video: Video, target: Path, few: bool = False) -> tuple[str, dict[str, str]]:
    """The encoder's name and its settings; ``few`` if it gets hardly a frame."""
    av = require_av()
    name, options = _ENCODERS[codec_for(video)]
    try:
        av.codec.Codec(name, 'w')
    except ValueError as error:  # UnknownCodecError
        raise InputError(f'{target} needs the encoder {name}, which this PyAV was built without; install the av of PyPI, or '
                         'convert the video to H.264 first.') from error
    if name == 'libx265' and few:
        options = {**options, 'x265-params': f"{options['x265-params']}:bframes=0"}
    if name == 'dnxhd':
        pix_fmt = _format(video, name)
        options = {'profile': {'yuv422p': 'dnxhr_hq', 'yuv422p10le': 'dnxhr_hqx'}.get(pix_fmt, 'dnxhr_444')}
    return name, options


def _format(video: Video, name: str) -> str:
    """The pixel format: the video's own where the encoder takes it, else one that keeps depth and chroma as far as it can."""
    import av
    formats = [fmt.name for fmt in av.codec.Codec(name, 'w').video_formats or []]
    own = video.pix_fmt.replace('yuva', 'yuv').replace('gbrap', 'gbrp')
    odd = bool(video.width % 2 or video.height % 2)
    wide, high = (False, False) if odd else _subsampled(own)
    chroma = ('420', '422', '444') if wide and high else ('422', '444', '420') if wide else ('444', '422', '420')
    wanted = [f'yuv{kind}p{depth}' for depth in (('10le', '') if video.deep else ('',)) for kind in chroma]
    if not odd or codec_for(video) == video.codec:  # not every encoder halves an odd side
        wanted.insert(0, own)
    return next((fmt for fmt in wanted if fmt in formats), formats[0] if formats else 'yuv420p')


def _subsampled(pix_fmt: str) -> tuple[bool, bool]:
    """Whether colour is stored coarser than brightness from left to right and from top to bottom; grey has none to lose."""
    import av
    fmt = av.VideoFormat(pix_fmt)
    grey = len(fmt.components) < 3 and not is_rgb(pix_fmt)
    return grey or fmt.chroma_width(64) < 64, grey or fmt.chroma_height(64) < 64


def _lost_of_pixels(before: str, after: str) -> list[str]:
    """What pixels lose from one format to another, in words."""
    import av
    lost = ['RGB (YUV instead)'] if is_rgb(before) and not is_rgb(after) else []
    if any(now and not then for then, now in zip(_subsampled(before), _subsampled(after))):
        lost.append('the full resolution of its colours')
    bits, left = (max(part.bits for part in av.VideoFormat(fmt).components) for fmt in (before, after))
    return lost + ([f'{bits} bits a channel ({left} instead)'] if left < bits else [])
