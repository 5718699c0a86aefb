"""What a video holds, told before any work; its frames as arrays."""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, words_of

SUFFIXES = ('.mp4', '.mov', '.mkv')
#: What a video's file may be, by FFmpeg's names, whatever its suffix: no photos, and no texts that name other files to read.
_FORMATS = ('mov', 'matroska', 'avi', 'mpegts', 'mpeg', 'mpegvideo', 'm4v', 'h264', 'hevc', 'vvc', 'av1', 'obu', 'ivf', 'flv',
            'ogg', 'asf', 'mxf', 'nut', 'dv', 'rm', 'wtv')
#: Photos in a container of videos.
_PHOTOS = {'avif', 'heic', 'heix', 'mif1'}
#: Seconds that a video may be shorter than its header says.
_TOLERANCE = 0.5
#: What frames carry that is not carried over, by FFmpeg's names.
_OF_FRAMES = {'MASTERING_DISPLAY_METADATA', 'CONTENT_LIGHT_LEVEL', 'DYNAMIC_HDR_PLUS', 'DOVI_METADATA', 'A53_CC'}
_BT709, _BT601 = 1, 5
_RGB, _UNSPECIFIED = 0, 2
#: Frames a second where a file says nothing of time.
_RATE = 25
_FULL_RANGE = 2


@dataclass(frozen=True)
class Video:
    """A video file whose every frame has been decoded once.

    Attributes:
        path: The file.
        width, height: Of a frame as stored, before it is turned.
        times: Each frame's time and duration, in units of ``time_base`` seconds; a duration may be 0, unknown.
        time_base: Of ``times``.
        pix_fmt: FFmpeg's name of how pixels are stored.
        codec: FFmpeg's name.
        colours: ``colorspace``, ``color_range``, ``color_primaries`` and ``color_trc`` as the numbers of H.273; 2 (range: 0) is
            unspecified.
        matrix: The display matrix, nine whole numbers, where frames are shown turned or mirrored.
        deep: Whether a channel has more than 8 bits.
        alpha: Whether frames are transparent.
        static: What else frames carry (HDR mastering, captions), by name.
    """

    path: Path
    width: int
    height: int
    times: tuple[tuple[int, int], ...]
    time_base: Fraction
    pix_fmt: str
    codec: str
    colours: dict[str, int]
    matrix: tuple[int, ...] | None
    deep: bool
    alpha: bool
    static: tuple[str, ...]

    @property
    def space(self) -> int:
        """The matrix between RGB and YUV; where the file does not say, what players take for its size."""
        space = self.colours['colorspace']
        return space if space not in (_RGB, _UNSPECIFIED) else _BT709 if self.height >= 720 else _BT601

    def tags(self, pix_fmt: str) -> dict[str, int]:
        """The colours that frames of that format say: those of the video, and where RGB became YUV, how."""
        if is_rgb(pix_fmt) or not is_rgb(self.pix_fmt) and self.colours['colorspace'] != _RGB:
            return self.colours
        return {**self.colours, 'colorspace': self.space}


def require_av() -> Any:
    """PyAV, imported.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return importlib.import_module('av')
    except ImportError as error:
        raise InputError(f'Videos need the package av, which cannot be imported ({error}); run: pip install '
                         "'stochastic_refine[video]', or restore a folder of frames.") from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container of a video and its first stream of pictures; what FFmpeg refuses becomes an InputError."""
    av = require_av()
    container = None
    try:
        # From the root, as FFmpeg takes what stands before a colon, as in 12:30.mp4, for a protocol.
        with av.open(os.path.abspath(path), options={'format_whitelist': ','.join(_FORMATS)}) as container:
            if container.metadata.get('major_brand') in _PHOTOS:
                raise _no_video(path)
            streams = [stream for stream in container.streams.video if not is_cover(stream)]
            if not streams:
                raise InputError(f'{path} has no video, only {", ".join(s.type for s in container.streams) or "nothing"}; give '
                                 'a file that has.')
            stream = streams[0]
            if stream.codec_context is None:
                raise InputError(f'{path} is encoded by a codec that this installation of PyAV cannot decode; convert it to '
                                 'H.264 first.')
            stream.thread_type = 'AUTO'
            yield container, stream
    except av.FFmpegError as error:
        if isinstance(error, OSError) and not path.is_file():
            raise InputError(f'Video {path} does not exist; check the path.') from error
        if isinstance(error, av.error.ArgumentError) and container is None:  # what is not on the list
            raise _no_video(path) from error
        raise damaged(path, words_of(error)) from error


