"""CineNeuron on published weights: what is read of targets, and a pool that lies on disk."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from rtdecode.disk import private
from rtdecode.errors import UsageError
from train.config import disk_space
from train.config.run_context import RunContext, progress
from train.data import near_duplicates, target_cache
from train.data.set_windows import SetWindows
from train.data.sets.opening import opened
from train.data.target_cache import Cached
from train.data.window_arrays import WindowArray
from train.models.cineneuron.encoder import CineNeuronSizes, RememberingEncoder
from train.models.cineneuron.memories import EXCLUDE, NEAR_S
from train.models.cineneuron.plan import ACTION, CATEGORY, CONTRASTS, CategoryLoss, trained_parts
from train.models.cineneuron.pool import check_left, draw_entries, unit
from train.models.conditioned.base import say
from train.models.conditioned.batches import Windows
from train.models.conditioned.encoder import ConditionEncoder
from train.models.conditioned.material import places_of_set
from train.models.conditioned.published import PublishedPlan, check_prompt
from train.models.conditioned.trainable import BrainVideo, Contrasts
from train.parts.generators.base import Generator
from train.trainer.phases import Phase

# Keys of `train.targets`.
IMAGE = "image"
TEXT = "text"
PROMPT = "prompt"
CATEGORIES = "categories"
# What an entry of the pool is made of.
_OF_ENTRIES = (IMAGE, TEXT, PROMPT, ACTION)
# Entries whose tokens are read at once.
_AT_ONCE = 32


@dataclass(frozen=True)
class PoolClips:
    """Clips that may become entries of the pool.

    Attributes
    ----------
    titles : list of str
        Titles of the clips, by which their targets are read.
    targets : mapping
        Of `train.targets`, by name.
    hashes : callable
        Makes title -> hashes, see `train.data.near_duplicates`.
    """

    titles: Sequence[str]
    targets: Mapping[str, Cached]
    hashes: Callable[[], Mapping[str, NDArray[np.uint64]]]


@dataclass(frozen=True)
class CineNeuronPublishedPlan(PublishedPlan):
    """CineNeuron on Wan from a folder; see `train.models.conditioned.published.PublishedPlan`.

    It reads the further targets ``prompt`` (UMT5's tokens), ``action`` (ViCLIP's vectors) and ``categories``.

    Attributes
    ----------
    categories : CategoryLoss
        What the loss of the categories is made of.
    pool : str
        Folder of a data set whose clips are further entries of the pool, whatever was recorded of them. Their
        targets lie beside it, where ``python -m train.targets`` puts them.
    """

    encoder: CineNeuronSizes
    categories: CategoryLoss = field(default_factory=CategoryLoss)
    pool: str = ""

    contrasts: ClassVar[Contrasts] = CONTRASTS
    extra_losses: ClassVar[tuple[str, ...]] = (CATEGORY,)

    def further_targets(self, phases: Mapping[str, Phase]) -> tuple[str, ...]:
        """Name what the pool is made of and what losses read."""
        losses = {loss for phase in phases.values() for loss in phase.losses}
        retrieves = self.encoder.memory.retrieves
        needed = {PROMPT: retrieves, ACTION: retrieves or ACTION in losses, CATEGORIES: CATEGORY in losses}
        return tuple(name for name, is_needed in needed.items() if is_needed)

    def read_targets(self, aimed: Mapping[str, WindowArray]) -> Mapping[str, WindowArray]:
        """Return the vectors of actions, and which categories hold, as far as they are read."""
        _check_widths(aimed, self.encoder)
        names = {ACTION: ACTION, CATEGORY: CATEGORIES}
        return {name: aimed[target] for name, target in names.items() if target in aimed}

    def trainable(self, encoder: ConditionEncoder, video: Generator, frames: int) -> BrainVideo:
        """Add the loss of the categories, and fix the temperature of the contrasts."""
        return trained_parts(encoder, video, frames, self.categories)

    @torch.no_grad()
    def remember(
        self,
        work: RunContext,
        encoder: ConditionEncoder,
        read: Windows,
        windows: SetWindows,
        targets: Mapping[str, Cached],
    ) -> Windows:
        """Fill the pool, whose texts are a file of the run, and say which entries windows may not find."""
        if not isinstance(encoder, RememberingEncoder):
            return read
        memory = self.encoder.memory
        title_of_window = windows.data.windows.shown[windows.split.train]
        titles = list(dict.fromkeys(title_of_window.tolist()))
        taught_hashes = partial(windows.shown_hashes, windows.split.train)
        sources = [PoolClips(titles, targets, taught_hashes)]
        if self.pool:
            sources.append(further_clips(Path(self.pool), targets, windows))
        candidates = [(source, title) for source in sources for title in source.titles]
        rows = draw_entries(len(candidates), memory.entries, work.seed)
        entries = [candidates[row] for row in rows]
        encoder.remember(
            _texts(work, encoder, entries),
            _read(entries, TEXT),
            np.concatenate([unit(_read([entry], IMAGE)).mean(1) for entry in entries]),
            _read(entries, ACTION),
        )
        if memory.own != EXCLUDE:
            return read
        hashes = {id(source): source.hashes() for source in sources}
        of_entries = np.stack([hashes[id(source)][title] for source, title in entries])
        of_titles = np.stack([hashes[id(sources[0])][title] for title in titles])
        looks_alike = near_duplicates.alike(of_titles, of_entries)
        place_of = {title: n for n, title in enumerate(titles)}
        excluded = looks_alike[[place_of[title] for title in title_of_window.tolist()]]
        places = places_of_set(windows)
        for number, (source, title) in enumerate(entries):
            if source is sources[0]:
                showings = np.flatnonzero(title_of_window == title)
                excluded[:, number] |= places.near(showings, NEAR_S).any(1)
        check_left(excluded, memory.items)
        return replace(read, excluded=excluded)


def further_clips(folder: Path, run_targets: Mapping[str, Cached], windows: SetWindows) -> PoolClips:
    """Open further clips for the pool; those that look like a held-out clip are left out, which is said.

    Parameters
    ----------
    folder : Path
        Of a data set.
    run_targets : mapping
        Name -> targets of the run.
    windows : SetWindows
        Those of the run.

    Raises
    ------
    UsageError
        If the clips have no targets, or those of other models than the run's, or hold a title that is held
        out.
    """
    data = opened(folder)
    if "captions" not in data.columns and not (target_cache.default_folder(folder) / "captions").is_dir():
        raise UsageError(
            "pool-without-captions",
            "the clips of {folder} are to be entries of the pool (system.pool), and have no captions. "
            "Compute them with `python -m train.targets {folder} captioner=DIR ...`, or leave system.pool "
            "out.",
            folder=folder,
        )
    targets = {name: target_cache.read(target_cache.default_folder(folder), name) for name in _OF_ENTRIES}
    for name, cached in targets.items():
        for key in ("sha256", "options"):
            run_value = _stated(run_targets[name], key)
            pool_value = _stated(cached, key)
            if pool_value != run_value:
                raise UsageError(
                    "pool-model-mismatch",
                    "the target {target} of system.pool={folder} was computed with {key} {pool_value}, and "
                    "that of the run with {run_value}. Compute both alike.",
                    target=name,
                    folder=folder,
                    key=key,
                    pool_value=pool_value,
                    run_value=run_value,
                )
    titles = list(dict.fromkeys(data.windows.shown.tolist()))
    held_out = windows.split.test
    shared = sorted({*titles} & {*windows.data.windows.shown[held_out].tolist()})
    if shared:
        raise UsageError(
            "pool-holds-held-out",
            "system.pool={folder} holds {count} titles that the run is judged on, such as '{title}'. Give a "
            "pool without them.",
            folder=folder,
            count=len(shared),
            title=shared[0],
        )
    hashes = near_duplicates.hashes(data, np.arange(len(data.windows)))
    alike = {pair.test for pair in near_duplicates.pairs(hashes, windows.shown_hashes(held_out))}
    if alike:
        say([f"{len(alike)} clips of {folder} look like held-out ones, and are left out of the pool."])
    return PoolClips([title for title in titles if title not in alike], targets, lambda: hashes)


def _stated(cached: Cached, key: str) -> object:
    return cached.index["model"][key] if key == "sha256" else cached.index[key]


def _read(entries: Sequence[tuple[PoolClips, str]], target: str) -> NDArray[np.float32]:
    """Read a target of entries, in their order."""
    return np.concatenate(
        [source.targets[target].read(source.targets[target].rows([title])) for source, title in entries]
    )


def _texts(
    work: RunContext, encoder: RememberingEncoder, entries: Sequence[tuple[PoolClips, str]]
) -> NDArray[np.float16]:
    """Write the texts of entries to a file of the run, and map it."""
    _, conditions, width = encoder.sizes
    shape = (len(entries), conditions * width)
    size = math.prod(shape) * np.dtype(np.float16).itemsize
    if lack := disk_space.lacking(work.stages, size):
        raise UsageError(
            "pool-insufficient-disk",
            "the texts of {entries} entries of the pool take {needed_gb:.1f} GB, and {folder} has "
            "{free_gb:.1f} GB left. Make room, give another disk with out=, or fewer entries "
            "(system.encoder.memory.entries).",
            entries=len(entries),
            **lack,
        )
    path = private.file(private.folder(work.stages) / "texts.npy")
    table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    for first in progress(range(0, len(entries), _AT_ONCE), "texts of the pool"):
        tokens = _read(entries[first : first + _AT_ONCE], PROMPT)
        check_prompt(tokens.shape, (conditions, width))
        with np.errstate(over="ignore"):
            rows = tokens.reshape(len(tokens), -1).astype(np.float16)
        if not np.isfinite(rows).all():
            raise UsageError(
                "target-prompt-not-finite",
                "the target prompt has values that are none, or too large for half precision. Compute it "
                "again.",
            )
        table[first : first + _AT_ONCE] = rows
    table.flush()
    return np.load(path, mmap_mode="r")


def _check_widths(aimed: Mapping[str, WindowArray], encoder: CineNeuronSizes) -> None:
    """Refuse targets of other sizes than the brain model predicts."""
    images = aimed[IMAGE].shape[-1]
    expected = {
        TEXT: (images, "Compute image= and text= by one model, such as CLIP"),
        ACTION: (encoder.brain.action, "Give that number as system.encoder.brain.action"),
        CATEGORIES: (encoder.brain.categories, "Give that number as system.encoder.brain.categories"),
    }
    for name, (width, advice) in expected.items():
        if name in aimed and aimed[name].shape[-1] != width:
            raise UsageError(
                "target-width-mismatch",
                "the target {target} has {actual} values for each clip, and {expected} are predicted. "
                "{advice}.",
                target=name,
                actual=aimed[name].shape[-1],
                expected=width,
                advice=advice,
            )
