"""Pictures of runs and evaluations on disk."""

from pathlib import Path

from PIL import Image

from rtdecode.disk import private

# Of 100. A sheet of clips is then a tenth as large as a PNG of it, and shows no edges of its own.
_QUALITY = 85
# From 0 (fast) to 6: runs are kept and shipped, so their pictures are small rather than quick to make.
_EFFORT = 6


def write(path: Path, picture: Image.Image) -> None:
    """Write a picture in the format that its name ends in.

    Parameters
    ----------
    path : Path
        ``.webp`` for frames of clips, ``.png`` for what is drawn with lines.
    picture : PIL.Image.Image
        Its colours become RGB.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    rgb = picture.convert("RGB")
    rgb.save(private.file(path), optimize=True, quality=_QUALITY, method=_EFFORT)
