"""Turn the frames of an Enhanced MR file into volumes, whatever order and attributes a vendor writes.

Of the frames, one echo of the magnitude is kept. Each gets the place of its slice by its position, and its
volume by the dimensions; then the pixels are decoded and scaled frame by frame. Attributes are read as the
DICOM standard has them, PS3.3 C.7.6.16 (functional groups, a frame's own before those of all frames) and
C.7.6.17 (dimensions). Nothing rests on the order of the frames.
"""

import struct
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming.sources.formats.elements import Encoding, items, values
from streaming.sources.formats.fields import (
    elapsed,
    integer,
    moment,
    named_by_echo,
    numbers,
    repetition_s,
    text,
)
from streaming.sources.formats.header import (
    PER_FRAME,
    SHARED,
    Header,
    counters_of,
    date_time,
    number_of,
    started,
)
from streaming.sources.formats.image import Counters, Image, NotAVolumeError, Plane, compact
from streaming.sources.formats.mosaic import stack_affine
from streaming.sources.formats.pixels import decoded

POSITION = 0x00200032
ORIENTATION = 0x00200037
SPACING = 0x00280030
COMPONENT = 0x00089208
FRAME_TYPE = 0x00089007
B_VALUE = 0x00189087
DIRECTION = 0x00189075
UNIT = 0x00281054
IMAGE_TYPE_TEXT = 0x00211175
_THICKNESS = 0x00180050
_GAP = 0x00180088
_TR = 0x00180080
_ECHO = 0x00189082
_SLOPE = 0x00281053
_INTERCEPT = 0x00281052
_REAL_SLOPE = 0x00409225
_REAL_INTERCEPT = 0x00409224
_PHILIPS_SCALE = 0x2005100E
_ACQUIRED = 0x00189074
TIME_INDEX = 0x00209128
_DIMENSIONS = 0x00209157
# What is wanted from each functional group, by the tag of its sequence.
_GROUP_TAGS = {
    0x00189112: frozenset({_TR}),
    0x00189114: frozenset({_ECHO}),
    0x00189117: frozenset({B_VALUE, DIRECTION}),
    0x00189226: frozenset({FRAME_TYPE, COMPONENT}),
    0x00209111: frozenset({_ACQUIRED, TIME_INDEX, _DIMENSIONS}),
    0x00209113: frozenset({POSITION}),
    0x00209116: frozenset({ORIENTATION}),
    0x00289110: frozenset({SPACING, _THICKNESS, _GAP}),
    0x00289145: frozenset({_SLOPE, _INTERCEPT, UNIT}),
    0x00409096: frozenset({_REAL_SLOPE, _REAL_INTERCEPT}),
    0x2005140F: frozenset({_PHILIPS_SCALE}),
    0x002111FE: frozenset({IMAGE_TYPE_TEXT}),
}
# Dimensions that count slices rather than volumes: position, place in the stack, stack, slice location.
_SPATIAL = {POSITION, 0x00209057, 0x00209056, 0x00201041}
_ECHO_POINTERS = {_ECHO, 0x00180086}
# Of several echoes, the one nearest to this is kept, where BOLD contrast is best at 3 T, ms.
_BEST_ECHO = 30.0
# Most frames that are believed.
_FRAMES_MOST = 1 << 17

# Frames of one volume lie within one TR; beyond this many the dimensions are held against the times.
_SPREAD_TR = 1.5