def is_cover(stream: Any) -> bool:
    """Whether a stream of pictures is a still beside sound or video: a cover, a thumbnail."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def inspect(path: Path) -> Video:
    """Decode a video once and tell what it holds, so that nothing is begun that cannot be ended.

    Raises:
        InputError: If it is damaged, cut short, encrypted, without frames, interlaced, of changing size or of an unknown codec.
    """
    stamps: list[int | None] = []
    lengths: list[int] = []
    first, kinds = None, set()
    ends: dict[int, float] = {}
    packets: Counter[int] = Counter()
    with opened(path) as (container, stream):
        for packet in container.demux():
            if packet.is_corrupt:
                raise damaged(path, 'a packet is broken')
            index = packet.stream.index  # packet.stream_index is 0 for the empty packets that fetch the last frames
            packets[index] += packet.size > 0
            if packet.pts is not None:
                ends[index] = max(ends.get(index, 0.0), float((packet.pts + (packet.duration or 0)) * packet.time_base))
            for frame in packet.decode() if index == stream.index else ():
                first = first or frame
                stamps.append(frame.pts)
                lengths.append(frame.duration or 0)
                _check_frame(path, frame, first, len(stamps))
                kinds |= {entry.type.name for entry in frame.side_data}
        if first is None:
            raise InputError(f'{path} has no frames; record or export it again.')
        _check_end(path, container, packets, ends)
        step = 1 / (Fraction(stream.guessed_rate or stream.average_rate or _RATE) * stream.time_base)
        times = times_of(path, stamps, step, reorder=container.format.name == 'avi')
        if None in stamps:
            lengths = [round(step)] * len(times)
        colours = {key: int(getattr(first, key)) for key in ('colorspace', 'color_range', 'color_primaries', 'color_trc')}
        if first.format.name.startswith('yuvj'):
            colours['color_range'] = _FULL_RANGE
        parts = first.format.components
        return Video(path, first.width, first.height, tuple(zip(times, lengths)), stream.time_base, first.format.name,
                     stream.codec_context.codec.canonical_name, colours, _matrix(first), any(part.bits > 8 for part in parts),
                     len(parts) in (2, 4), tuple(sorted(kinds & _OF_FRAMES)))


def times_of(path: Path, stamps: Sequence[int | None], step: Fraction, reorder: bool = False) -> list[int]:
    """The times of frames in the order in which they are shown, which a file may tell wrongly or not at all.

    Args:
        path: For messages.
        stamps: What the file says of each frame; None if nothing.
        step: The duration of a frame.
        reorder: Whether the file knows the order of decoding alone, as AVI does, so that B-frames have each other's times.

    Raises:
        InputError: If times stand still or jump back.
    """
    known = next((number for number, stamp in enumerate(stamps) if stamp is not None), 0)
    start = max(Fraction(0), (stamps[known] or 0) - known * step) if known else Fraction(stamps[0] or 0)
    times: list[Fraction] = []  # exact, as a rate like 30000/1001 would drift by rounding
    for stamp in stamps:
        times.append(Fraction(stamp) if stamp is not None else times[-1] + step if times else start)
    whole = [round(time) for time in times]
    if reorder or None in stamps:
        whole.sort()
        if not _rises(whole):  # the times that there are do not fit between the others
            whole = [round(start + number * step) for number in range(len(stamps))]
    if not _rises(whole):
        raise InputError(f'{path} has frames whose times stand still or jump back; cut it there, or export it again at a '
                         'constant frame rate.')
    return whole


def _rises(times: Sequence[int]) -> bool:
    return all(after > before for before, after in zip(times, times[1:]))


def _check_frame(path: Path, frame: Any, first: Any, number: int) -> None:
    if frame.is_corrupt:
        raise damaged(path, f'frame {number} is broken')
    if frame.interlaced_frame:
        raise InputError(f'{path} is interlaced, and a frame of two moments cannot be restored; deinterlace it first.')
    if (frame.width, frame.height) != (first.width, first.height):
        raise InputError(f'{path} changes its size from {first.width}x{first.height} to {frame.width}x{frame.height} at frame '
                         f'{number}; cut it there.')


def _check_end(path: Path, container: Any, packets: Mapping[int, int], ends: Mapping[int, float]) -> None:
    """Raise an InputError if a file holds less than it says: packets by the index of MP4 and MOV, else seconds."""
    # Matroska's length is the time at which it ends, the others' the time from start to end.
    start = 0 if 'matroska' in container.format.name else max(container.start_time or 0, 0) / 1e6
    told = {None: (container.duration or 0) / 1e6}
    for stream in container.streams:
        if stream.type in ('video', 'audio') and not is_cover(stream):
            missing = len(stream.index_entries) - packets[stream.index] if 'mov' in container.format.name else 0
            if missing > 0:
                raise damaged(path, f'{missing} packets of its {stream.type} are missing')
            tag = re.fullmatch(r'(\d+):(\d+):([\d.]+)', stream.metadata.get('DURATION', ''))
            if tag:
                told[stream.index] = 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
    for index, seconds in told.items():
        end = max(ends.values(), default=0.0) if index is None else ends.get(index, 0.0)
        if end - start < seconds - _TOLERANCE:
            raise damaged(path, f'it says {seconds:.1f} s and ends after {end - start:.1f} s')


def frames(video: Video, start: int = 0) -> Iterator[NDArray[Any]]:
    """The frames from number ``start`` on, (H, W, 3) RGB of uint8, or uint16 of deep videos, as stored (not turned)."""
    with opened(video.path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number >= start:
                yield rgb(frame, video)


def rgb(frame: Any, video: Video) -> NDArray[Any]:
    """A frame as (H, W, 3) RGB."""
    depth = 'rgb48le' if video.deep else 'rgb24'
    full = video.colours['color_range'] == _FULL_RANGE or is_rgb(frame.format.name)
    converted = frame.reformat(format=depth, src_colorspace=video.space, src_color_range=2 if full else 1, dst_color_range=2,
                               interpolation=_exactly())
    return np.ascontiguousarray(converted.to_ndarray())


def _exactly() -> int:
    """swscale's flags: bicubic, with full chroma and exact rounding, so that going there and back keeps colours."""
    from av.video.reformatter import Interpolation
    return int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
               | Interpolation.FULL_CHR_H_INP)


