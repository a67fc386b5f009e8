"""From a window to its clip: the bundle's graphs in order."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.errors import BundleError, RtDecodeError, UsageError
from rtdecode.noise import noise
from rtdecode.types import Clip, Float, Window
from streaming import golden
from streaming.carry import Carry
from streaming.deadline import Cost
from streaming.engine import Graph


class NonFiniteError(RtDecodeError):
    """A graph gave values that are no numbers: there is no clip to show."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A clip and when its stages were done, on the local clock."""

    clip: Clip
    started_at: float
    encoded_at: float
    denoised_at: float
    first_frame_at: float
    last_frame_at: float

    @property
    def stamps(self) -> dict[str, float]:
        """The stages by their names in the ledger; ``denoised`` only where there was a step."""
        return {
            "encoded": self.encoded_at,
            **({"denoised": self.denoised_at} if self.clip.steps else {}),
            "first_frame": self.first_frame_at,
            "last_frame": self.last_frame_at,
        }


class Decoder:
    """Run a bundle's graphs, one thread, one window at a time.

    Parameters
    ----------
    bundle : Bundle
    now : callable
        Reads the local clock.
    carry : bool
        Whether a window carries on from the one before it, where the bundle can.

    Attributes
    ----------
    steps : int
        Denoising steps of a clip by default; 0 for a bundle that decodes in closed form.
    cost : Cost
        What the golden window cost at the start.

    Raises
    ------
    BundleError
        If a graph is missing, cannot be run, or does not give the clip its golden window expects.
    """

    def __init__(self, bundle: Bundle, now: Callable[[], float] = monotonic, *, carry: bool = True) -> None:
        self._bundle, self._now = bundle, now
        self._encode, self._first, self._next = (
            _graph(bundle, name) for name in ("encode", "decode_first", "decode_next")
        )
        self._denoise = _graph(bundle, "denoise") if has_denoiser(bundle) else None
        self.steps = bundle.manifest.steps if self._denoise else 0
        port = self._encode.inputs.get("carry")
        self._carry = Carry(port[2]) if carry and port else None
        self._check_manifest()
        self.cost = self._check_golden()

    def decode(self, window: Window, steps: int | None = None, *, null: bool = False) -> Decoded:
        """Decode one window; what it lacks enters as zeros under a zero mask.

        Parameters
        ----------
        window : Window
        steps : int, optional
            Denoising steps; default: the bundle's.
        null : bool
            Decode the null-brain twin instead: the same weights and noise, and nothing else. It leaves
            no trace in the clips that follow.

        Raises
        ------
        UsageError
            If `steps` cannot be taken.
        NonFiniteError
            If a graph gave values that are no numbers. It leaves no trace in the clips that follow.
        """
        count = check_steps(self._bundle, steps)
        started = self._now()
        encoded = self._encode(**self._inputs(None if null else window))
        encoded_at = self._now()
        latent = self._latent(encoded, window, count)
        for name, values in (encoded | {"latent": latent}).items():
            _check_finite(name, values, window)
        denoised_at = self._now()
        frames, first_at = [], denoised_at
        for t, drawn in enumerate(draw(self._first, self._next, latent)):
            _check_finite("frames", drawn, window)
            frames.append(_to_uint8(drawn[0]))
            first_at = first_at if t else self._now()
        if self._carry is not None and not null:
            self._carry.keep(window, latent)
        clip = Clip(np.concatenate(frames), latent, self._scores(encoded), count, self._confidence(encoded))
        return Decoded(clip, started, encoded_at, denoised_at, first_at, self._now())

    def _latent(self, encoded: dict[str, Float], window: Window, steps: int) -> Float:
        if self._denoise is None:
            return encoded["latent"]
        _, *shape = self._denoise.inputs["latent"]
        start = noise(self._bundle.digest, window.run, window.index, (1, *shape))
        return denoise(self._denoise, encoded, start, steps)

    def _inputs(self, window: Window | None) -> dict[str, Float]:
        ports = {name: np.zeros(shape, np.float32) for name, shape in self._encode.inputs.items()}
        if window is None:
            return ports
        for name in ports.keys() & {"eeg", "eeg_mask", "fmri", "fmri_mask"}:
            if getattr(window, name.removesuffix("_mask")) is not None:
                ports[name] = getattr(window, name)[None].astype(np.float32)
        before = self._carry.before(window) if self._carry else None
        if before is not None:
            ports |= {"carry": before, "carry_mask": np.ones_like(ports["carry_mask"])}
        return ports

    def _scores(self, encoded: dict[str, Float]) -> dict[str, float] | None:
        labels = self._bundle.manifest.labels
        if labels is None or "scores" not in encoded:
            return None
        return {
            label: float(value) for label, value in zip(labels, encoded["scores"].reshape(-1), strict=True)
        }

    def _confidence(self, encoded: dict[str, Float]) -> float | None:
        if self._bundle.manifest.confidence is None:
            return None
        return float(np.clip(encoded["confidence"].item(), 0, 1))

    def _check_manifest(self) -> None:
        """Refuse a bundle that does not hold together."""
        path, manifest = self._bundle.path, self._bundle.manifest
        if manifest.confidence is not None and "confidence" not in self._encode.outputs:
            raise BundleError(
                f"bundle {path}: the manifest has a calibrated confidence, encode.onnx has no output "
                "'confidence'. Export it again."
            )
        labels = manifest.labels
        scores = self._encode.outputs.get("scores")
        if labels is not None and scores != [1, len(labels)]:
            raise BundleError(
                f"bundle {path}: the manifest names {len(labels)} categories, and the output 'scores' of "
                f"encode.onnx has the shape {scores}. Export it again."
            )
        if self._denoise is None and "latent" not in self._encode.outputs:
            raise BundleError(
                f"bundle {path}: it has no denoising stage, and encode.onnx no output 'latent': found "
                f"{', '.join(self._encode.outputs)}. Export it again."
            )
        if self._denoise is not None and self.steps < 1:
            raise BundleError(
                f"bundle {path}: it has a denoising stage and manifest.json says {self.steps} steps; 1 or "
                "more were expected. Export it again."
            )

    def _check_golden(self) -> Cost:
        """Refuse a bundle that decodes otherwise than promised; tell what a clip costs."""
        kept = golden.first(self._bundle)
        given = golden.take(self._bundle, kept, self._encode.inputs)
        start = golden.take(self._bundle, kept, ["noise"])["noise"] if self._denoise else None
        expected = golden.take(self._bundle, kept, ["latent"])["latent"]
        at = [self._now()]
        found = self._encode(**given)
        at.append(self._now())
        if self._denoise is not None and start is not None:
            found["latent"] = denoise(self._denoise, found, start, self.steps)
        at.append(self._now())
        # Drawn from the latent that was expected: a fault is told of one stage, not of those after it.
        found["frames"] = np.concatenate(list(draw(self._first, self._next, expected)), axis=1)
        at.append(self._now())
        clip = self._bundle.manifest.clip
        stated = (1, clip.frames, clip.height, clip.width, 3)
        if found["frames"].shape != stated:
            raise BundleError(
                f"bundle {self._bundle.path}: its graphs draw clips of {found['frames'].shape}, the clip of "
                f"manifest.json is {stated}. Export it again."
            )
        golden.compare(self._bundle, kept, found)
        return Cost(at[1] - at[0], (at[2] - at[1]) / max(1, self.steps), at[3] - at[2])


