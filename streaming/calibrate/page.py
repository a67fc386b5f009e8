"""Draw the page that shows how good a calibration is.

`verdict` puts into sentences what an operator should look at. `picture` draws the sentences, slices of the
mean volume and of the temporal SNR, and curves of motion and drift as one PNG. `page` puts that picture and a
table of the figures into an HTML file that needs no other file.
"""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rtdecode.disk.calibration import Record
from rtdecode.signal.volume.projection import Projection, Reals
from rtdecode.types import Array
from streaming.calibrate.region import nearest
from streaming.calibrate.warmup import Aligned, Warmup, mean_of
from streaming.sinks.text import ALERT, FAINT, INK, PAPER, font

Colour = tuple[int, int, int]

# Layout: pixels, except for the number of slices in a row and in all.
_WIDTH = 1320
_PAD = 14
_HEAD = 30
_ACROSS = 6
_SLICES = 12
_CURVE_HEIGHT = 170
_RULE = (52, 55, 62)
_REGION = (64, 224, 208)
_LINES: tuple[Colour, ...] = ((102, 178, 255), (255, 176, 64), (126, 217, 140))
# Colours of the temporal SNR, from low to high.
_HOT = np.array([(0, 0, 0), (120, 20, 60), (230, 90, 30), (255, 190, 60), (255, 255, 220)], np.float64)
# Limits beyond which the verdict has a remark: framewise displacement (mm), temporal SNR, number of
# volumes, and correlation with the earlier head.
_MUCH_MOTION = 0.5
_LOW_TSNR = 30.0
_RELIABLE_VOLUMES = 20
_WEAK = 0.97


def verdict(record: Record) -> list[str]:
    """Return what an operator should know, one sentence per line; the first says whether all is well."""
    figures = record.figures
    remarks = []
    if record.volumes < _RELIABLE_VOLUMES:
        remarks.append(
            f"rests on {record.volumes} volumes: scale and drift are unreliable below {_RELIABLE_VOLUMES} "
            "volumes"
        )
    if figures.unaligned:
        remarks.append(f"{figures.unaligned} volumes could not be aligned and were left out")
    if figures.max_fd_mm is None:
        remarks.append("too few slices to follow the head: motion is not corrected")
    elif figures.max_fd_mm > _MUCH_MOTION:
        remarks.append(f"the head moved by up to {figures.max_fd_mm:.2f} mm from one volume to the next")
    if figures.tsnr_region is not None and figures.tsnr_region < _LOW_TSNR:
        remarks.append(f"temporal SNR of the region is {figures.tsnr_region:.0f}, low for fMRI")
    if record.placement is not None and record.placement.correlation < _WEAK:
        remarks.append(f"the earlier head was found with a correlation of {record.placement.correlation:.2f}")
    if figures.outside:
        remarks.append(
            f"{figures.outside} voxels of the region lay outside the volumes and take the nearest value "
            "inside"
        )
    head = f"{len(remarks)} remark{'' if len(remarks) == 1 else 's'}" if remarks else "nothing to report"
    counted = f"{record.volumes} volumes, {record.features} features: {head}"
    return [counted, *(f"  {remark}" for remark in remarks)]


def picture(record: Record, aligned: Aligned, projection: Projection, warmup: Warmup) -> bytes:
    """Draw verdict, slices and curves as one PNG."""
    mask = _region(aligned, projection)
    mean = aligned.reference
    brain = aligned.brain
    # Percentiles set the brightest shade, so that a few bright voxels do not darken the rest.
    top = float(np.percentile(mean[brain], 99)) if brain.any() else float(mean.max())
    best = float(np.percentile(aligned.tsnr[brain], 98)) if brain.any() else 1.0
    upright = [_upright(part, aligned.affine) for part in (mean, aligned.tsnr, mask, brain)]
    (volume, size, axis), tsnr, region, head = upright[0], *(part[0] for part in upright[1:])
    chosen = _slices(head, region, axis)
    grey = np.linspace([0, 0, 0], [255, 255, 255], 256)
    hot = _ramp(_HOT)
    words = "mean of the aligned volumes, region outlined"
    level = np.array([mean_of(volume, brain) for volume in aligned.volumes])
    panels = [
        _title(record),
        _mosaic(words, volume, region, chosen, axis, size, top, grey),
        _mosaic(f"temporal SNR, black 0 to white {best:.0f}", tsnr, region, chosen, axis, size, best, hot),
        *_motion(aligned),
        _drift(aligned, warmup, level),
    ]
    return _png(_stacked(panels))


def page(record: Record, picture: bytes) -> bytes:
    """Return one HTML page with the picture inside it, and the figures as a table."""
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in _rows(record))
    remarks = "".join(f"<p>{escape(sentence.strip())}</p>" for sentence in verdict(record))
    source = base64.b64encode(picture).decode()
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>calibration</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><style>'
        "body{background:#181a1e;color:#e2e4e8;font:15px sans-serif;max-width:1320px;margin:24px auto;"
        "padding:0 12px}td{overflow-wrap:anywhere}"
        "th{text-align:left;font-weight:normal;color:#8c929c;padding-right:24px}img{max-width:100%}"
        f"</style><h1>Calibration</h1>{remarks}<table>{rows}</table>"
        f'<img alt="mean volume with the region, temporal SNR, motion, drift" '
        f'src="data:image/png;base64,{source}"></html>\n'
    ).encode()


