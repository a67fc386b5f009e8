"""The figures that papers publish, for a decoder that is judged on a film, each beside its floors.

`load` opens the networks that a request names, and `Published` holds clips of a session against its film with
them, for the section of this name (`train.evaluation.sections.published`). What is not asked for is not
computed: some of these take minutes for each session, and the networks have to be had. ``docs/metrics.md``
says what each figure means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtdecode import installing
from rtdecode.disk.clip_file import Pixels
from rtdecode.errors import UsageError
from train.evaluation.film_scores import Scores
from train.evaluation.result import Request
from train.metrics import consistency, fvd, retrieval
from train.metrics.classification import RULES, chance, nway
from train.metrics.networks import Network, clip_images, dino_images, image_classifier, video_classifier
from train.metrics.similarity import VARIANTS

# Ways of the classification, and pools and places of the retrieval.
WAYS = (2, 50)
POOLS = (50, 62, 300)
PLACES = (1, 5)
CLASSIFIERS = ("image", "video")
# What is measured of clips alone, without their truth.
_CONSISTENCIES = ("clip_consistency_pairs", "clip_consistency_steps", "dino_consistency")

CHANCE: dict[str, float | None] = {
    **{
        f"classification_{n}way_{network}_{rule}": chance(n, accepted=accepted)
        for network in CLASSIFIERS
        for n in WAYS
        for rule, accepted in RULES.items()
    },
    **{
        f"retrieval_top{k}_of_{pool}{way}": k / pool
        for k in PLACES
        for pool in POOLS
        for way in ("", "_by_film")
    },
    **dict.fromkeys(("retrieval_auc", "retrieval_rank", "retrieval_rank_by_film"), 0.5),
    **dict.fromkeys([f"ssim_{variant}" for variant in VARIANTS]),
    **dict.fromkeys(("psnr_frames", "end_point_error")),
    **dict.fromkeys(_CONSISTENCIES),
    **dict.fromkeys([f"{name}_difference" for name in _CONSISTENCIES]),
}

# Suffixes of references that are made for these figures: a decoder that knows how often each class is shown,
# and the film itself.
MARGINAL = "_marginal"
FILM = "_film"
# The Fréchet distance between two halves of the film, and between training clips and the film.
HALVES = "_film_halves"
TRAINING = "_training_clips"

Matrix = NDArray[np.floating]


@dataclass(frozen=True)
class NetworkFeatures:
    """What networks make of clips. An array of one row stands for a clip that is always the same.

    Attributes
    ----------
    clips : sequence of uint8 (frame, row, column, 3)
        The clips that the networks saw.
    image : (clip, frame, class) or None
        Logits of the network for pictures.
    video : (clip, class) or None
        Logits of the network for videos.
    clip : (clip, frame, value) or None
        Embeddings by CLIP.
    dino : (clip, frame, value) or None
        Embeddings by DINO.
    motion : (clip, value) or None
        Features of the detector of the Fréchet distance.
    """

    clips: Sequence[Pixels]
    image: Matrix | None = None
    video: Matrix | None = None
    clip: Matrix | None = None
    dino: Matrix | None = None
    motion: Matrix | None = None


@dataclass(frozen=True)
class Truth:
    """A film in the windows of a session, and which of them may stand against each other."""

    features: NetworkFeatures
    allowed: NDArray[np.bool_]


@dataclass(frozen=True)
class Published:
    """The networks of a request. One that was not named is None, and its figures are left out.

    Attributes
    ----------
    image, video : Network or None
        Classifiers of frames and of clips.
    clip, dino : Network or None
        CLIP and DINO, which describe frames.
    detector : callable or None
        Of the Fréchet distance, see `train.metrics.fvd.detector`.
    pictures : bool
        Whether structural similarity, PSNR by frames and end-point error are computed.
    """

    image: Network | None = None
    video: Network | None = None
    clip: Network | None = None
    dino: Network | None = None
    detector: fvd.Detector | None = None
    pictures: bool = False

    def __bool__(self) -> bool:
        return self.pictures or self.detector is not None or bool(self.networks())

    def networks(self) -> dict[str, Network]:
        """Name those that are there."""
        by_name = {"image": self.image, "video": self.video, "clip": self.clip, "dino": self.dino}
        return {name: network for name, network in by_name.items() if network is not None}

    def look(self, clips: Sequence[Pixels]) -> NetworkFeatures:
        """Let all networks look at clips."""
        read = {
            name: np.stack([network.read(clip) for clip in clips])
            for name, network in self.networks().items()
        }
        motion = None if self.detector is None else self.detector(clips)
        return NetworkFeatures(clips, motion=motion, **read)

    def score(self, features: NetworkFeatures, truth: Truth) -> Scores:
        """Score every window: metric -> score and weight; see `train.evaluation.film_scores.score`."""
        film = truth.features
        count = len(film.clips)
        metrics: dict[str, Matrix] = classified(features, film)
        if features.clip is not None and film.clip is not None:
            metrics |= retrieved(features.clip, film.clip, truth.allowed)
        steadiness = _steady(features)
        film_steadiness = _steady(film)
        metrics |= steadiness
        metrics |= {
            f"{name}_difference": np.abs(value - film_steadiness[name]) for name, value in steadiness.items()
        }
        return weighted(metrics, count)

    def of_film(self, truth: Truth) -> Scores:
        """Measure the film itself by what is measured without a truth."""
        return weighted(_steady(truth.features), len(truth.features.clips))

    def shifted(self, features: NetworkFeatures, steps: int) -> NetworkFeatures:
        """Return what was made of the clip so many windows later, round about."""
        arrays = {name: getattr(features, name) for name in self.networks()}
        moved = {name: np.roll(values, -steps, axis=0) for name, values in arrays.items()}
        return NetworkFeatures(features.clips, **moved)

    def network_rows(self) -> list[dict[str, Any]]:
        """List the networks, for a table."""
        return [
            {
                "network": name,
                "architecture": network.name,
                "weights": network.digest,
                "classes": "" if network.classes is None else network.classes,
                "frames": "each" if network.frames is None else f"{network.frames}, evenly spaced",
            }
            for name, network in self.networks().items()
        ]


def classified(features: NetworkFeatures, film: NetworkFeatures) -> dict[str, Matrix]:
    """Compute the exact n-way accuracies by both rules, metric -> (window,)."""
    metrics: dict[str, Matrix] = {}
    for network in CLASSIFIERS:
        logits = getattr(features, network)
        true = getattr(film, network)
        if logits is None or true is None:
            continue
        for n in WAYS:
            for rule, accepted in RULES.items():
                won = nway(logits, true, n, accepted=accepted)
                # A network for pictures gives every frame an accuracy; that of a clip is their mean.
                metrics[f"classification_{n}way_{network}_{rule}"] = won.reshape(len(true), -1).mean(axis=1)
    return metrics


def retrieved(embeddings: Matrix, film: Matrix, allowed: NDArray[np.bool_]) -> dict[str, Matrix]:
    """Compute retrieval by the mean embedding of a clip's frames, in both directions, metric -> (window,)."""
    queries = np.broadcast_to(_mean_unit(embeddings), (len(film), film.shape[-1]))
    similarity = retrieval.cosines(queries, _mean_unit(film))
    # One threshold for all pairs is the same in both directions.
    metrics: dict[str, Matrix] = {"retrieval_auc": retrieval.pairwise_auc(similarity, allowed)}
    for way, alike, may in (("", similarity, allowed), ("_by_film", similarity.T, allowed.T)):
        for pool in POOLS:
            for places in PLACES:
                metrics[f"retrieval_top{places}_of_{pool}{way}"] = retrieval.top_k(alike, pool, places, may)
        metrics[f"retrieval_rank{way}"] = retrieval.percentile_rank(alike, may)
    return metrics


