"""Look for all that is known to go wrong with data sets, and say what was looked for and what was not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from train.data import leaks, signal_checks
from train.data.caption_shifts import CaptionShift
from train.data.dataset import DataSet
from train.data.leaks import Leak
from train.data.near_duplicates import Pair
from train.data.shifts import Shift
from train.data.splits import Split
from train.data.standard import Statistics

# So many leaks or faults of one kind are told in full, and the others are counted.
_ALIKE = 3


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found.

    Attributes
    ----------
    leaks : list of Leak
        What training would know of the test.
    faults : list of Leak
        What else is wrong.
    shifts : list of str
        What was found on shifts of each subject's signals, and of captions, against their clips, in
        sentences.
    looked_for, not_looked_for : list of str
        That nothing was found says no more than that these were looked for.
    """

    leaks: list[Leak]
    faults: list[Leak]
    shifts: list[str]
    looked_for: list[str]
    not_looked_for: list[str]

    def sentences(self) -> list[str]:
        """Say all of it in sentences."""
        sentences = []
        for kind in dict.fromkeys(leak.kind for leak in [*self.leaks, *self.faults]):
            alike = [leak for leak in [*self.leaks, *self.faults] if leak.kind == kind]
            sentences += [f"{kind}: {leak.says}" for leak in alike[:_ALIKE]]
            concerned = [leak.names[0] if leak.names else kind for leak in alike[_ALIKE:]]
            if concerned:
                sentences.append(f"{kind}: the same of {len(concerned)} more ({leaks.some(concerned)}).")
        leaking = "" if sentences else "Nothing was found. "
        return [
            *sentences,
            f"{leaking}Looked for: {'; '.join(self.looked_for) or 'nothing'}.",
            f"Not looked for: {'; '.join(self.not_looked_for)}.",
        ]


def examined(
    data: DataSet,
    split: Split | None,
    statistics: Mapping[str, Statistics],
    near: Sequence[Pair] | None,
    *,
    signals: bool,
    shifts: Sequence[Shift] | None = None,
    caption_shift: CaptionShift | None = None,
) -> Examined:
    """Examine a data set.

    Parameters
    ----------
    split : Split or None
        None where nothing is tested.
    statistics : mapping
        Subject -> what signals are standardised by; empty if it is not known.
    near : sequence of Pair, or None
        Clips that look alike (`train.data.near_duplicates`); None where nobody looked.
    signals : bool
        Whether the signals of every window are read.
    shifts : sequence of Shift, optional
        Shifts against the clips (`train.data.shifts`); None where nobody looked.
    caption_shift : CaptionShift, optional
        How captions fit their clips (`train.data.caption_shifts`); None where nobody looked.
    """
    runs = signal_checks.looked_at(data) if signals else []
    if split is None:
        leaking = [*leaks.copies(data), *leaks.wrong_seasons(data)]
    else:
        leaking = leaks.find_leaks(data, split, statistics, near or ())
        leaking += signal_checks.scaled_by_itself(runs, split)
    centred = signal_checks.centred_by_runs(data, runs)
    # The statistics of the training runs may have said it of the same subject.
    kinds = {(leak.kind, leak.names) for leak in leaking}
    leaking += [leak for leak in centred if (leak.kind, leak.names) not in kinds]
    leaking += signal_checks.filtered_by_runs(runs)
    faults = [*leaks.poor_captions(data), *signal_checks.still_eeg(runs), *signal_checks.cut_off(runs)]
    faults += [Leak("shifted signals", (leak.subject,), leak.says) for leak in shifts or () if leak.is_told]
    faults += _captions_elsewhere(caption_shift)
    tested = split is not None
    captions = "captions" in data.columns
    looked_for = {
        "subjects who are copies of others": len(data.windows.subjects) > 1,
        "clips of a season that a subject did not see": data.layout == "cinebrain",
        "captions that are empty, or shared by clips": captions,
        "clips that are shown in the test and in training": tested,
        f"windows of the test within {leaks.RESPONSE_S:g} s of training in one run": tested,
        "runs of the test that are copies of training": tested,
        "windows of the test in the statistics": tested and bool(statistics),
        "near-duplicate clips": near is not None,
        "runs that were centred by themselves": signals and data.chain == "offline",
        "runs that were filtered by themselves": signals and "fmri" in data.columns,
        "tests that were scaled by themselves": signals and tested,
        "EEG that stands still": signals and "eeg" in data.columns,
        "values that were cut off": signals,
        "captions that were shifted against their clips": caption_shift is not None,
        "signals that were shifted against their clips": shifts is not None,
    }
    missed = {
        "all that concerns a test, because there is none (test=RUNS)": not tested,
        "windows of the test in the statistics (statistics=FILE)": tested and not statistics,
        "near-duplicate clips (near=yes)": tested and near is None,
        "signals that were scaled by themselves, stand still or were cut off (signals=yes)": not signals,
        "captions that were shifted against their clips (targets=DIR)": captions and caption_shift is None,
        "signals that were shifted against their clips (shift=yes)": shifts is None,
    }
    return Examined(
        leaking,
        faults,
        [shift.says for shift in (*(shifts or ()), *([caption_shift] if caption_shift else []))],
        [what for what, was_done in looked_for.items() if was_done],
        [what for what, was_missed in missed.items() if was_missed],
    )


def _captions_elsewhere(shift: CaptionShift | None) -> list[Leak]:
    """Return the fault of captions that describe other clips than their own."""
    if shift is None:
        return []
    if shift.is_shifted:
        return [Leak("shifted captions", (), shift.says)]
    return [Leak("captions", (), shift.says)] if shift.is_permuted else []
