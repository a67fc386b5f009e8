"""Masked pre-training of the encoder: on single volumes, of which most patches are hidden.

The volumes are those of windows that teach, after those of any other data where a recipe names some. Nothing
that was shown is read. An encoder may also begin at that of a finished run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rtdecode.errors import UsageError
from train.config.recipe import build
from train.config.run_context import Arrays, RunContext
from train.config.run_files import read_run, weights, weights_digest
from train.data.set_windows import SetWindows
from train.data.sets.unlabelled import WRAP, check_fit, check_folder, read_unlabelled
from train.models.conditioned import attention
from train.models.conditioned.batches import Windows
from train.models.conditioned.encoder import ConditionEncoder
from train.models.mindvideo.encoder import FMRI, SpaceTimeEncoder, SpaceTimeSizes
from train.parts.encoders.masked import MaskedAutoencoder
from train.parts.encoders.transformer import TrunkSizes
from train.parts.losses.masked import Masked
from train.trainer import loop
from train.trainer.loader import Place
from train.trainer.loop import Machine, Trainable
from train.trainer.phases import Phase

# The loss, and the name of the phase that has it.
MASKED = "masked"
# The same phase on other data, which comes before it.
UNLABELLED = "unlabelled"
ORDER = "order"
# Sizes of an encoder on which the weights depend that read single volumes.
_SIZES = ("depth", "width", "heads", "inner")
# Weights of an encoder that read single volumes, and what stands in the names of those that read several.
_OF_VOLUMES = ("tokenizers.", "trunk.")
_OVER_TIME = "_time."
# Volumes that are averaged at once.
_AT_ONCE = 256


@dataclass(frozen=True)
class MaskedSizes:
    """The slot ``pretrain``: what is hidden, the decoder that predicts it, and other data to begin with.

    Attributes
    ----------
    decoder : TrunkSizes
        Sizes of the decoder that predicts hidden patches.
    share : float
        Of the patches that are hidden in each volume.
    data : str
        A folder of any data with fMRI, whose volumes are learned from first; none by default.
    window_s : float or None
        Length of its windows, s, which are averaged, in layouts that leave it to the reader; 7.2 for ten
        volumes of the Human Connectome Project.
    fit : str
        How volumes of another number of voxels are read, see `train.data.sets.unlabelled.fitted`.
    run : str
        A finished run of this system whose encoder of volumes this one begins at; none by default.
    """

    decoder: TrunkSizes
    share: float = 0.75
    data: str = ""
    window_s: float | None = None
    fit: str = WRAP
    run: str = ""

    def __post_init__(self) -> None:
        check_fit(self.fit)


class MaskedVolumes(Trainable):
    """Tokenizer and trunk of an encoder, and the decoder that they learn with.

    Its loss is ``masked``, the squared error of the hidden patches alone.
    """

    offered = (MASKED,)

    def __init__(self, encoder: SpaceTimeEncoder, sizes: MaskedSizes) -> None:
        super().__init__()
        width = encoder.missing.numel()
        self.loss = Masked(output="predicted", target="patches", mask="hidden")
        self.autoencoder = MaskedAutoencoder(
            encoder.tokenizer, encoder.trunk, width, sizes.decoder, sizes.share
        )

    def losses(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the loss of ``fmri`` (volume, voxel) with patches in an ``order`` (volume, patch)."""
        reconstruction = self.autoencoder(batch[FMRI], batch[ORDER])
        # A volume that is missing teaches nothing.
        hidden = reconstruction.hidden * batch[f"{FMRI}_mask"][:, None]
        outputs = {**reconstruction._asdict(), "hidden": hidden}
        return {MASKED: self.loss(outputs, batch)}


@dataclass(frozen=True)
class VolumeBatches:
    """Draws single volumes from windows, and in what order their patches are seen.

    Attributes
    ----------
    windows : Windows
        Windows with volumes alone; each volume is a row by itself.
    patches : int
        Of a volume.
    unlabelled : float32, (volume, voxel), or None
        The volumes of the phase ``unlabelled``.
    """

    windows: Windows
    patches: int
    unlabelled: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls, windows: Windows, patches: int, unlabelled: NDArray[np.float32] | None = None
    ) -> "VolumeBatches":
        """Draw from the volumes of windows, whatever else is known of them."""
        signals = {name: values for name, values in windows.signals.items() if name.startswith(FMRI)}
        return cls(replace(windows, signals=signals), patches, unlabelled)

    def __call__(self, place: Place) -> dict[str, Tensor]:
        """Draw the batch that belongs at a place."""
        orders = [place.draws(row).permutation(self.patches) for row in range(place.size)]
        batch = {name: torch.from_numpy(values) for name, values in self._volumes(place).items()}
        return batch | {ORDER: torch.from_numpy(np.stack(orders))}

    def _volumes(self, place: Place) -> Arrays:
        if place.phase == UNLABELLED:
            assert self.unlabelled is not None
            volumes = self.unlabelled[place.rows(len(self.unlabelled))]
            return {FMRI: volumes, f"{FMRI}_mask": np.ones(len(volumes), np.float32)}
        count, slots, _ = self.windows.signals[FMRI].shape
        windows, slot = np.divmod(place.rows(count * slots), slots)
        signals = self.windows.normalised(windows)
        return {name: values[np.arange(place.size), slot] for name, values in signals.items()}


