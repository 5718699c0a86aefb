"""A video like another one, with other pictures: same times, turn and colours, sound and subtitles copied packet by packet."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, words_of
from .reading import Video, frame_of, opened, require_av

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
    'dnxhd': ('dnxhd', {'profile': 'dnxhr_hqx'}),
}
#: Sides below which x265 fails or spoils memory and SVT-AV1 refuses.
_SMALLEST = {'hevc': 64, 'av1': 64}
#: For codecs that are not encoded any more, or not at this size: played everywhere.
_FALLBACK = 'h264'
#: What is copied as it is.
_COPIED = ('audio', 'subtitle')


def codec_for(video: Video) -> str:
    """FFmpeg's name of the codec that the result of a video is encoded by."""
    fits = min(video.width, video.height) >= _SMALLEST.get(video.codec, 0)
    return video.codec if video.codec in _ENCODERS and fits else _FALLBACK


def check_encodable(video: Video, target: Path) -> list[str]:
    """Begin such a video and throw it away; return what it will not keep, in words.

    Raises:
        InputError: If the encoder is missing, or the container of ``target`` cannot hold the sound.
    """
    with tempfile.TemporaryDirectory() as folder:
        deep = np.uint16 if video.deep else np.uint8
        blank = np.zeros((video.height, video.width, 3), deep)
        write_video(video, Path(folder) / f'trial{target.suffix}', iter([blank]), target, trial=True)
    lost = [name.lower().replace('_', ' ') for name in video.static]
    if video.alpha:
        lost.append('its transparency')
    if codec_for(video) != video.codec:
        lost.append(f'its codec {video.codec} ({codec_for(video)} instead)')
    if video.deep and not _format(video, _encoder(video, target)[0]).endswith(('10le', '12le', '16le')):
        lost.append('more than 8 bits a channel')
    with opened(video.path) as (container, stream):
        others = [other.type for other in container.streams if other is not stream
                  and (other.type not in _COPIED or other.type is None)]
        lost += [f'a further stream ({kind})' for kind in others]
    return lost


def write_video(video: Video, path: Path, pictures: Iterator[NDArray[Any]], target: Path, trial: bool = False) -> None:
    """Encode pictures, (H, W, 3) RGB of uint8 or uint16, at the times of a video's frames, beside its sound.

    Args:
        video: Whose times, turn, colours, sound, subtitles, chapters and texts are kept.
        path: The file to write.
        pictures: One for each frame.
        target: The name that the file will have, for messages.
        trial: Only begin, with the first picture.

    Raises:
        InputError: If the encoder is missing, or the container cannot hold a stream.
    """
    av = require_av()
    name, options = _encoder(video, target)
    with opened(video.path) as (source, stream):
        copied = [other for other in source.streams if other.type in _COPIED]
        try:
            flags = {} if path.suffix == '.mkv' else {'movflags': 'use_metadata_tags+faststart'}
            with av.open(str(path), 'w', container_options=flags) as output:
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
                for packet in source.demux():
                    if trial:
                        break
                    if packet.stream_index == stream.index and packet.pts is not None:
                        output.mux(_encoded(encoder, video, next(times, None)))
                    elif packet.stream_index in copies and packet.dts is not None:
                        packet.stream = copies[packet.stream_index]
                        output.mux(packet)
                for moment in times:
                    output.mux(_encoded(encoder, video, moment))
                output.mux(encoder.encode())
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, (OSError, InputError)) and not isinstance(error, av.error.InvalidDataError):
                raise
            sounds = ', '.join(other.name or other.type for other in copied)
            raise InputError(f'{target} cannot hold {video.codec} at {video.width}x{video.height}{" with " if sounds else ""}'
                             f'{sounds} ({words_of(error)}); name a result that ends in .mkv.') from error


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
    for key, value in video.colours.items():
        setattr(encoder.codec_context, key, value)
    if video.matrix:
        encoder.set_display_matrix(video.matrix)
    encoder.metadata.update({key: value for key, value in stream.metadata.items() if key not in ('encoder', 'DURATION')})
    encoder.disposition = stream.disposition
    return encoder


def _encoder(video: Video, target: Path) -> tuple[str, dict[str, str]]:
    av = require_av()
    name, options = _ENCODERS[codec_for(video)]
    try:
        av.codec.Codec(name, 'w')
    except ValueError as error:  # UnknownCodecError
        raise InputError(f'{target} needs the encoder {name}, which this PyAV was built without; install the av of PyPI, or '
                         'convert the video to H.264 first.') from error
    return name, options


def _format(video: Video, name: str) -> str:
    """The pixel format: the video's own where the encoder takes it, else one that keeps depth and chroma as far as it can."""
    import av
    formats = [fmt.name for fmt in av.codec.Codec(name, 'w').video_formats or []]
    own = video.pix_fmt.replace('yuva', 'yuv').replace('gbrap', 'gbrp')
    odd = video.width % 2 or video.height % 2
    wanted = [own, *(['yuv444p10le', 'yuv420p10le', 'yuv422p10le'] if video.deep else []), *(['yuv444p'] if odd else []),
              'yuv420p']
    return next((fmt for fmt in wanted if fmt in formats), formats[0] if formats else 'yuv420p')