Frame = dict[int, bytes]
Key = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Frames:
    """The attributes of each frame of a file, still encoded."""

    attributes: list[Frame]
    encoding: Encoding

    def texts(self, tag: int) -> list[str]:
        """Return an attribute of every frame as text; empty where a frame has none."""
        return [frame.get(tag, b"").decode("latin-1").strip("\0 ") for frame in self.attributes]

    def decimals(self, tag: int, count: int) -> NDArray[np.float64] | None:
        """Return an attribute of every frame, (frames, count); None unless all have `count` numbers."""
        # Frames often share a value, so each distinct one is parsed once.
        parsed: dict[bytes, list[float]] = {}
        for raw in {frame.get(tag, b"") for frame in self.attributes}:
            parts = raw.decode("latin-1").strip("\0 ").split("\\")
            parsed[raw] = [float(part) for part in parts if part.strip()]
        rows = [parsed[frame.get(tag, b"")] for frame in self.attributes]
        return np.array(rows, float) if all(len(row) == count for row in rows) else None

    def packed(self, tag: int, kind: str) -> list[tuple[float, ...]]:
        """Return a binary attribute of every frame as numbers of one `struct` format."""
        size = struct.calcsize(kind)
        return [
            struct.unpack(f"{self.encoding.order}{len(raw) // size}{kind}", raw[: len(raw) // size * size])
            for raw in (frame.get(tag, b"") for frame in self.attributes)
        ]


def read_frames(header: Header) -> Frames:
    """Read the attributes of all frames: each frame's own, else those that all share.

    Raises
    ------
    NotAVolumeError
        If there are not as many frames as the header says.
    """
    body = header.body
    encoding = header.encoding
    shared: Frame = {}
    if SHARED in header.top:
        item = next(items(body, header.top[SHARED], encoding), None)
        shared = values(body, *item, encoding, _GROUP_TAGS) if item else {}
    frame_count = int(header.ds.get("NumberOfFrames") or 1)
    frames = []
    if PER_FRAME in header.top:
        # Damaged bytes may hold millions of empty items.
        for start, stop in islice(items(body, header.top[PER_FRAME], encoding), _FRAMES_MOST):
            frames.append(shared | values(body, start, stop, encoding, _GROUP_TAGS))
    elif frame_count == 1:
        frames = [shared]
    if len(frames) != frame_count or not 0 < frame_count < _FRAMES_MOST:
        raise NotAVolumeError(
            "enhanced-frame-count-mismatch",
            "{expected_frames} frames, but attributes of {described_frames}: the header does not say "
            "where they lie",
            expected_frames=frame_count,
            described_frames=len(frames),
        )
    return Frames(frames, encoding)


def read_enhanced(header: Header, frames: Frames) -> list[Image] | Plane:
    """Make the volumes of an Enhanced MR file.

    Parameters
    ----------
    header : Header
        Header of the file.
    frames : Frames
        As `read_frames` gives them.

    Returns
    -------
    list of Image, or Plane
        Whole volumes in order, or the slice of a file that has only one.

    Raises
    ------
    NotAVolumeError
        If the frames are not evenly spaced slices of one stack.
    """
    indices, echo_ms = _one_echo(frames, _magnitudes(header, frames))
    # A scanner may write each echo to files of its own in one series: each echo is a run of its own.
    uid = named_by_echo(text(header.ds, "SeriesInstanceUID"), echo_ms)
    axes, positions, place = _places(header, frames, indices)
    groups = _volumes(header, frames, indices, place)
    # A volume that lacks a frame is left out and its number stays free, so that it becomes a hole.
    complete = {number: group for number, group in enumerate(groups) if len(group) == len(positions)}
    if not complete:
        raise NotAVolumeError(
            "enhanced-volume-incomplete",
            "{frames} frames at {slice_positions} places make no whole volume",
            frames=len(indices),
            slice_positions=len(positions),
        )
    starts = _starts(header, frames, list(complete.values()))
    stored = decoded(header)
    scales = _scales(header, frames)
    if len(frames.attributes) == 1:
        data = _rescaled(stored, scales, [0])[0]
        return _plane(header, frames, uid, data, axes, positions[0], starts[0])
    affine = stack_affine(axes, positions) if len(positions) > 1 else _flat_affine(frames, axes, positions[0])
    first = _first_counters(header, frames, groups)
    # Each of these files may be instance 1 of its own, so a greater time index says more than 1 does.
    first_number = number_of(first) or max((first.temporal or 1) - 1, 0)
    tr_s = _repetition_s(header, frames)
    series = integer(header.ds, "SeriesNumber") or 0
    # The time of a file of many volumes belongs to none of them.
    done = moment(header.ds, "Content") if len(groups) == 1 else None
    return [
        Image(
            data=compact(_rescaled(stored, scales, group).transpose(2, 1, 0)),
            affine=affine,
            number=first_number + number,
            series=series,
            uid=uid,
            tr_s=tr_s,
            acquired=start,
            recon_s=elapsed(start, done),
            counters=first if len(groups) == 1 else Counters(temporal=first_number + number + 1),
        )
        for (number, group), start in zip(complete.items(), starts, strict=True)
    ]


def _plane(
    header: Header,
    frames: Frames,
    uid: str,
    data: NDArray[Any],
    axes: NDArray[np.float64],
    position: NDArray[np.float64],
    start: datetime | None,
) -> Plane:
    ds = header.ds
    affine = _flat_affine(frames, axes, position)
    normal = np.cross(*axes)
    counters = replace(counters_of(ds), temporal=_first_time_index(frames))
    return Plane(
        data=compact(data.T),
        affine=affine,
        normal_mm=float(position @ normal / np.linalg.norm(normal)),
        uid=uid,
        series=integer(ds, "SeriesNumber") or 0,
        number=counters.temporal - 1 if counters.temporal else None,
        instance=counters.slice_instance,
        tr_s=_repetition_s(header, frames),
        acquired=start,
        recon_s=elapsed(start, moment(ds, "Content")),
        counters=counters,
    )


def _magnitudes(header: Header, frames: Frames) -> list[int]:
    """Return the frames of the magnitude, where there may be others beside them."""
    whole_file = text(header.ds, "ComplexImageComponent").upper()
    parts = [part.upper() or whole_file for part in frames.texts(COMPONENT)]
    indices = [index for index, part in enumerate(parts) if part in ("", "MAGNITUDE", "MIXED")]
    if not indices:
        raise NotAVolumeError(
            "enhanced-not-magnitude",
            "phase, real or imaginary parts, not a volume of a run",
        )
    if len(parts) % len(indices):
        raise NotAVolumeError(
            "enhanced-magnitude-count-mismatch",
            "{magnitude_frames} of {total_frames} frames are of the magnitude: no whole volumes",
            magnitude_frames=len(indices),
            total_frames=len(parts),
        )
    return indices


def _one_echo(frames: Frames, indices: list[int]) -> tuple[list[int], float]:
    """Return the frames of one echo, of several the one nearest to 30 ms, and its time, ms; 0 if not said."""
    echoes = [echo[0] if echo else 0.0 for echo in frames.packed(_ECHO, "d")]
    best = min((echoes[index] for index in indices), key=lambda echo: abs(echo - _BEST_ECHO))
    chosen = [index for index in indices if abs(echoes[index] - best) < 0.1]
    if len(indices) % len(chosen):
        raise NotAVolumeError(
            "enhanced-echo-count-mismatch",
            "{echo_frames} of {magnitude_frames} frames have one echo time: no whole volumes",
            echo_frames=len(chosen),
            magnitude_frames=len(indices),
        )
    return chosen, best


def _places(
    header: Header, frames: Frames, indices: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Return steps along the axes, the position of each slice, and the slice of each kept frame."""
    orientation = _everywhere(header, frames, ORIENTATION, 6, "ImageOrientationPatient")[indices]
    steps = _everywhere(header, frames, SPACING, 2, "PixelSpacing")[indices]
    position = _everywhere(header, frames, POSITION, 3, "ImagePositionPatient")[indices]
    along = orientation[0].reshape(2, 3)
    lengths = np.linalg.norm(along, axis=1, keepdims=True)
    if not (
        lengths.all() and steps.all() and all(np.isfinite(x).all() for x in (orientation, steps, position))
    ):
        raise NotAVolumeError(
            "enhanced-axes-degenerate",
            "axes of zero length, or not finite",
        )
    if np.abs(orientation - orientation[0]).max() > 1e-3 or np.abs(steps - steps[0]).max() > 1e-3:
        raise NotAVolumeError(
            "enhanced-orientation-mixed",
            "frames of several orientations or sizes: a localizer",
        )
    # Sort frames along the normal; a gap between neighbours begins the next slice.
    normal = np.cross(*(along / lengths))
    height = position @ normal
    order = np.argsort(height, kind="stable")
    gaps = np.concatenate([[0], np.diff(height[order]) > _same_place(height)])
    place = np.empty(len(indices), np.intp)
    place[order] = np.cumsum(gaps)
    first = order[np.searchsorted(np.cumsum(gaps), np.arange(place.max() + 1))]
    return along / lengths * steps[0][::-1, None], position[first], place


def _same_place(height: NDArray[np.float64]) -> float:
    """Return the distance up to which two frames show the same slice, mm: a fifth of the usual gap."""
    gaps = np.diff(np.unique(np.round(height, 3)))
    return 0.2 * float(np.median(gaps[gaps > 0.05])) if (gaps > 0.05).any() else 0.05


def _everywhere(header: Header, frames: Frames, tag: int, count: int, keyword: str) -> NDArray[np.float64]:
    per_frame = frames.decimals(tag, count)
    if per_frame is not None:
        return per_frame
    plain = numbers(header.ds, keyword)
    if len(plain) != count:
        raise NotAVolumeError(
            "enhanced-attribute-missing",
            "frames without {keyword}: the header does not say where they lie",
            keyword=keyword,
        )
    return np.tile(plain, (len(frames.attributes), 1))


def _volumes(header: Header, frames: Frames, selected: list[int], place: NDArray[np.intp]) -> list[list[int]]:
    """Return the frames of each volume in order of place; volumes in order of their dimensions."""
    # With one frame at each place there is one volume, and no time is needed to tell it from others.
    times = _times(header, frames, selected) if len(selected) > int(place.max()) + 1 else None
    keys = _believed(header, frames, selected, place, times)
    slots: dict[tuple[Key, int], dict[int, int]] = {}
    occurrences: dict[tuple[Key, int], int] = {}
    for nth in sorted(range(len(selected)), key=lambda nth: (keys[nth], _moment(times, nth), selected[nth])):
        # Frames of one key at one place are different volumes: the dimensions do not tell them apart.
        key = keys[nth]
        where = int(place[nth])
        again = occurrences.get((key, where), 0)
        occurrences[key, where] = again + 1
        slots.setdefault((key, again), {})[where] = selected[nth]
    groups = [[slot[where] for where in sorted(slot)] for _, slot in sorted(slots.items())]
    count = int(place.max()) + 1
    if len(groups) > 1 and all(len(group) == 1 for group in groups) and count > 1:
        # The dimensions number each frame separately, so each further frame at a place is a new volume.
        return _by_occurrence(selected, place, times)
    return groups


def _by_occurrence(
    selected: list[int], place: NDArray[np.intp], times: list[datetime] | None
) -> list[list[int]]:
    keys = _ranks(selected, place, times)
    volumes: list[dict[int, int]] = [{} for _ in range(1 + int(max(key[0] for key in keys)))]
    for nth, (rank,) in enumerate(keys):
        volumes[int(rank)][int(place[nth])] = selected[nth]
    return [[volume[where] for where in sorted(volume)] for volume in volumes]


def _ranks(selected: list[int], place: NDArray[np.intp], times: list[datetime] | None) -> list[Key]:
    """Return of each frame how many came before it at its place, in time or else in the file."""
    ranks: list[Key] = [(0.0,)] * len(selected)
    occurred: dict[int, int] = {}
    for nth in sorted(range(len(selected)), key=lambda nth: (_moment(times, nth), selected[nth])):
        rank = occurred.get(int(place[nth]), 0)
        occurred[int(place[nth])] = rank + 1
        ranks[nth] = (float(rank),)
    return ranks


def _believed(
    header: Header,
    frames: Frames,
    selected: list[int],
    place: NDArray[np.intp],
    times: list[datetime] | None,
) -> list[Key]:
    """Return what tells the volume of each kept frame: the statement that others support.

    The dimensions may be listed in another order than their values have. So where they contradict the
    TemporalPositionIndex, the positions (each occurs once in a volume) and the frames' times decide.

    Raises
    ------
    NotAVolumeError
        If two statements contradict each other, and no third decides.
    """
    dimensions, columns = _keys(header, frames, selected)
    indices = [index or (0.0,) for index in (frames.packed(TIME_INDEX, "I")[n] for n in selected)]
    if dimensions is None:
        return indices
    if len(set(dimensions)) == 1 and len(selected) == int(place.max()) + 1:
        return dimensions
    tr_s = _repetition_s(header, frames)
    if len(set(indices)) > 1 and _mixes(dimensions, indices):
        name = "TemporalPositionIndex"
        other = indices
        third = (_supports(times, dimensions, indices), _supports(times, indices, dimensions))
    elif times is not None and tr_s and _spread_s(dimensions, times) > _SPREAD_TR * tr_s:
        name = "FrameAcquisitionDateTime"
        other = _ranks(selected, place, times)
        # Temporal positions, if there are any, agree with the dimensions here.
        third = (len(set(indices)) > 1, False)
        if not _fits(other, place) or not _mixes(dimensions, other):
            return dimensions
    else:
        # Another column may be the one that counts the volumes, as the positions show.
        fits = [keys for keys in columns if _fits(keys, place)]
        return fits[0] if len(fits) == 1 and not _fits(dimensions, place) else dimensions
    support = _fits(dimensions, place) + third[0]
    opposed = _fits(other, place) + third[1]
    if support == opposed:
        raise NotAVolumeError(
            "enhanced-dimensions-contradict",
            "{one} and {other} put the frames into different volumes, and nothing else in the header decides "
            "between them",
            one="DimensionIndexValues",
            other=name,
        )
    return dimensions if support > opposed else other


def _supports(times: list[datetime] | None, keys: list[Key], other_keys: list[Key]) -> bool:
    """Return whether frames of one key lie far closer in time than those of another statement's keys."""
    return times is not None and _spread_s(keys, times) < _spread_s(other_keys, times) / 2


def _mixes(keys: list[Key], other_keys: list[Key]) -> bool:
    """Return whether frames of one key have several values of another statement."""
    return len(set(zip(keys, other_keys, strict=True))) > len(set(keys))


def _fits(keys: list[Key], place: NDArray[np.intp]) -> bool:
    """Return whether every key has one frame at each place."""
    pairs = set(zip(keys, place.tolist(), strict=True))
    return len(pairs) == len(keys) == len(set(keys)) * (int(place.max()) + 1)


def _spread_s(keys: list[Key], times: list[datetime]) -> float:
    """Return the longest time from the first to the last frame of one key, s."""
    ends: dict[Key, tuple[datetime, datetime]] = {}
    for key, moment_of in zip(keys, times, strict=True):
        first, last = ends.get(key, (moment_of, moment_of))
        ends[key] = min(first, moment_of), max(last, moment_of)
    return max((last - first).total_seconds() for first, last in ends.values())


def _times(header: Header, frames: Frames, selected: list[int]) -> list[datetime] | None:
    """Return the time of each kept frame; None unless all have one."""
    zone = text(header.ds, "TimezoneOffsetFromUTC")
    written = frames.texts(_ACQUIRED)
    parsed = {value: date_time(value, zone) for value in {written[n] for n in selected}}
    times = [start for start in (parsed[written[n]] for n in selected) if start is not None]
    return times if len(times) == len(selected) else None


def _moment(times: list[datetime] | None, nth: int) -> datetime:
    return datetime.min if times is None else times[nth]


def _keys(header: Header, frames: Frames, selected: list[int]) -> tuple[list[Key] | None, list[list[Key]]]:
    """Return the indices of each kept frame in the dimensions that are not spatial, and in each dimension.

    The first are None if there are no dimensions. The dimension listed last comes first, so that it varies
    slowest: all times of one label precede those of the next.
    """
    pointers = [
        int(item.get("DimensionIndexPointer") or 0) for item in header.ds.get("DimensionIndexSequence") or []
    ]
    indices = frames.packed(_DIMENSIONS, "I")
    if not pointers or any(len(index) != len(pointers) for index in indices):
        return None, []
    columns = [n for n, pointer in enumerate(pointers) if pointer not in _SPATIAL | _ECHO_POINTERS]
    by_column = [[(indices[frame][n],) for frame in selected] for n in range(len(pointers))]
    return [tuple(indices[frame][n] for n in reversed(columns)) for frame in selected], by_column


def _starts(header: Header, frames: Frames, groups: list[list[int]]) -> list[datetime | None]:
    """Return the start of each volume: that of its first frame, or the file's if it has one volume.

    If there are several volumes and their times do not rise, all are None.
    """
    zone = text(header.ds, "TimezoneOffsetFromUTC")
    times = [date_time(value, zone) for value in frames.texts(_ACQUIRED)]
    starts = [min((t for t in (times[n] for n in group) if t), default=None) for group in groups]
    if len(groups) == 1:
        return [starts[0] or started(header.ds)]
    dated = [start for start in starts if start is not None]
    rising = len(dated) == len(starts) and all(a < b for a, b in pairwise(dated))
    return starts if rising else [None] * len(groups)


def _first_counters(header: Header, frames: Frames, groups: list[list[int]]) -> Counters:
    """Return the counters of the file's first volume.

    The file's own InstanceNumber and AcquisitionNumber count volumes only where it holds one.
    """
    # A run may be split over several files (concatenation), each of which states its first frame.
    offset = int(header.ds.get("ConcatenationFrameOffsetNumber") or 0)
    if offset:
        return Counters(temporal=offset // max(len(group) for group in groups) + 1)
    temporal = _first_time_index(frames)
    if len(groups) == 1:
        return replace(counters_of(header.ds), temporal=temporal)
    return Counters(temporal=temporal)


def _first_time_index(frames: Frames) -> int | None:
    """Return the lowest TemporalPositionIndex of the frames; None if they have none, or only 0."""
    indices = (int(index[0]) for index in frames.packed(TIME_INDEX, "I") if index)
    return min(indices, default=0) or None


def _repetition_s(header: Header, frames: Frames) -> float | None:
    per_frame = frames.decimals(_TR, 1)
    return repetition_s(numbers(header.ds, "RepetitionTime") if per_frame is None else per_frame[0].tolist())


def _rescaled(
    stored: NDArray[Any], scales: tuple[NDArray[np.float64], NDArray[np.float64]], group: list[int]
) -> NDArray[Any]:
    """Return the rescaled values of some frames, or the stored ones if there is nothing to rescale."""
    # Indexing by a list copies the frames, so a group of all frames in order is taken as it is.
    chosen = stored if group == list(range(len(stored))) else stored[group]
    slope, intercept = (np.broadcast_to(scale, (len(stored), 1))[group] for scale in scales)
    if (slope == 1).all() and (intercept == 0).all():
        return chosen
    return (chosen * slope[:, :, None] + intercept[:, :, None]).astype(np.float32)


def _scales(header: Header, frames: Frames) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return slope and intercept of each frame (PS3.3 C.7.6.16.2.9), or of all.

    Philips' values are put on their own floating-point scale (Chenevert et al., Translational Oncology
    2014, equation 3), the only one that is comparable between series.
    """
    slope = frames.decimals(_SLOPE, 1)
    intercept = frames.decimals(_INTERCEPT, 1)
    if slope is None or intercept is None:
        plain = [
            (numbers(header.ds, f"Rescale{name}") or [n])[0]
            for n, name in ((1.0, "Slope"), (0.0, "Intercept"))
        ]
        slope, intercept = (np.array([[value]]) for value in plain)
    # Read zero as no scaling, as it would erase the image.
    slope[slope == 0] = 1.0
    if text(header.ds, "Manufacturer").upper().startswith("PHILIPS"):
        return _philips(frames, slope, intercept)
    return slope, intercept


def _philips(
    frames: Frames, slope: NDArray[np.float64], intercept: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    real = [slopes[0] if slopes else 0.0 for slopes in frames.packed(_REAL_SLOPE, "d")]
    if all(real):
        offset = [values[0] if values else 0.0 for values in frames.packed(_REAL_INTERCEPT, "d")]
        return np.array(real)[:, None], np.array(offset)[:, None]
    scale = np.array([factors[0] if factors else 0.0 for factors in frames.packed(_PHILIPS_SCALE, "f")])[
        :, None
    ]
    return (1 / scale, intercept / (slope * scale)) if scale.all() else (slope, intercept)


def _flat_affine(
    frames: Frames, axes: NDArray[np.float64], position: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the affine of one slice, whose spacing, else its thickness, is the step to the next."""
    candidates = (frames.decimals(tag, 1) for tag in (_GAP, _THICKNESS))
    spacing = next((float(per_frame[0, 0]) for per_frame in candidates if per_frame is not None), 1.0)
    normal = np.cross(*axes)
    return stack_affine(axes, np.array([position, position + spacing * normal / np.linalg.norm(normal)]))
