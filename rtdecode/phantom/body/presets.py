"""Presets of how hard the simulated participant is to decode.

``easy`` was tuned once so that the ridge oracle of ``benchmarks/oracle.py`` reaches 2-way identification
0.97 with both modalities and 0.85 with EEG alone. The responses of a voxel to two showings of the same film
correlate by 0.08 on average in ``default`` (95th percentile 0.20), by 0.26 in ``easy`` and by 0.05 in
``hard``. The levels of the EEG are assumptions.
"""

from dataclasses import asdict, dataclass

from rtdecode.errors import UsageError


@dataclass(frozen=True, slots=True)
class Preset:
    """The constants of one level of difficulty.

    Attributes
    ----------
    name : str
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
        Preset("easy", feature_noise=0.8, eeg_db=-12.0, bold_share=0.5, tsnr=70.0),
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
        raise UsageError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