def _rows(record: Record) -> list[tuple[str, str]]:
    figures = record.figures
    placement = record.placement
    size = np.linalg.norm(np.array(record.affine)[:3, :3], axis=0)
    place = "not looked for"
    if placement is not None:
        place = (
            f"{placement.moved_mm:.1f} mm and {placement.turned_deg:.1f} degrees from there, "
            f"correlation {placement.correlation:.3f}"
        )
    return [
        ("made", f"{record.made_at}, rtdecode {record.version}"),
        (
            "volumes",
            f"{record.volumes} of series {record.series}, {record.dropped} dropped before the steady state",
        ),
        ("grid", f"{_times(record.shape)} voxels of {_times([f'{s:.3g}' for s in size])} mm"),
        ("TR", "unknown" if record.tr_s is None else f"{record.tr_s:g} s"),
        ("features", f"{record.features} from a {record.origin} ({record.origin_digest})"),
        ("earlier head", place),
        ("framewise displacement", f"mean {_or(figures.mean_fd_mm)} mm, most {_or(figures.max_fd_mm)} mm"),
        ("temporal SNR", f"region {_or(figures.tsnr_region, 0)}, brain {_or(figures.tsnr_brain, 0)}"),
        ("drift", f"{_or(figures.drift_percent)} % a minute"),
        ("region in the brain", f"{100 * figures.region_in_brain:.0f} %"),
        ("voxels outside", str(figures.outside)),
    ]


def _times(parts: Sequence[Any]) -> str:
    return " x ".join(str(part) for part in parts)


def _or(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _region(aligned: Aligned, projection: Projection) -> NDArray[np.bool_]:
    """Mark the region's voxels on the reference's grid."""
    out = np.zeros(aligned.reference.shape, bool)
    index, in_volume = nearest(np.linalg.inv(aligned.affine), projection.points_mm, out.shape)
    out[tuple(index[:, in_volume])] = True
    return out


def _upright(data: Array, affine: Reals) -> tuple[NDArray[Any], NDArray[np.float64], int]:
    """Turn a volume's axes towards right, front and top; return it, its voxel size and its slices' axis."""
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(data, np.float32), affine))
    size = np.array(image.header.get_zooms()[:3], np.float64)
    # Slices run along the axis whose voxels are clearly the longest. Where none are, they are axial.
    longest = int(np.argmax(size))
    axis = longest if size[longest] > 1.05 * np.delete(size, longest).max() else 2
    return np.asarray(image.dataobj), size, axis


def _slices(head: NDArray[Any], region: NDArray[Any], axis: int) -> list[int]:
    """Choose slices that are spread evenly over head and region."""
    other_axes = tuple(a for a in range(3) if a != axis)
    occupied = np.flatnonzero((head > 0.5).any(axis=other_axes) | (region > 0.5).any(axis=other_axes))
    if not occupied.size:
        occupied = np.arange(head.shape[axis])
    count = min(_SLICES, occupied[-1] - occupied[0] + 1)
    return [int(n) for n in np.linspace(occupied[0], occupied[-1], count).round()]


