"""From a window to its clip: the bundle's graphs in order."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle import Bundle
from rtdecode.errors import BundleError, UsageError
from rtdecode.types import Clip, Float, Window
from streaming.engine import Graph

_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Decoded:
    """A clip and when its stages were done, on the local clock."""

    clip: Clip
    started_at: float
    encoded_at: float
    first_frame_at: float
    last_frame_at: float

    @property
    def stamps(self) -> dict[str, float]:
        """The stages by their names in the ledger."""
        return {
            "encoded": self.encoded_at,
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

    Raises
    ------
    BundleError
        If a graph is missing, cannot be run, or does not give the clip its golden window expects.
    """

    def __init__(self, bundle: Bundle, now: Callable[[], float] = monotonic) -> None:
        stages = bundle.manifest.stages
        if stages.get("denoise") is not None:
            raise UsageError(
                f"bundle {bundle.path} has a denoising stage, and this version runs encode, decode_first and "
                "decode_next. Use a bundle without one, or a later version."
            )
        self._bundle, self._now = bundle, now
        self._encode, self._first, self._next = (
            _graph(bundle, name) for name in ("encode", "decode_first", "decode_next")
        )
        self._check_golden()

    def decode(self, window: Window) -> Decoded:
        """Decode one window; what it lacks enters as zeros under a zero mask."""
        started = self._now()
        encoded = self._encode(**self._inputs(window))
        encoded_at = self._now()
        latent = encoded["latent"]
        frames, caches, first_at = [], {}, encoded_at
        for t in range(latent.shape[2]):
            graph = self._next if t else self._first
            out = graph(latent=latent[:, :, t : t + 1], **caches)
            caches = {name: value for name, value in out.items() if name.startswith("cache")}
            frames.append(_to_uint8(out["frames"][0]))
            first_at = first_at if t else self._now()
        clip = Clip(np.concatenate(frames), latent, self._scores(encoded), steps=0)
        return Decoded(clip, started, encoded_at, first_at, self._now())

    def _inputs(self, window: Window) -> dict[str, Float]:
        ports: dict[str, Float] = {}
        for name, shape in self._encode.inputs.items():
            there = getattr(window, name.removesuffix("_mask")) is not None
            ports[name] = (
                getattr(window, name)[None].astype(np.float32) if there else np.zeros(shape, np.float32)
            )
        return ports

    def _scores(self, encoded: dict[str, Float]) -> dict[str, float] | None:
        labels = self._bundle.manifest.labels
        if labels is None or "scores" not in encoded:
            return None
        return {
            label: float(value) for label, value in zip(labels, encoded["scores"].reshape(-1), strict=True)
        }

    def _check_golden(self) -> None:
        """Decode the first golden window and compare."""
        golden = self._bundle.golden()
        ports = {name: golden[name][:1].astype(np.float32) for name in self._encode.inputs}
        found = self._encode(**ports)
        found["frames"] = self._first(latent=found["latent"][:, :, :1])["frames"][:, 0]
        for name in ("latent", "scores", "frames"):
            if name not in golden or name not in found:
                continue
            expected = golden[name][0, 0] if name == "frames" else golden[name][0]
            scale = 255.0 if expected.dtype == np.uint8 else 1.0
            tolerance = 0.6 if expected.dtype == np.uint8 else _TOLERANCE
            error = float(np.abs(found[name][0] * scale - expected.astype(np.float64)).max())
            if error > tolerance:
                raise BundleError(
                    f"bundle {self._bundle.path}: its golden window gives {name} {error:.2g} away from "
                    f"golden.npz (allowed {tolerance:g}). Export the bundle again with this ONNX Runtime."
                )


def _graph(bundle: Bundle, name: str) -> Graph:
    stage = bundle.manifest.stages.get(name)
    if stage is None:
        raise BundleError(
            f"bundle {bundle.path} has no stage '{name}', which decoding needs. Export it again."
        )
    return Graph(bundle.path / stage.file)


def _to_uint8(frames: Float) -> NDArray[np.uint8]:
    return np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