def _mean_unit(features: Matrix) -> Matrix:
    return (features / np.linalg.norm(features, axis=2, keepdims=True)).mean(axis=1)


def _steady(features: NetworkFeatures) -> dict[str, Matrix]:
    """Measure how steady clips are."""
    metrics: dict[str, Matrix] = {}
    if features.clip is not None:
        metrics["clip_consistency_pairs"] = consistency.all_pairs(features.clip)
        metrics["clip_consistency_steps"] = consistency.consecutive(features.clip)
    if features.dino is not None:
        metrics["dino_consistency"] = consistency.to_first_and_previous(features.dino)
    return metrics


def weighted(metrics: dict[str, Matrix], count: int) -> Scores:
    """Give every window the same weight, and every window of a clip that is always the same its score."""
    ones = np.ones(count)
    return {name: (np.broadcast_to(value, count).astype(np.float64), ones) for name, value in metrics.items()}


def load(request: Request) -> Published:
    """Open the networks that a request names.

    Raises
    ------
    UsageError
        If a file is missing or is of another kind.
    """
    if request.published:
        _installed("cv2", "opencv-python-headless")
    return Published(
        image=image_classifier(request.image_classifier) if request.image_classifier else None,
        video=video_classifier(request.video_classifier) if request.video_classifier else None,
        clip=clip_images(request.clip) if request.clip else None,
        dino=dino_images(request.dino) if request.dino else None,
        detector=fvd.detector(request.fvd) if request.fvd else None,
        pictures=request.published,
    )


def _installed(module: str, package: str) -> None:
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UsageError(
            "published-figures-missing-package",
            "published=true needs {package}, which is not installed. Install it with: {install_command}",
            package=package,
            install_command=installing.command("train"),
        )
