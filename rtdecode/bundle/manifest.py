"""The manifest of a bundle: the values of ``manifest.json``, schema 2.

`from_json` builds a `Manifest` from JSON values and refuses whatever does not have the stated type,
`to_json` turns it back, and `of_subject` gives the manifest as it is for one subject. Whether the stages
fit together is checked in `rtdecode.bundle.wiring`. The dataclasses refuse wrong values with a
`ValueError`, to which the strict reading adds the file and the key.
"""

import math
import re
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

from rtdecode.bundle.brain import Brain
from rtdecode.disk import typed
from rtdecode.errors import BundleError, ManifestError, UsageError
from rtdecode.signal.eeg.band import EegBand
from rtdecode.signal.volume.baseline import Baseline
from rtdecode.timing import TimingGrid

SCHEMA = 2
STAGES = ("front", "encode", "denoise", "remember", "decode_first", "decode_next")
# The stages that a subject may have of its own; all others are shared.
OWN_STAGES = ("front", "encode")
SCOPES = ("chunk", "window", "session")
# How the signals that a bundle was trained on had been prepared: as in a session, from the past alone, or
# with knowledge of what came later.
CAUSAL = "causal"
OFFLINE = "offline"
# What graphs compute matrix products, convolutions and attentions in, from the most exact on.
FLOAT8 = "fp8"
PRECISIONS = ("fp32", "bf16", "fp16", "int8", FLOAT8)
# Types that numpy and ONNX Runtime both know by these names.
DTYPES = ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint16", "uint8", "bool")
# Far above any schedule: a clip with this many steps would take minutes, and so
# would reading the bundle.
_MOST_STEPS = 1000
_KEY_DIGITS = 64
# What can build engines ahead, each by the name under which it is imported.
BUILDERS = ("tensorrt", "tensorrt_rtx")
# How an attention stands in a graph: as one node, for ONNX Runtime, or as matrix products and a softmax, for
# TensorRT.
FUSED = "fused"
DECOMPOSED = "decomposed"
FLAVOURS = (FUSED, DECOMPOSED)
_CAPABILITY = re.compile(r"[1-9][0-9]?\.[0-9]", re.ASCII)
# A subject's name is also the name of its folder.
_SUBJECT = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Input:
    """A port that a graph reads.

    Attributes
    ----------
    shape : list of int
        Size of each axis.
    dtype : str
        Values of another type are cast to it.
    source : str
        Where its values come from; see `rtdecode.bundle.wiring`.
    state : str or None
        The state that is read, if the source is ``state``.
    there : bool
        If True, the port reads whether the state holds anything, 1 or 0, instead of its values.
    memory, rows : str or None
        If the source is ``memory``: the memory that is read, and the output (``STAGE.PORT``, whole numbers)
        that tells which of its rows.
    """

    shape: list[int]
    dtype: str
    source: str
    state: str | None = None
    there: bool = False
    memory: str | None = None
    rows: str | None = None

    def __post_init__(self) -> None:
        _check_array(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class Output:
    """A port that a graph writes; `state` names the state that keeps its values, if any."""

    shape: list[int]
    dtype: str
    state: str | None = None

    def __post_init__(self) -> None:
        _check_array(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class Stage:
    """One graph: its file, its ports by name, and the files that hold its external weights (`data`)."""

    file: str
    inputs: dict[str, Input]
    outputs: dict[str, Output]
    data: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """An engine that was built ahead from the graph of one stage, for one kind of GPU.

    Attributes
    ----------
    builder : str
        ``tensorrt`` or ``tensorrt_rtx``.
    version : str
        The builder's version. No other version runs the engine.
    compute_capability : str
        Of the GPUs that it runs on, such as ``8.0``.
    stage : str
        Name of the stage that it runs.
    file : str
        Name of the engine's file in the bundle.
    graph : str
        SHA-256 of the file of the graph that it was built from.
    flavour : str
        ``fused`` or ``decomposed``: how attention stood in the graph when the engine was built.
    """

    builder: str
    version: str
    compute_capability: str
    stage: str
    file: str
    graph: str
    flavour: str

    def __post_init__(self) -> None:
        if self.builder not in BUILDERS:
            raise ManifestError(
                "engine-builder-unknown",
                "builder is one of {available}, found {builder!r}",
                available=list(BUILDERS),
                builder=self.builder[:80],
            )
        if self.flavour not in FLAVOURS:
            raise ManifestError(
                "engine-flavour-unknown",
                "flavour is one of {available}, found {flavour!r}",
                available=list(FLAVOURS),
                flavour=self.flavour[:80],
            )
        if not _CAPABILITY.fullmatch(self.compute_capability):
            raise ManifestError(
                "engine-capability-malformed",
                "compute_capability is text like '8.0', found {compute_capability!r}",
                compute_capability=self.compute_capability[:80],
            )


@dataclass(frozen=True, slots=True)
class State:
    """Values that one call of a graph hands on to later calls; zeros until something is written.

    Attributes
    ----------
    scope : str
        How long it lives: for a ``chunk`` (the steps of one chunk), for a ``window``, or for the ``session``
        (until a window is missing).
    shape : list of int
        Size of each axis.
    dtype : str
        Type of the values, as numpy names it.
    source : str or None
        If ``latent``, the state is the last frames of each window's clean latent, and no port writes it.
    """

    scope: str
    shape: list[int]
    dtype: str
    source: str | None = None

    def __post_init__(self) -> None:
        _check_array(self.shape, self.dtype)
        if self.scope not in SCOPES:
            raise ManifestError(
                "state-scope-unknown",
                "scope is one of {available}, found {scope!r}",
                available=list(SCOPES),
                scope=self.scope,
            )
        if self.source not in (None, "latent"):
            raise ManifestError(
                "state-source-unknown", "source is null or 'latent', found {source!r}", source=self.source
            )
        if self.source == "latent" and (self.scope != "session" or len(self.shape) != 5):
            raise ManifestError(
                "state-latent-invalid",
                "what is kept of the clean latent is (1, channel, latent frame, row, column) of "
                "scope session, found {shape} of scope {scope}",
                shape=self.shape,
                scope=self.scope,
            )


@dataclass(frozen=True, slots=True)
class Memory:
    """A table of rows to look up, in a file of its own that is never read whole.

    Attributes
    ----------
    file : str
        An array in ``.npy`` format, (row, value).
    rows, width : int
        Number of rows, and of values in a row.
    dtype : str
        Type of the values; ``bfloat16`` is stored as uint16 and handed on as float32.
    """

    file: str
    rows: int
    width: int
    dtype: str

    def __post_init__(self) -> None:
        _check_array([self.rows, self.width], "uint16" if self.dtype == "bfloat16" else self.dtype)


@dataclass(frozen=True, slots=True)
class ClipGeometry:
    """Shape of a clip: `frames` of (height, width, 3) at `fps`.

    `TimingGrid.hop_frames` of them are shown per hop.
    """

    frames: int
    height: int
    width: int
    fps: float

    def __post_init__(self) -> None:
        if min(self.frames, self.height, self.width) < 1 or self.fps <= 0:
            raise ManifestError(
                "clip-geometry-invalid",
                "a clip has a frame, a row, a column and a frame rate at least, found {geometry}",
                geometry=self,
            )


@dataclass(frozen=True, slots=True)
class EegInput:
    """The EEG that a bundle reads: channel labels in the order of its arrays, reference and causal band."""

    channels: list[str]
    reference: str
    unit: str
    band: EegBand

    def __post_init__(self) -> None:
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise ManifestError(
                "eeg-channels-invalid",
                "channels are one or more different labels, found {channels}",
                channels=self.channels,
            )


@dataclass(frozen=True, slots=True)
class FmriInput:
    """The volumes that a bundle reads: number of voxels, grid, and how the resting level is tracked."""

    voxels: int
    shape: list[int]
    affine: list[list[float]]
    baseline: Baseline

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ManifestError(
                "fmri-shape-invalid", "shape is three counts of voxels, found {shape}", shape=self.shape
            )
        if [len(row) for row in self.affine] != [4, 4, 4, 4]:
            raise ManifestError(
                "fmri-affine-invalid",
                "affine has four rows of four numbers, found {affine}",
                affine=self.affine,
            )


@dataclass(frozen=True, slots=True)
class Subject:
    """Another participant, with its own signals and its own first stages before the shared ones.

    Attributes
    ----------
    eeg, fmri : EegInput, FmriInput or None
        The signals that are read from this participant.
    stages : dict
        Its ``encode``, and its ``front`` if there is one; or its ``front`` alone, where ``encode`` is shared.
    number : int or None
        The value of ports with the source ``subject``.
    confidence : dict or None
        What its confidence was calibrated on; None if it was not calibrated.
    brain : Brain or None
        What its ``encode`` says of the presence of a brain; None if it says nothing.
    """

    eeg: EegInput | None
    fmri: FmriInput | None
    stages: dict[str, Stage]
    number: int | None = None
    confidence: dict[str, Any] | None = None
    brain: Brain | None = None

    def __post_init__(self) -> None:
        if not self.stages or not set(self.stages) <= set(OWN_STAGES):
            raise ManifestError(
                "subject-stages-invalid",
                "stages are encode, front or both, found {stages}",
                stages=sorted(self.stages),
            )


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a bundle states about itself.

    Attributes
    ----------
    noise_key : str
        Hexadecimal digits that seed the noise of its clips; see `rtdecode.bundle.noise`.
    simulated : bool
        Whether the participant it was trained on is simulated.
    note : str or None
        A sentence shown with every clip.
    latent : list of int or None
        Shape of the clean latent of a window, (1, channel, latent frame, row, column); None before there
        are stages.
    steps : int
        Default number of denoising steps per clip; 0 without a denoiser.
    sigmas : dict
        Number of steps, as text -> the noise level at which each step begins. A denoiser that reads levels
        (sources ``t`` and ``r``) takes these numbers of steps and no others. Where it is empty, the levels
        are evenly spaced from 1 down, for any number of steps.
    stages : dict
        Name -> `Stage`, or None for a stage that the bundle does without.
    states : dict
        Name -> `State`.
    labels : list of str or None
        Named categories, in the order of the ``scores`` port.
    memories : dict
        Name -> `Memory`.
    subjects : dict
        Name -> `Subject`, besides the default one, whose signals and stages are the bundle's own.
    subject : int or None
        The value of ports with the source ``subject`` for the default subject.
    fitter : str or None
        The registered builder of what can fit the bundle to another participant, see
        `train.fitting.fitter`; None if nothing can.
    brain : Brain or None
        What its ``encode`` says of the presence of a brain that it can read; None if it says nothing.
    chain : str
        How the signals that it was trained on had been prepared: ``causal`` or ``offline``. In a session they
        are always prepared from the past alone, so an offline bundle decodes what it was not trained on.
    engines : list of BuiltEngine
        Engines built ahead, at most one of a builder, compute capability and stage.
    gpu : str or None
        The GPU on which its graphs decoded the golden windows as they should; None if they were never run on
        one.
    flavour : str or None
        How attentions stand in its graphs, ``fused`` or ``decomposed``; None if none of them was traced.
    precision : str
        What its graphs compute matrix products, convolutions and attentions in. Their ports are the same in
        every precision, but those of states may be in half precision.
    detail : float or None
        Share, from 0 to 1, that its denoiser keeps by default of what it draws beyond what the brain told:
        the value of its port with the source ``detail``. None if it has no such port.
    recorded : list of str
        Outputs of ``front`` or ``encode``, ``STAGE.PORT``, whose values the record of a clip repeats, such as
        the rows of a memory that were looked up.

    The other attributes are plain values.
    """

    schema: int
    name: str
    recipe: str
    recipe_digest: str
    noise_key: str
    simulated: bool
    note: str | None
    grid: TimingGrid
    eeg: EegInput | None
    fmri: FmriInput | None
    clip: ClipGeometry
    latent: list[int] | None
    steps: int
    sigmas: dict[str, list[float]]
    stages: dict[str, Stage | None]
    states: dict[str, State]
    labels: list[str] | None
    confidence: dict[str, Any] | None
    files: dict[str, str]
    parity: dict[str, Any]
    provenance: dict[str, Any]
    licence: str
    memories: dict[str, Memory] = field(default_factory=dict)
    subjects: dict[str, Subject] = field(default_factory=dict)
    subject: int | None = None
    fitter: str | None = None
    brain: Brain | None = None
    chain: str = CAUSAL
    engines: list[BuiltEngine] = field(default_factory=list)
    gpu: str | None = None
    flavour: str | None = None
    precision: str = PRECISIONS[0]
    detail: float | None = None
    recorded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.eeg is None and self.fmri is None:
            raise ManifestError(
                "manifest-modality-missing",
                "it reads neither eeg nor fmri: one of them was expected",
            )
        if self.fmri is not None and self.grid.tr is None:
            raise ManifestError(
                "manifest-tr-missing",
                "it reads fmri, and grid.tr is null: the repetition time was expected",
            )
        if self.chain not in (CAUSAL, OFFLINE):
            raise ManifestError(
                "manifest-chain-unknown",
                "chain is {causal} or {offline}, found {chain!r}",
                causal=CAUSAL,
                offline=OFFLINE,
                chain=self.chain[:80],
            )
        if self.flavour is not None and self.flavour not in FLAVOURS:
            raise ManifestError(
                "manifest-flavour-unknown",
                "flavour is one of {available}, found {flavour!r}",
                available=list(FLAVOURS),
                flavour=self.flavour[:80],
            )
        if self.precision not in PRECISIONS:
            raise ManifestError(
                "manifest-precision-unknown",
                "precision is one of {available}, found {precision!r}",
                available=list(PRECISIONS),
                precision=self.precision[:80],
            )
        if not 0 <= self.steps <= _MOST_STEPS:
            raise ManifestError(
                "manifest-steps-out-of-range",
                "steps lies between 0 and {limit}, found {steps}",
                limit=_MOST_STEPS,
                steps=self.steps,
            )
        if self.detail is not None and not 0 <= self.detail <= 1:
            raise ManifestError(
                "manifest-detail-out-of-range",
                "detail is a share from 0 to 1, or null, found {detail:g}",
                detail=self.detail,
            )
        if unknown := sorted(set(self.stages) - set(STAGES)):
            raise ManifestError(
                "manifest-stage-unknown",
                "stages are {available}, found {unknown}",
                available=list(STAGES),
                unknown=unknown,
            )
        if self.labels is not None and (not self.labels or len(set(self.labels)) < len(self.labels)):
            raise ManifestError(
                "manifest-labels-invalid",
                "labels are one or more different names, or null, found {labels}",
                labels=self.labels,
            )
        if self.latent is not None and (len(self.latent) != 5 or min(self.latent) < 1):
            raise ManifestError(
                "manifest-latent-shape-invalid",
                "latent is (1, channel, latent frame, row, column), or null, found {shape}",
                shape=self.latent,
            )
        if bad := [name for name in self.subjects if not _SUBJECT.fullmatch(name)]:
            raise ManifestError(
                "manifest-subject-name-invalid",
                "names of subjects have letters, digits, '-' and '_', found {subjects}",
                subjects=bad,
            )
        _check_key(self.noise_key)
        _check_sigmas(self.sigmas)
        _check_engines(self.engines, self.built)

    @property
    def modalities(self) -> list[str]:
        """The modalities the bundle can read."""
        return [name for name in ("eeg", "fmri") if getattr(self, name) is not None]

    @property
    def built(self) -> dict[str, Stage]:
        """The stages that the bundle has, in the order in which they run."""
        stages = {name: self.stages.get(name) for name in STAGES}
        return {name: stage for name, stage in stages.items() if stage is not None}

    @property
    def onset_correction_s(self) -> float:
        """Seconds by which the onsets of its participant's events lag the pictures; 0 if not known."""
        return float(self.provenance.get("onset_correction_s") or 0.0)


def subject_named(manifest: Manifest, word: str) -> str | None:
    """Find a subject by its name, or by its number; None stands for the default subject.

    ``2`` is the subject whose number is 2, and the one that is named ``sub-02``.

    Raises
    ------
    UsageError
        If there is no such subject; the message lists those that there are.
    """
    if word in manifest.subjects:
        return word
    if word.isdecimal():
        if manifest.subject == int(word):
            return None
        for name, subject in manifest.subjects.items():
            if subject.number == int(word) or re.fullmatch(f"sub-0*{int(word)}", name):
                return name
    default = [] if manifest.subject is None else [f"{manifest.subject} (the default one)"]
    raise UsageError(
        "bundle-subject-unknown",
        "bundle {bundle} has no subject '{subject}': there is {available}. Give one of these "
        "with --subject, or leave it out for the default one.",
        bundle=manifest.name,
        subject=word,
        available=", ".join([*default, *manifest.subjects]) or "the default one alone",
    )


def of_subject(manifest: Manifest, name: str) -> Manifest:
    """Return the manifest for one subject, with its signals and stages in place of the default subject's.

    Raises
    ------
    BundleError
        If it does not fit the rest of the manifest.
    """
    subject = manifest.subjects[name]
    # A subject with an encode of its own and no front must not run the default subject's front.
    without: dict[str, Stage | None] = {"front": None} if "encode" in subject.stages else {}
    # Engines of the stages that the subject has of its own were built from the default subject's graphs.
    other = {*without, *subject.stages}
    changes = {
        "engines": [engine for engine in manifest.engines if engine.stage not in other],
        "eeg": subject.eeg,
        "fmri": subject.fmri,
        "stages": {**manifest.stages, **without, **subject.stages},
        "subject": subject.number,
        "confidence": subject.confidence,
        "brain": subject.brain,
    }
    try:
        return replace(manifest, **changes)
    except ValueError as error:
        raise BundleError.wrap(
            error,
            "bundle-subject-invalid",
            "bundle {bundle}: subject '{subject}': {error}. Export it again.",
            bundle=manifest.name,
            subject=name,
        ) from error


def to_json(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest as plain JSON values.

    Fractions become text, and settings of a port that have no value are left out.
    """
    tree = asdict(manifest)
    # A bundle without these keys keeps its digest when it is written again.
    for key in ("fitter", "brain", "gpu", "flavour", "detail"):
        if tree[key] is None:
            del tree[key]
    for key in ("engines", "recorded"):
        if not tree[key]:
            del tree[key]
    if tree["chain"] == CAUSAL:
        del tree["chain"]
    if tree["precision"] == PRECISIONS[0]:
        del tree["precision"]
    for subject in tree["subjects"].values():
        if subject["brain"] is None:
            del subject["brain"]
    grid = tree["grid"].items()
    tree["grid"] = {name: str(value) if isinstance(value, Fraction) else value for name, value in grid}
    stages = [stage for stage in tree["stages"].values() if stage is not None]
    subject_stages = [stage for subject in tree["subjects"].values() for stage in subject["stages"].values()]
    for stage in stages + subject_stages:
        for side in ("inputs", "outputs"):
            stage[side] = {name: _stated(port) for name, port in stage[side].items()}
    return tree


def from_json(tree: Any, where: str = "manifest.json") -> Manifest:
    """Read a manifest strictly from JSON values; `where` begins the message of an error."""
    return typed.read(Manifest, tree, where)


def _stated(port: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in port.items() if value is not None and value is not False}


def _check_array(shape: list[int], dtype: str) -> None:
    if not all(size >= 1 for size in shape):
        raise ManifestError("array-shape-invalid", "shape has sizes from 1 on, found {shape}", shape=shape)
    if dtype not in DTYPES:
        raise ManifestError(
            "array-dtype-unsupported",
            "dtype is one of {available}, found {dtype!r}",
            available=list(DTYPES),
            dtype=dtype,
        )


def _check_key(key: str) -> None:
    digits = "0123456789abcdef"
    if not 0 < len(key) <= _KEY_DIGITS or any(letter not in digits for letter in key):
        raise ManifestError(
            "manifest-noise-key-invalid",
            "noise_key is 1 to {max_digits} hexadecimal digits, found {noise_key!r}",
            max_digits=_KEY_DIGITS,
            noise_key=key[:80],
        )


def _check_engines(engines: list[BuiltEngine], built: dict[str, Stage]) -> None:
    kinds = set[tuple[str, str, str]]()
    for engine in engines:
        kind = (engine.builder, engine.compute_capability, engine.stage)
        if engine.stage not in built:
            raise ManifestError(
                "engine-graph-missing",
                "engines: {engine!r} is of the stage {stage!r}, which has no graph",
                engine=engine.file,
                stage=engine.stage,
            )
        if kind in kinds:
            raise ManifestError(
                "engine-duplicate",
                "engines: there are two of {engine}, and one was expected",
                engine=" ".join(kind),
            )
        kinds.add(kind)


def _check_sigmas(sigmas: dict[str, list[float]]) -> None:
    for steps, levels in sigmas.items():
        if steps != str(len(levels)):
            raise ManifestError(
                "sigmas-count-mismatch",
                "sigmas has a level for each step, found {n_levels} levels for {steps!r} steps",
                n_levels=len(levels),
                steps=steps[:80],
            )
        if not all(level > 0 and math.isfinite(level) for level in levels):
            raise ManifestError(
                "sigmas-not-positive",
                "sigmas.{steps}: noise levels above 0 were expected, found {levels}",
                steps=steps,
                levels=levels,
            )
