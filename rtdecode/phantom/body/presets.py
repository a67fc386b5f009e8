"""Presets of how hard the simulated participant is to decode.

``easy`` was set twice, the second time (2026-11-22, noise 1.0 for 0.8) when the eye began to take everything
from pixels. The aim was a ridge oracle near 2-way identification 0.97 with both modalities on the film of
shapes; that of `benchmarks.experiments.oracle` reaches 0.977. The levels of the EEG are assumptions.
`docs/phantom.md` holds the levels against published figures of single trials.
"""

from dataclasses import asdict, dataclass

from rtdecode.errors import UsageError


@dataclass(frozen=True, slots=True)
class Preset:
    """The constants of one level of difficulty.

    Attributes
    ----------
    name : str
        ``easy``, ``default`` or ``hard``.
    feature_noise : float
        Standard deviation of the noise of the neural state, in units of that of a feature. EEG and fMRI
        share this noise.
    eeg_db : float
        Power of the evoked EEG over that of the background in dB, an assumption.
    bold_share : float
        Mean share of a feature voxel's variance that the neural state explains.
    tsnr : float
        Median temporal signal-to-noise ratio of the voxels.
    """

    name: str
    feature_noise: float
    eeg_db: float
    bold_share: float
    tsnr: float

    def describe(self) -> str:
        """Return the constants in one line."""
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if name != "name")


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("easy", feature_noise=1.0, eeg_db=-12.0, bold_share=0.5, tsnr=70.0),
        Preset("default", feature_noise=2.0, eeg_db=-15.0, bold_share=0.3, tsnr=70.0),
        Preset("hard", feature_noise=3.0, eeg_db=-25.0, bold_share=0.3, tsnr=70.0),
    )
}


def preset_named(name: str) -> Preset:
    """Return the preset of this name.

    Raises
    ------
    UsageError
        If no preset has this name.
    """
    if name not in PRESETS:
        raise UsageError(
            "preset-unknown",
            "there is no preset {preset!r}; choose one of {available}",
            preset=name,
            available=list(PRESETS),
        )
    return PRESETS[name]
