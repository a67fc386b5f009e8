"""What came from an EEG stream while ``rtdecode doctor`` or ``rtdecode preflight`` listened to it."""

from dataclasses import dataclass, field

from rtdecode.types import EegChunk, Montage, Trigger


@dataclass(frozen=True, slots=True)
class EegCapture:
    """What came from a stream while it was listened to.

    Attributes
    ----------
    montage : Montage or None
        None if the stream did not answer.
    items : list of EegChunk and Trigger
        In order of arrival.
    has_triggers : bool
        Whether there is a marker stream or a stim channel.
    state : str
        What the source says about the stream.
    notes : list of str
        What was concluded about a unit that the stream does not state.
    impedances : dict
        Impedances that the stream's description states, kilohms, by channel.
    stamps : str
        Where the stamps lie if they do not agree with their arrival; otherwise empty.
    host : str
        Computer that sends the stream; never written or printed.
    """

    montage: Montage | None
    items: list[EegChunk | Trigger]
    has_triggers: bool
    state: str
    notes: list[str]
    impedances: dict[str, float] = field(default_factory=dict)
    host: str = ""
    stamps: str = ""

    @property
    def chunks(self) -> list[EegChunk]:
        """The chunks of samples, without the triggers."""
        return [item for item in self.items if isinstance(item, EegChunk)]

    @property
    def triggers(self) -> list[Trigger]:
        """The triggers, without the chunks."""
        return [item for item in self.items if isinstance(item, Trigger)]
