"""The moment that a volume of a prepared data set stands for, compared with a volume of a session.

In a session nothing is corrected for slice timing: volume n begins at ``n * TR``, its slices follow, and
it stands for the middle of its acquisition. A data set that was corrected has every voxel at one moment
of the TR, which its sidecar names (BIDS: ``SliceTimingCorrected``, ``StartTime``). Where that is not the
middle, its time line is shifted against a session's.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

import numpy as np

from rtdecode.errors import UsageError


def acquired_shift_s(sidecar: Mapping[str, Any]) -> float:
    """Return how long after the data set's ``n * TR`` volume n begins by our convention, s.

    Our volume stands for the mean time of its slices. Corrected data stand for ``StartTime``. So their
    volume n has to be treated as one whose acquisition began at ``n * TR + shift``. Moving every onset by
    ``-shift`` does the same.

    Parameters
    ----------
    sidecar : mapping
        The JSON beside the images: ``RepetitionTime``, ``SliceTimingCorrected``, ``StartTime``,
        ``SliceTiming``, all s.

    Returns
    -------
    float
        0 for data that were not corrected, and for corrected data that do not say to which moment, because
        the middle is fMRIPrep's default.

    Raises
    ------
    UsageError
        If a time is no number or lies outside the TR, or if the TR is needed and not there.

    Notes
    -----
    BIDS 1.9, derivatives of functional MRI, defines ``StartTime`` as the time that slices were
    interpolated to, after the start of the volume. fMRIPrep takes ``first + ref * (last - first)`` of
    ``SliceTiming`` with ``--slice-time-ref`` 0.5 as the default, so up to half a slice before TR/2:
    with ``SliceTiming`` at hand its shift is 0 for evenly spaced slices, without it -TR / (2 * slices).
    Gorgolewski et al. 2016 (BIDS); Esteban et al. 2019 (fMRIPrep).
    """
    start = sidecar.get("StartTime")
    corrected = sidecar.get("SliceTimingCorrected", start is not None)
    if not corrected or start is None:
        return 0.0
    tr = _seconds(sidecar, "RepetitionTime") if "RepetitionTime" in sidecar else None
    start_s = _seconds(sidecar, "StartTime")
    slices = sidecar.get("SliceTiming")
    if tr is None and not slices:
        raise UsageError(
            "sidecar-tr-missing",
            "the sidecar names a StartTime, but neither RepetitionTime nor SliceTiming, so its place "
            "in the volume is unknown. Add RepetitionTime, as in the scanner's own sidecar.",
        )
    if start_s < 0 or (tr is not None and start_s > tr):
        raise UsageError(
            "sidecar-start-outside-volume",
            "the sidecar's StartTime {start_s:g} s lies outside its volume of {tr_s} s.",
            start_s=start_s,
            tr_s=tr,
        )
    middle = float(np.mean(np.asarray(slices, np.float64))) if slices else (tr or 0.0) / 2
    return start_s - middle


def _seconds(sidecar: Mapping[str, Any], name: str) -> float:
    value = sidecar[name]
    # JSON's true and false are numbers to Python.
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise UsageError(
            "sidecar-seconds-invalid",
            "the sidecar's {key} must be a number of seconds, found {value!r}.",
            key=name,
            value=value,
        )
    return float(value)