def frame_of(pixels: NDArray[Any], video: Video, pix_fmt: str) -> Any:
    """A frame to encode from (H, W, 3) RGB of uint8 or uint16; the inverse of :func:`rgb`."""
    import av
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format='rgb48le' if pixels.dtype == np.uint16 else 'rgb24')
    full = video.colours['color_range'] == _FULL_RANGE or is_rgb(pix_fmt)
    frame = frame.reformat(format=pix_fmt, dst_colorspace=video.space, src_color_range=2, dst_color_range=2 if full else 1,
                           interpolation=_exactly())
    for key, value in video.tags(pix_fmt).items():
        setattr(frame, key, value)
    return frame


def is_rgb(pix_fmt: str) -> bool:
    """Whether a pixel is stored as red, green and blue, or as a number in a palette of them."""
    import av
    fmt = av.VideoFormat(pix_fmt)
    return bool(fmt.is_rgb or fmt.has_palette)


def _matrix(frame: Any) -> tuple[int, ...] | None:
    entry = next((entry for entry in frame.side_data if entry.type.name == 'DISPLAYMATRIX'), None)
    return None if entry is None else tuple(int(value) for value in np.frombuffer(bytes(entry), '<i4')[:9])


def damaged(path: Path, why: str) -> InputError:
    """A sentence for a file that cannot be decoded to its end."""
    return InputError(f'{path} is damaged, cut short or encrypted ({why}); copy it again, or cut out what is whole.')


def _no_video(path: Path) -> InputError:
    return InputError(f'{path} is no video, whatever its name says, but a picture, a text, sound or something else; give a '
                      'video, or name a photo by its own suffix.')