def check_pretraining(phases: Mapping[str, Phase], how: MaskedSizes | None, encoder: SpaceTimeSizes) -> None:
    """Refuse a phase of masked volumes that cannot be trained, before anything is read.

    Raises
    ------
    UsageError
        If nothing says how patches are hidden, other data are no data, or the run to begin at has an encoder
        of other patches or sizes.
    """
    if MASKED in phases and how is None:
        raise UsageError(
            "recipe-missing-masked",
            "the recipe has a phase '{phase}', and does not say how patches are hidden. Give "
            "system.pretrain, or leave phases.{phase} out.",
            phase=MASKED,
        )
    if how is None:
        return
    if MASKED in phases and how.data:
        check_folder(Path(how.data))
    if how.run:
        _check_sizes(Path(how.run), encoder)


def _check_sizes(run: Path, sizes: SpaceTimeSizes) -> None:
    """Refuse a run whose encoder has patches or blocks of other sizes."""
    system = read_run(run)["arguments"]["system"]
    pretrained = build(system["encoder"]) if "encoder" in system else None
    expected = _sizes(sizes)
    run_sizes = _sizes(pretrained) if isinstance(pretrained, SpaceTimeSizes) else {}
    if run_sizes != expected:
        raise UsageError(
            "pretrained-encoder-mismatch",
            "system.pretrain.run={run} has an encoder of {found}, and this recipe's has {expected}. Give a "
            "run of the same patches and blocks, or change system.encoder.",
            run=run,
            found=run_sizes or f"the system '{system['builder']}'",
            expected=expected,
        )


def _sizes(sizes: SpaceTimeSizes) -> dict[str, int]:
    return {"patch": sizes.patch} | {name: asdict(sizes.trunk)[name] for name in _SIZES}


def begin(
    work: RunContext,
    encoder: ConditionEncoder,
    windows: Windows,
    how: MaskedSizes | None,
    phases: Mapping[str, Phase],
    target: SetWindows | None,
    seed: int,
    machine: Machine,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Note the mean brain, and train the encoder on masked volumes where a phase says so.

    Parameters
    ----------
    work : RunContext
        The run, whose stages keep what was trained so far.
    encoder : SpaceTimeEncoder
        It is changed in place.
    windows : Windows
        Those that teach.
    how : MaskedSizes or None
        What is hidden, and what to begin with; None for recipes without a phase ``masked``.
    phases : mapping
        All phases of the recipe.
    target : SetWindows or None
        The data set of the training, whose held-out windows take part nowhere.
    seed : int
        Seed of the decoder's first weights and of the training.
    machine : Machine
        Where the encoder is trained.

    Returns
    -------
    log : list
    provenance : dict
        What a bundle says of it.

    Raises
    ------
    UsageError
        If nothing of the other data may teach, or the run to begin at learned what is held out here.
    """
    assert isinstance(encoder, SpaceTimeEncoder)
    encoder.mean_brain.copy_(mean_brain(windows))
    provenance: dict[str, Any] = {}
    if how is not None and how.run:
        _begin_at(encoder, Path(how.run), target)
        provenance["pretrained_run"] = weights_digest(Path(how.run))
    if MASKED not in phases:
        return [], provenance
    assert how is not None
    masked_phases = {MASKED: phases[MASKED]}
    unlabelled = None
    if how.data:
        voxels = windows.signals[FMRI].shape[2]
        other = read_unlabelled(Path(how.data), voxels, how.fit, how.window_s, target)
        unlabelled = other.volumes
        masked_phases = {UNLABELLED: phases[MASKED], **masked_phases}
        provenance["pretrain"] = other.provenance()
    torch.manual_seed(seed)
    log = loop.train(
        MaskedVolumes(encoder, how),
        masked_phases,
        VolumeBatches.of(windows, encoder.tokenizer.patches, unlabelled),
        work.stages / MASKED,
        partial(attention.note, work, encoder, windows),
        seed,
        machine,
    )
    return log, provenance


def _begin_at(encoder: SpaceTimeEncoder, run: Path, target: SetWindows | None) -> None:
    """Take what reads single volumes from a run that has learned nothing that is held out here."""
    tree = read_run(run)
    manifest = tree["manifest"]
    # Simulated participants have seeds of their own for what is held out.
    if target is not None and tree["arguments"]["data"]["builder"] == "data-set":
        taught = manifest["provenance"]["runs"]
        test_runs = {*target.data.windows.run[target.split.test].tolist()}
        # Runs of another release have names of their own, so that nothing can be told of them.
        is_other = manifest["name"] != target.data.layout
        if test_runs & {*taught} or (is_other and target.data.study):
            raise UsageError(
                "pretrained-run-not-apart",
                "system.pretrain.run={run} learned from {layout}, runs {taught}, and {held_out} of "
                "{own_layout} are held out of this training. Give a run of the same release that holds them "
                "out.",
                run=run,
                layout=manifest["name"],
                taught=taught,
                held_out=sorted(test_runs),
                own_layout=target.data.layout,
            )
    state = {
        name.removeprefix("encoder."): torch.from_numpy(np.asarray(values, np.float32))
        for name, values in weights(run).items()
        if name.startswith("encoder.")
    }
    of_volumes = {
        name: values
        for name, values in state.items()
        if name.startswith(_OF_VOLUMES) and _OVER_TIME not in name
    }
    encoder.load_state_dict(of_volumes, strict=False)


def mean_brain(windows: Windows) -> Tensor:
    """Average the volumes of windows, as far as they are there, (volume, voxel)."""
    count, slots, voxels = windows.signals[FMRI].shape
    total = np.zeros((slots, voxels))
    present = np.zeros(slots)
    for first in range(0, count, _AT_ONCE):
        signals = windows.normalised(np.arange(first, min(first + _AT_ONCE, count)))
        mask = signals[f"{FMRI}_mask"]
        total += (mask[:, :, None] * signals[FMRI]).sum(0)
        present += mask.sum(0)
    return torch.from_numpy(total / np.maximum(present, 1)[:, None]).float()
