"""Targets on disk, in files that go by the content of what they were computed from.

`compute` goes through the titles of a data set (windows that showed the same are one title), some of them at
a time, and writes a file for each lot. The file's name is a digest of the lot's clips or captions, of the
files of the model, and of the options. So whatever was computed before is found again, and only what has
changed is computed anew. An index, written last, names the files that belong together. `read` reads them.
Where there are several targets, each is computed of one title first, so that a model that cannot be used is
refused before another one has computed for hours.

::

    OUT/NAME/index.json     the titles, the names of the files in order, the model, the options
    OUT/NAME/DIGEST.npz     values (title, ...) of one lot, and for tokens their counts (title,)
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rtdecode import strict_json
from rtdecode.disk import private
from rtdecode.errors import UsageError
from train.config import disk_space
from train.config.run_context import Arrays, progress, write_arrays
from train.data.dataset import DataSet
from train.data.shards import Shards
from train.weights.source import Source

Kind = Literal["clips", "sound", "captions", "frame_captions"]
_CAPTIONS: tuple[Kind, ...] = ("captions", "frame_captions")
# How numbers are stored. numpy has no bfloat16; its 16 bits are stored as whole numbers.
STORED = ("float16", "bfloat16")
# Part of every digest. It grows when the same inputs give other values.
_VERSION = 1
_INDEX = "index.json"
# Arrays beside the values, of targets that have them.
_FURTHER = ("deviations", "passages", "variants")
# Titles in a file: about a gigabyte of clips of 33 frames of 480 x 720 pixels.
LOT = 32
# A file's captions have one length, as rows of one array must. Longer captions are refused.
CAPTION_LETTERS = 512


@dataclass(frozen=True)
class Target:
    """Something that is computed from clips or from captions.

    Attributes
    ----------
    name : str
        Its folder in the cache.
    reads : str
        ``clips``: (title, frame, row, column, 3) uint8. ``sound``: (title, sample) float32 at 16 kHz.
        ``captions``: (title,) str. ``frame_captions``: (title, frame) str, of one frame where captions are of
        whole clips.
    source : Source
        The model's files.
    options : mapping
        Whatever else the values depend on, as JSON values.
    opened : callable
        Opens the model, and returns a function from what it reads to arrays whose first axis is the title:
        ``values`` (float32 or str), and others, which are stored as they are.
    check : callable, optional
        Called with the stored values of each lot in turn once all are computed, to refuse what is no use as a
        whole.
    """

    name: str
    reads: Kind
    source: Source
    options: Mapping[str, Any]
    opened: Callable[[], Callable[[NDArray[Any]], Arrays]]
    check: Callable[[Iterable[NDArray[Any]]], None] | None = None


@dataclass(frozen=True)
class Cached:
    """Targets that were computed.

    Attributes
    ----------
    shown : list of str
        Title of each row, as in `WindowTable.shown`.
    values : Shards
        (title, ...), as stored.
    counts : Shards or None
        (title,), the number of tokens that are no padding; None where values are not tokens.
    index : dict
        What the index says: ``stored``, ``options``, ``model``, ``layout``.
    deviations : Shards or None
        (title, ...), the standard deviations of values that are the mode of a distribution; None for others.
    passages : Shards or None
        (title,), the number of a caption's passages, where values are (title, passage, feature).
    variants : Shards or None
        (title, frame, variant, feature), frames or captions as they are and changed (`embeddings`).
    """

    shown: list[str]
    values: Shards
    counts: Shards | None
    index: dict[str, Any]
    deviations: Shards | None = None
    passages: Shards | None = None
    variants: Shards | None = None

    def rows(self, titles: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
        """Find the rows of some titles.

        Raises
        ------
        UsageError
            If a title has no targets.
        """
        places = {title: n for n, title in enumerate(self.shown)}
        missing = [str(title) for title in titles if str(title) not in places]
        if missing:
            raise UsageError(
                "targets-missing-titles",
                "{missing_count} titles have no targets, such as '{missing_title}'. Compute them for "
                "this data set with python -m train.targets.",
                missing_count=len(missing),
                missing_title=missing[0],
            )
        return np.array([places[str(title)] for title in titles], np.int64)

    def read(self, rows: Any) -> NDArray[Any]:
        """Read values as float32, or as text."""
        stored = self.values[rows]
        if self.index["stored"] == "bfloat16":
            return (stored.astype(np.uint32) << 16).view(np.float32)
        return stored if stored.dtype.kind == "U" else stored.astype(np.float32)


def compute(
    data: DataSet, targets: Sequence[Target], out: Path, *, lot: int = LOT, stored: str = STORED[0]
) -> None:
    """Compute targets for the titles of a data set, where they are not there already.

    Parameters
    ----------
    data : DataSet
        It must have clips. Captions are its own, unless a target named ``captions`` comes before those that
        read them.
    targets : sequence of Target
        What is computed, in this order.
    out : Path
        Folder that gets a folder for each target.
    lot : int
        Number of titles in a file.
    stored : str
        ``float16`` or ``bfloat16``.

    Raises
    ------
    UsageError
        If the data set is empty or has no clips or captions, a model cannot be used, the disk has no room, or
        a value is not finite or too large to be stored.
    """
    if stored not in STORED:
        raise UsageError(
            "targets-dtype-unknown",
            "stored={dtype} is not known; {available} are.",
            dtype=stored,
            available=" and ".join(STORED),
        )
    if lot < 1:
        raise UsageError(
            "targets-lot-too-small", "lot={lot} was given; a file needs 1 title or more.", lot=lot
        )
    if not len(data.windows):
        raise UsageError(
            "targets-data-set-empty",
            "the data set in {folder} has no windows, so that there is nothing to compute.",
            folder=data.folder,
        )
    inputs = _Inputs(data, lot)
    for target in targets:
        inputs.check(target, [other.name for other in targets[: targets.index(target)]])
    if len(targets) > 1:
        _try(targets, inputs, out, stored)
    for target in targets:
        files = _files(target, inputs, out / target.name, stored)
        if target.check is not None:
            target.check(_values(out / target.name / name) for name in files)
        if target.name == "captions":
            inputs.captions = [out / target.name / name for name in files]
        _write_index(target, inputs, files, out / target.name, stored)


def default_folder(data: Path) -> Path:
    """Return where the targets of a data set lie by default: beside its folder."""
    # A path such as "." has a name only once it is whole.
    resolved = data.resolve()
    return resolved.with_name(f"{resolved.name}-targets")


def read(out: Path, name: str) -> Cached:
    """Read targets that were computed.

    Parameters
    ----------
    out : Path
        Folder that `compute` wrote to.
    name : str
        Such as ``image``.

    Raises
    ------
    UsageError
        If there are none, or a file of theirs is missing.
    """
    path = out / name / _INDEX
    if not path.is_file():
        raise UsageError(
            "targets-missing-index",
            "no targets at {folder}: {index_file} was expected. Run python -m train.targets.",
            folder=path.parent,
            index_file=_INDEX,
        )
    index = json.loads(path.read_text())
    files = [path.with_name(file) for file in index["files"]]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise UsageError(
            "targets-missing-files",
            "{missing_count} files of {folder} are missing, such as {missing_file}. Run python -m "
            "train.targets again; it computes what is missing.",
            missing_count=len(missing),
            folder=path.parent,
            missing_file=missing[0],
        )
    counts = Shards(files, "counts") if index["tokens"] else None
    further = {name: Shards(files, name) for name in _FURTHER if index.get(name)}
    return Cached(index["shown"], Shards(files, "values"), counts, index, **further)


def pooled_text(text: Cached) -> Cached:
    """Return embeddings of captions that are one vector for each caption.

    Raises
    ------
    UsageError
        If they are a vector for each token, or one for each passage.
    """
    if text.passages is not None:
        raise UsageError(
            "target-text-of-passages",
            "the target text has a vector for each passage of {sentences} sentences, and one for each "
            "caption was expected. Compute it without text.sentences.",
            sentences=text.index["options"].get("sentences"),
        )
    if text.counts is not None:
        raise UsageError(
            "target-text-not-pooled",
            "the target text has a vector for each token, and one for each caption was expected. "
            "Compute it with text=DIR of the whole of CLIP or SigLIP.",
        )
    return text


class _Inputs:
    """What targets read, lot by lot. The last lot of clips or sound is kept, and the digests of all."""

    def __init__(self, data: DataSet, lot: int) -> None:
        first: dict[str, int] = {}
        for row, title in enumerate(data.windows.shown.tolist()):
            first.setdefault(title, row)
        titles = list(first)
        self.data = data
        self.lots = [titles[n : n + lot] for n in range(0, len(titles), lot)]
        # Files of computed captions, in the order of the lots; None for those of the data set.
        self.captions: list[Path] | None = None
        self._row_of = first
        self._digests: dict[tuple[Kind, int], str] = {}
        self._kept: tuple[tuple[Kind, int], NDArray[Any]] | None = None

    def check(self, target: Target, before: Sequence[str]) -> None:
        """Refuse a target whose inputs there will not be."""
        if target.reads in self.data.columns:
            return
        if target.reads in _CAPTIONS and ("captions" in before or "captions" in self.data.columns):
            return
        advice = {
            "clips": "Give one that has.",
            "sound": "Give one whose films have a sound track.",
            **dict.fromkeys(_CAPTIONS, "Give captioner=DIR, a model that writes them."),
        }
        raise UsageError(
            "targets-missing-input",
            "the target {target} reads {input_kind}, and the data set has {available} alone. {advice}",
            target=target.name,
            input_kind=target.reads,
            available=", ".join(self.data.columns) or "none",
            advice=advice[target.reads],
        )

    def digest(self, kind: Kind, number: int) -> str:
        if kind in _CAPTIONS:
            return hashlib.sha256(strict_json.dumps(self.read(kind, number).tolist()).encode()).hexdigest()
        if (kind, number) not in self._digests:
            values = np.ascontiguousarray(self.read(kind, number))
            digest = hashlib.sha256(f"{values.dtype} {values.shape}\n".encode())
            digest.update(values.data)
            self._digests[kind, number] = digest.hexdigest()
        return self._digests[kind, number]

    def read(self, kind: Kind, number: int) -> NDArray[Any]:
        if kind in _CAPTIONS:
            return self._captions(kind, number)
        if self._kept is None or self._kept[0] != (kind, number):
            self._kept = None
            self._kept = ((kind, number), self._column(kind, number))
        return self._kept[1]

    def _captions(self, kind: Kind, number: int) -> NDArray[Any]:
        """Read captions; of those of frames, the first one is that of the clip."""
        if self.captions is not None:
            values = _values(self.captions[number])
        else:
            values = self._column(kind if kind in self.data.columns else "captions", number)
        return _captions_of(kind, values)

    def _column(self, kind: Kind, number: int) -> NDArray[Any]:
        """Read a column of the data set, subject by subject, as it is read."""
        rows = np.array([self._row_of[title] for title in self.lots[number]])
        subjects = self.data.windows.subject[rows]
        column_values: list[Any] = [None] * len(rows)
        for subject in dict.fromkeys(subjects.tolist()):
            here = np.flatnonzero(subjects == subject)
            for place, value in zip(here, self.data.read(kind, rows[here]), strict=True):
                column_values[place] = value
        if len({np.shape(value) for value in column_values}) > 1:
            raise UsageError(
                "targets-shape-mismatch",
                "{input_kind} of different shapes were found among {first_title} to {last_title}. "
                "Bring all films to one size and length.",
                input_kind=kind,
                first_title=self.lots[number][0],
                last_title=self.lots[number][-1],
            )
        return np.array(column_values)


def _captions_of(kind: Kind, values: NDArray[Any]) -> NDArray[Any]:
    """Return captions of whole clips or of frames from those of the other."""
    if kind == "captions":
        return values if values.ndim == 1 else values[:, 0]
    return values[:, None] if values.ndim == 1 else values


def _try(targets: Sequence[Target], inputs: _Inputs, out: Path, stored: str) -> None:
    """Compute each target of one title, and refuse what would be refused hours later.

    Models are opened one after the other, since they may not fit into memory together.
    """
    count = sum(len(lot) for lot in inputs.lots)
    needed = 0
    written: NDArray[Any] | None = None
    for target in progress(targets, "trying targets"):
        computed = target.opened()(_sample(target.reads, inputs, written))
        if target.name == "captions":
            written = computed["values"]
        values = _storable(computed["values"], stored, f"{target.name} of {inputs.lots[0][0]} and others")
        on_disk = sum(path.stat().st_size for path in (out / target.name).glob("*.npz"))
        further = sum(array.nbytes for name, array in computed.items() if name != "values")
        needed += max(0, count * (values.nbytes + further) - on_disk)
    if lack := disk_space.lacking(out, needed):
        raise UsageError(
            "targets-insufficient-disk",
            "the targets of {count} titles take {needed_gb:.1f} GB more, and {folder} has {free_gb:.1f} GB "
            "left. Make room, or give another disk with out=.",
            count=count,
            **lack,
        )


def _sample(kind: Kind, inputs: _Inputs, written: NDArray[Any] | None) -> NDArray[Any]:
    """Take what one title of the first lot is computed from; a caption from `written`, if there is one."""
    if kind in _CAPTIONS and written is not None:
        return _captions_of(kind, written)
    values = inputs.read(kind, 0)
    # Models of speech are not asked about silence, so the loudest title is taken.
    row = int(np.abs(values).max(axis=1).argmax()) if kind == "sound" else 0
    return values[row : row + 1]


def _files(target: Target, inputs: _Inputs, folder: Path, stored: str) -> list[str]:
    """Compute the lots that are not there, and name the files of all."""
    folder.mkdir(parents=True, exist_ok=True)
    make = None
    files = []
    for number in progress(range(len(inputs.lots)), target.name):
        about = {
            "version": _VERSION,
            "inputs": inputs.digest(target.reads, number),
            "model": target.source.digest,
            "options": dict(target.options),
            "stored": stored,
        }
        name = f"{hashlib.sha256(strict_json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]}.npz"
        files.append(name)
        if (folder / name).is_file():
            continue
        # The model is opened for the first lot that needs it, and let go when the target is done.
        make = make or target.opened()
        arrays = make(inputs.read(target.reads, number))
        values = _storable(arrays["values"], stored, f"{target.name} of {inputs.lots[number][0]} and others")
        write_arrays(folder / name, arrays | {"values": values})
    return files


def _values(path: Path) -> NDArray[Any]:
    with np.load(path, allow_pickle=False) as archive:
        return archive["values"]


def _storable(values: NDArray[Any], stored: str, what: str) -> NDArray[Any]:
    """Bring values to the form in which they are stored."""
    if values.dtype.kind == "U":
        longest = max((len(text) for text in values.ravel().tolist()), default=0)
        if longest > CAPTION_LETTERS:
            raise UsageError(
                "targets-text-too-long",
                "a text has {letter_count} letters ({target_lot}), and {limit} are kept. Let the "
                "model write less with captioner.tokens= or speech.tokens=.",
                letter_count=longest,
                target_lot=what,
                limit=CAPTION_LETTERS,
            )
        return values.astype(f"U{CAPTION_LETTERS}")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise UsageError(
            "targets-non-finite",
            "values that are not finite were computed ({target_lot}). Try precision=float32.",
            target_lot=what,
        )
    if stored == "float16":
        largest = float(np.abs(values).max(initial=0))
        if largest > float(np.finfo(np.float16).max):
            raise UsageError(
                "targets-float16-overflow",
                "a value of {max_abs:g} is too large for float16 ({target_lot}). Store them with "
                "stored=bfloat16.",
                max_abs=largest,
                target_lot=what,
            )
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    # Rounded to the nearest, and to the even one of two that are as near.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _write_index(target: Target, inputs: _Inputs, files: list[str], folder: Path, stored: str) -> None:
    with np.load(folder / files[0], allow_pickle=False) as archive:
        tokens = "counts" in archive.files
        further = {name: True for name in _FURTHER if name in archive.files}
        text = archive["values"].dtype.kind == "U"
    tree = {
        "stored": "text" if text else stored,
        "tokens": tokens,
        **further,
        "options": dict(target.options),
        "model": target.source.to_manifest(),
        "layout": inputs.data.layout,
        "files": files,
        "shown": [title for lot in inputs.lots for title in lot],
    }
    private.write_whole(folder / _INDEX, strict_json.dumps(tree, indent=1) + "\n")