def _mosaic(
    words: str,
    data: NDArray[Any],
    region: NDArray[Any],
    chosen: list[int],
    axis: int,
    size: NDArray[np.float64],
    top: float,
    colours: NDArray[np.float64],
) -> Image.Image:
    a, b = [other for other in range(3) if other != axis]
    wide = (_WIDTH - 2 * _PAD) // _ACROSS - 4
    high = max(1, round(wide * data.shape[b] * size[b] / (data.shape[a] * size[a])))
    rows = -(-len(chosen) // _ACROSS)
    panel = Image.new("RGB", (_WIDTH, _HEAD + rows * (high + 4)), PAPER)
    draw = ImageDraw.Draw(panel)
    draw.text((_PAD, _HEAD // 2), words, fill=INK, font=font(15), anchor="lm")
    sides = (("L", "R"), ("P", "A"))
    for n, number in enumerate(chosen):
        # Rows run downwards on a picture and upwards in the head.
        plane, outline = (np.take(part, number, axis).T[::-1] for part in (data, region))
        cell = _cell(plane / max(top, 1e-9), outline > 0.5, (wide, high), colours)
        corner = (_PAD + n % _ACROSS * (wide + 4), _HEAD + n // _ACROSS * (high + 4))
        panel.paste(cell, corner)
        for x, word in zip((corner[0] + 5, corner[0] + wide - 12), sides[a], strict=True):
            draw.text((x, corner[1] + high // 2), word, fill=FAINT, font=font(12), anchor="lm")
    return panel


def _cell(
    plane: NDArray[Any], in_region: NDArray[np.bool_], size: tuple[int, int], colours: NDArray[np.float64]
) -> Image.Image:
    # Grey levels are interpolated; the mask is not, and its outline is one pixel of the page wide.
    shade = np.nan_to_num(np.clip(plane, 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(colours[shade].round().astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    mask = np.asarray(Image.fromarray(in_region.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0
    edge = mask.copy()
    edge[1:-1, 1:-1] &= ~(mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:])
    pixels = np.array(image)
    # This colour stands out against grey and against warm colours alike.
    pixels[edge] = _REGION
    return Image.fromarray(pixels)


def _ramp(stops: NDArray[np.float64]) -> NDArray[np.float64]:
    positions = np.linspace(0, len(stops) - 1, 256)
    return np.stack([np.interp(positions, np.arange(len(stops)), column) for column in stops.T], axis=1)


def _title(record: Record) -> Image.Image:
    lines = verdict(record)
    panel = Image.new("RGB", (_WIDTH, 24 + 20 * len(lines)), PAPER)
    draw = ImageDraw.Draw(panel)
    for n, text in enumerate(lines):
        draw.text(
            (_PAD, 20 + 20 * n), text, fill=ALERT if n else INK, font=font(16 if n == 0 else 14), anchor="lm"
        )
    return panel


def _motion(aligned: Aligned) -> list[Image.Image]:
    if aligned.motions is None:
        return []
    indices = [v.index for v in aligned.volumes]
    parameters = np.array([m.parameters for m in aligned.motions])
    shifts = parameters[:, :3]
    turns = np.degrees(parameters[:, 3:])
    moved = np.array([[m.fd_mm] for m in aligned.motions])
    return [
        _curves("head position, mm", indices, shifts, ("right", "front", "top"), 0.1),
        _curves("head rotation, degrees", indices, turns, ("about x", "about y", "about z"), 0.1),
        _curves("framewise displacement, mm", indices, moved, ("",), 0.1),
    ]


def _drift(aligned: Aligned, warmup: Warmup, level: NDArray[np.float64]) -> Image.Image:
    indices = [v.index for v in aligned.volumes]
    region = warmup.features.mean(axis=1, dtype=np.float64)
    both = np.stack(
        [
            100 * (signal / max(abs(signal.mean()), 1e-9) - np.sign(signal.mean()))
            for signal in (region, level)
        ],
        1,
    )
    return _curves("signal, percent from its mean", indices, both, ("region", "brain"), 0.2)


def _curves(
    title: str, indices: Sequence[int], values: NDArray[np.float64], names: Sequence[str], least: float
) -> Image.Image:
    """Draw curves, (volume, curve), against the volumes' indices; the value axis spans at least `least`."""
    panel = Image.new("RGB", (_WIDTH, _HEAD + _CURVE_HEIGHT + 30), PAPER)
    draw = ImageDraw.Draw(panel)
    draw.text((_PAD, _HEAD // 2), title, fill=INK, font=font(15), anchor="lm")
    ticks = _ticks(float(values.min()), float(values.max()), least)
    axis_x = _PAD + 60
    right = _WIDTH - _PAD
    top = _HEAD + 4
    span = max(1, indices[-1] - indices[0])

    def place(n: int, value: float) -> tuple[float, float]:
        down = (ticks[-1] - value) / (ticks[-1] - ticks[0])
        return axis_x + (right - axis_x) * (n - indices[0]) / span, top + _CURVE_HEIGHT * down

    for value in ticks:
        y = place(indices[0], value)[1]
        draw.line((axis_x, y, right, y), fill=_RULE)
        draw.text((axis_x - 8, y), f"{value:.6g}", fill=FAINT, font=font(12), anchor="rm")
    for n in range(indices[0], indices[-1] + 1, max(1, round(_step(span / 8)))):
        x = place(n, ticks[0])[0]
        draw.text((x, top + _CURVE_HEIGHT + 8), str(n), fill=FAINT, font=font(12), anchor="mt")
    for column, (name, colour) in enumerate(zip(names, _LINES, strict=False)):
        points = [place(n, float(v)) for n, v in zip(indices, values[:, column], strict=True)]
        draw.line(points, fill=colour, width=2, joint="curve")
        draw.text((axis_x + 260 + 110 * column, _HEAD // 2), name, fill=colour, font=font(14), anchor="lm")
    return panel


def _ticks(low: float, high: float, least: float) -> list[float]:
    """Choose about five round numbers that span a range and zero."""
    low = min(low, 0.0)
    high = max(high, 0.0)
    high += max(0.0, least - (high - low))
    step = _step((high - low) / 4)
    return [round(step * n, 10) for n in range(int(np.floor(low / step)), int(np.ceil(high / step)) + 1)]


def _step(rough: float) -> float:
    """Return the next larger number among 1, 2 and 5 times a power of ten."""
    # The tolerance lets a number that is already round stay, whatever its last bit.
    power = 10.0 ** np.floor(np.log10(rough))
    return float(next(power * n for n in (1, 2, 5, 10) if power * n >= rough * 0.999))


def _stacked(panels: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (_WIDTH, sum(panel.size[1] for panel in panels) + _PAD), PAPER)
    top = 0
    for panel in panels:
        sheet.paste(panel, (0, top))
        top += panel.size[1]
    return sheet


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
