"""The acquisition process as the session starts it."""

from multiprocessing.synchronize import Event

from streaming.session.mailbox import Mailbox
from streaming.session.orders import Sources


def acquire(sources: Sources, mailbox: Mailbox, stop: Event) -> None:
    """Be the acquisition process until `stop` is set."""
    # Only the process that reads pays for what reading imports.
    from streaming.session.acquisition import main

    main(sources, mailbox, stop)
