"""What all viewers of the page are shown at one time."""

from dataclasses import dataclass, field

from streaming.checks.finding import Finding


@dataclass(frozen=True, slots=True)
class ShownClip:
    """The newest clip.

    Attributes
    ----------
    url : str
        Of its picture.
    truth_url : str
        Of what was shown meanwhile; empty where it is not known.
    twin_url : str
        Of the newest null-brain twin; empty before there is one.
    words : str
        Revision, window and marks.
    numbers : list of (str, str)
        What is known of it, by name.
    age_s : float
        Time since the page learned of it, s.
    stale : bool
        Whether it is too old to show the present.
    """

    url: str
    truth_url: str
    twin_url: str
    words: str
    numbers: list[tuple[str, str]]
    age_s: float
    stale: bool


@dataclass(frozen=True, slots=True)
class View:
    """One state of the page; all viewers are shown the same.

    Attributes
    ----------
    tick : int
        Rises with every new view. Traces are asked for by it.
    clips : int
        Number of clips so far. What changes with a clip is asked for by it.
    run_s : float or None
        Time of the newest run, s.
    banner : str
        ``SIMULATED PARTICIPANT`` where it is one, or what the bundle says of all that it shows.
    lamps : list of Finding
        What each lamp shows, in order.
    alarm : bool
        Whether a lamp is red and nobody has acknowledged it.
    clip : ShownClip or None
        The newest clip; None while there is none to show.
    ledger, line, motion : str
        Drawings (SVG).
    displaced : str
        How far the head moved, in words; empty where it is not known.
    volumes : int
        Number of volumes so far whose slices are shown.
    log_lines : list of (wall time in s, sentence)
        Newest first.
    sentences : int
        Number of sentences so far.
    over : str
        Why the session has ended; empty while it goes on.
    blank, withdrawn, twin : bool
        Whether displays are blank, the participant has withdrawn, and null-brain twins are shown.
    eeg_changed : bool
        Whether the EEG comes from a source that nobody has confirmed.
    identified : str
        Identification so far, in words; empty where nothing is known.
    """

    tick: int = 0
    clips: int = 0
    run_s: float | None = None
    banner: str = ""
    lamps: list[Finding] = field(default_factory=list)
    alarm: bool = False
    clip: ShownClip | None = None
    ledger: str = ""
    line: str = ""
    motion: str = ""
    displaced: str = ""
    volumes: int = 0
    log_lines: list[tuple[float, str]] = field(default_factory=list)
    sentences: int = 0
    over: str = ""
    blank: bool = False
    withdrawn: bool = False
    twin: bool = False
    eeg_changed: bool = False
    identified: str = ""
