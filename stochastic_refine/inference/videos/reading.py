"""What a video holds, told before any work; its frames as arrays."""

from __future__ import annotations

import importlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError, words_of

SUFFIXES = ('.mp4', '.mov', '.mkv')
#: Seconds that a video may be shorter than its header says.
_TOLERANCE = 0.5
#: What frames carry that is not carried over, by FFmpeg's names.
_OF_FRAMES = {'MASTERING_DISPLAY_METADATA', 'CONTENT_LIGHT_LEVEL', 'DYNAMIC_HDR_PLUS', 'DOVI_METADATA', 'A53_CC'}
_BT709, _BT601 = 1, 5
_UNSPECIFIED = 2
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
        return space if space not in (0, _UNSPECIFIED) else _BT709 if self.height >= 720 else _BT601


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
    try:
        with av.open(os.fspath(path)) as container:
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
        raise _damaged(path, words_of(error)) from error


def is_cover(stream: Any) -> bool:
    """Whether a stream of pictures is a still beside sound or video: a cover, a thumbnail."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)


def inspect(path: Path) -> Video:
    """Decode a video once and tell what it holds, so that nothing is begun that cannot be ended.

    Raises:
        InputError: If it is damaged, cut short, encrypted, without frames, interlaced, of changing size or of an unknown codec.
    """
    times: list[tuple[int, int]] = []
    first, kinds = None, set()
    ends: dict[int, float] = {}
    packets: Counter[int] = Counter()
    with opened(path) as (container, stream):
        for packet in container.demux():
            if packet.is_corrupt:
                raise _damaged(path, 'a packet is broken')
            packets[packet.stream_index] += packet.size > 0
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                ends[packet.stream_index] = max(ends.get(packet.stream_index, 0.0), end)
            for frame in packet.decode() if packet.stream_index == stream.index else ():
                first = first or frame
                _check_frame(path, frame, first, len(times) + 1)
                kinds |= {entry.type.name for entry in frame.side_data}
                before = times[-1][0] + 1 if times else 0
                times.append((before if frame.pts is None else frame.pts, frame.duration or 0))
        if first is None:
            raise InputError(f'{path} has no frames; record or export it again.')
        _check_end(path, container, packets, ends)
        if any(after[0] <= before[0] for before, after in zip(times, times[1:])):
            raise _damaged(path, 'the times of its frames do not rise')
        colours = {key: int(getattr(first, key)) for key in ('colorspace', 'color_range', 'color_primaries', 'color_trc')}
        if first.format.name.startswith('yuvj'):
            colours['color_range'] = _FULL_RANGE
        parts = first.format.components
        return Video(path, first.width, first.height, tuple(times), stream.time_base, first.format.name,
                     stream.codec_context.codec.canonical_name, colours, _matrix(first), any(part.bits > 8 for part in parts),
                     len(parts) in (2, 4), tuple(sorted(kinds & _OF_FRAMES)))


def _check_frame(path: Path, frame: Any, first: Any, number: int) -> None:
    if frame.is_corrupt:
        raise _damaged(path, f'frame {number} is broken')
    if frame.interlaced_frame:
        raise InputError(f'{path} is interlaced, and a frame of two moments cannot be restored; deinterlace it first.')
    if (frame.width, frame.height) != (first.width, first.height):
        raise InputError(f'{path} changes its size from {first.width}x{first.height} to {frame.width}x{frame.height} at frame '
                         f'{number}; cut it there.')


def _check_end(path: Path, container: Any, packets: Mapping[int, int], ends: Mapping[int, float]) -> None:
    """Raise an InputError if a file holds less than it says: packets by the index of MP4 and MOV, else seconds."""
    start = max(container.start_time or 0, 0) / 1e6
    told = {None: (container.duration or 0) / 1e6}
    for stream in container.streams:
        if stream.type in ('video', 'audio') and not is_cover(stream):
            missing = len(stream.index_entries) - packets[stream.index] if 'mov' in container.format.name else 0
            if missing > 0:
                raise _damaged(path, f'{missing} packets of its {stream.type} are missing')
            tag = re.fullmatch(r'(\d+):(\d+):([\d.]+)', stream.metadata.get('DURATION', ''))
            if tag:
                told[stream.index] = 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
    for index, seconds in told.items():
        end = max(ends.values(), default=0.0) if index is None else ends.get(index, 0.0)
        if end - start < seconds - _TOLERANCE:
            raise _damaged(path, f'it says {seconds:.1f} s and ends after {end - start:.1f} s')


def frames(video: Video, start: int = 0) -> Iterator[NDArray[Any]]:
    """The frames from number ``start`` on, (H, W, 3) RGB of uint8, or uint16 of deep videos, as stored (not turned)."""
    with opened(video.path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number >= start:
                yield rgb(frame, video)


def rgb(frame: Any, video: Video) -> NDArray[Any]:
    """A frame as (H, W, 3) RGB."""
    depth = 'rgb48le' if video.deep else 'rgb24'
    full = video.colours['color_range'] == _FULL_RANGE or frame.format.is_rgb
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
    full = video.colours['color_range'] == _FULL_RANGE
    frame = frame.reformat(format=pix_fmt, dst_colorspace=video.space, src_color_range=2, dst_color_range=2 if full else 1,
                           interpolation=_exactly())
    for key, value in video.colours.items():
        setattr(frame, key, value)
    return frame


def _matrix(frame: Any) -> tuple[int, ...] | None:
    entry = next((entry for entry in frame.side_data if entry.type.name == 'DISPLAYMATRIX'), None)
    return None if entry is None else tuple(int(value) for value in np.frombuffer(bytes(entry), '<i4')[:9])


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f'{path} is damaged, cut short or encrypted ({why}); copy it again, or cut out what is whole.')
