"""How hard it is to read the simulated participant.

``easy`` was tuned once, so that the ridge oracle of ``benchmarks/oracle.py`` reaches 2-way
identification 0.97 with both modalities and 0.85 with EEG alone. In ``default`` the responses of a
voxel to the same film correlate by 0.08 on average (95th percentile 0.20) between two showings, in
``easy`` by 0.26, in ``hard`` by 0.05. The levels of the EEG are assumptions.
"""

from dataclasses import asdict, dataclass

from rtdecode.errors import UsageError


@dataclass(frozen=True, slots=True)
class Preset:
    """Constants of one difficulty.

    Attributes
    ----------
    name : str
    feature_noise : float
        Standard deviation of the neural state's own noise, in units of a feature's; shared by EEG
        and fMRI.
    eeg_db : float
        Power of the evoked EEG over that of the background, dB: an assumption.
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
        """The constants in one line."""
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
    """The preset of this name.

    Raises
    ------
    UsageError
        If there is none.
    """
    if name not in PRESETS:
        raise UsageError(f"no preset is called {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]
