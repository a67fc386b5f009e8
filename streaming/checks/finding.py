"""What `rtdecode doctor` says about one thing that it checked."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes
    ----------
    subject : str
        What was looked at.
    state : str
        ``ok``, ``note`` (a session can do without) or ``bad`` (a session would be refused or degraded).
    found : str
        What was seen.
    advice : str
        What to do; empty if there is nothing to do.
    """

    subject: str
    state: str
    found: str
    advice: str = ""
