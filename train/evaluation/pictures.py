"""Pictures of a run: curves, and sheets of frames. Each function returns an image in memory."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rtdecode.bundle import Manifest
from rtdecode.disk.clip_file import Pixels
from train.data.clip_grid import shown_frames

# Frames that are wider than this are made smaller on a contact sheet, px.
_WIDEST = 240
# Frames that a sheet of samples shows of each clip.
_OF_EACH = 5
# Windows that the sheet of an evaluation shows, and where in each its frames lie, as shares of its length.
_WINDOWS = 12
_WITHIN = (1 / 8, 1 / 2, 7 / 8)


def curves(table: dict[str, list[float]], axis: str, chance: float) -> Image.Image:
    """Draw accuracies against the first column of a table.

    Parameters
    ----------
    table : dict
        The first entry is the abscissa, the others are curves.
    axis : str
        Label of the abscissa.
    chance : float
        Chance level, drawn as a dashed line.
    """
    (_, x), *lines = table.items()
    figure = Figure(figsize=(6, 3.6), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    for name, y in lines:
        axes.plot(x, y, marker="o", label=name)
    axes.axhline(chance, linestyle="--", color="grey", label="chance")
    axes.set(xlabel=axis, ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="upper right", ncols=3)
    return _image(figure)


def _image(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def over_clip(frames: int) -> list[int]:
    """Choose frames of a clip of so many for a sheet of samples: the first, the last, and some between."""
    return np.linspace(0, frames - 1, min(_OF_EACH, frames)).round().astype(int).tolist()


def rows(clips: Sequence[Pixels], frames: Sequence[int]) -> Image.Image:
    """Lay chosen frames of clips side by side, one row for each clip.

    Parameters
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        One for each row of the picture.
    frames : sequence of int
        Numbers of the frames that are shown of each clip.
    """
    sheet = np.concatenate([np.concatenate([clip[f] for f in frames], axis=1) for clip in clips])
    return Image.fromarray(np.asarray(sheet, np.uint8))


def sheet(first: Mapping[str, Sequence[Pixels]], manifest: Manifest, words: str) -> Image.Image:
    """Draw some windows of an evaluation, from all over its first session.

    Parameters
    ----------
    first : mapping
        Heading -> a clip for each window (`train.evaluation.section_runner.SectionScores.first`).
    manifest : Manifest
        Says how many frames are shown, and how many steps were taken.
    words : str
        What was evaluated.
    """
    steps = f"{manifest.steps} step{'s' if manifest.steps > 1 else ''}"
    return session_sheet(first, shown_frames(manifest), f"{words}, {steps}")


def session_sheet(clips: Mapping[str, Sequence[Pixels]], frames: int, title: str) -> Image.Image:
    """Lay several versions of some windows side by side, from all over a session.

    Parameters
    ----------
    clips : mapping
        Heading -> a clip for each window of the session.
    frames : int
        Number of frames of a clip that are shown; three of them are drawn.
    title : str
        What is written above the picture.
    """
    count = min(len(version) for version in clips.values())
    rows = np.linspace(0, count - 1, min(_WINDOWS, count)).astype(int)
    picked = {name: [version[row] for row in rows] for name, version in clips.items()}
    return contact_sheet(picked, [round(share * (frames - 1)) for share in _WITHIN], title)


def contact_sheet(
    clips: Mapping[str, Sequence[Pixels]], frames: Sequence[int], title: str, scale: float = 1.5
) -> Image.Image:
    """Lay several versions of the same windows side by side, one row for each window, with headings.

    Parameters
    ----------
    clips : mapping
        Heading -> clips, each uint8 (frame, row, column, 3).
    frames : sequence of int
        Numbers of the frames that are shown of each clip.
    title : str
        What is written above the picture.
    scale : float
        Enlargement; less where a frame would be wider than 240 pixels.
    """
    gap = 6
    top = 44
    versions = list(clips.values())
    height, width = versions[0][0].shape[1:3]
    scale = min(scale, _WIDEST / width)
    tall = round(height * scale)
    wide = round(width * len(frames) * scale)
    size = (len(versions) * (wide + gap) - gap, top + len(versions[0]) * (tall + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 3), title, fill="black", font=ImageFont.load_default(15))
    for column, (name, version) in enumerate(clips.items()):
        left_px = column * (wide + gap)
        draw.text((left_px + 4, 23), name, fill="black", font=ImageFont.load_default(15))
        for row, clip in enumerate(version):
            strip = np.concatenate([clip[frame] for frame in frames], axis=1)
            picture = Image.fromarray(strip).resize((wide, tall), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left_px, top + row * (tall + gap)))
    return sheet


def strips(maps: Mapping[str, NDArray[np.floating]], starts: Mapping[str, float]) -> Image.Image:
    """Draw maps over places as strips below each other, each from its smallest to its largest value.

    Parameters
    ----------
    maps : mapping
        Heading -> values, (place,).
    starts : mapping
        Name of a region -> the place where it begins.
    """
    values = np.stack([(strip - strip.min()) / (np.ptp(strip) or 1) for strip in maps.values()])
    height = 1 + 0.3 * len(values)
    figure = Figure(figsize=(9, height), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    axes.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
    axes.set(xlabel="patch, in the order of voxels")
    axes.set_yticks(range(len(values)), list(maps))
    regions = axes.secondary_xaxis("top")
    regions.set_xticks([start - 0.5 for start in starts.values()], list(starts), rotation=45, ha="left")
    return _image(figure)