def has_denoiser(bundle: Bundle) -> bool:
    """Whether a bundle denoises; one that does not decodes in closed form."""
    return bundle.manifest.stages.get("denoise") is not None


def check_steps(bundle: Bundle, steps: int | None) -> int:
    """How many denoising steps a bundle takes when `steps` are asked for.

    Raises
    ------
    UsageError
        If it has no denoiser, or `steps` is not positive.
    """
    if steps is None:
        return bundle.manifest.steps if has_denoiser(bundle) else 0
    if not has_denoiser(bundle):
        raise UsageError(
            f"{steps} steps were asked for, and bundle {bundle.path} has no denoising stage: it decodes in "
            "closed form, in 0 steps. Leave the steps out, or give a --bundle with a stage 'denoise'."
        )
    if steps < 1:
        raise UsageError(f"{steps} steps were asked for: a whole number from 1 on was expected.")
    return steps


def denoise(graph: Graph, encoded: dict[str, Float], start: Float, steps: int) -> Float:
    """Take every denoising step.

    Parameters
    ----------
    graph : Graph
        One step, its schedule inside; its only output is the next latent.
    encoded : dict
        Outputs of the encoder; those that are ports of the step go in.
    start : float32, (1, channel, latent frame, row, column)
        Standard normal noise.
    steps : int

    Returns
    -------
    float32, shape of `start`
        The clean latent.
    """
    given = {name: value for name, value in encoded.items() if name in graph.inputs and name != "latent"}
    given["steps"] = np.array([steps], np.float32)
    latent = start
    for step in range(steps):
        (latent,) = graph(latent=latent, step=np.array([step], np.float32), **given).values()
    return latent


def draw(first: Graph, following: Graph, latent: Float) -> Iterator[Float]:
    """Yield the frames of each latent frame as they are drawn, (1, frame, row, column, 3) in [0, 1].

    The caches that come out go into the next latent frame in their order: ONNX forbids an output the
    name of an input.
    """
    ports = [name for name in following.inputs if name.startswith("cache")]
    caches: dict[str, Float] = {}
    for t in range(latent.shape[2]):
        out = (following if t else first)(latent=latent[:, :, t : t + 1], **caches)
        made = [value for name, value in out.items() if name.startswith("cache")]
        caches = dict(zip(ports, made, strict=True))
        yield out["frames"]


def _graph(bundle: Bundle, name: str) -> Graph:
    stage = bundle.manifest.stages.get(name)
    if stage is None:
        raise BundleError(
            f"bundle {bundle.path} has no stage '{name}', which decoding needs. Export it again."
        )
    graph = Graph(bundle.read(stage.file), str(bundle.path / stage.file))
    for kind, stated, found in (
        ("inputs", stage.inputs, graph.inputs),
        ("outputs", stage.outputs, graph.outputs),
    ):
        if found != stated:
            raise BundleError(
                f"{bundle.path / stage.file} has the {kind} {found}, stages.{name} of manifest.json says "
                f"{stated}. Export the bundle again."
            )
    return graph


def _check_finite(name: str, values: Float, window: Window) -> None:
    wrong = values.size - int(np.isfinite(values).sum())
    if wrong:
        raise NonFiniteError(
            f"window {window.index} of run {window.run} has no clip: {wrong} of the {values.size} values of "
            f"'{name}' are no numbers. Check the bundle with `rtdecode doctor`, and export it again."
        )


def _to_uint8(frames: Float) -> NDArray[np.uint8]:
    return np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
