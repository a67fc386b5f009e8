"""Entry point of the acquisition process, light enough for the session's process to import."""

from rtdecode import terminal
from rtdecode.disk import private
from streaming.session.flag import Stop
from streaming.session.mailbox import Mailbox
from streaming.session.options import AcquisitionConfig


def acquire(sources: AcquisitionConfig, mailbox: Mailbox, stop: Stop) -> None:
    """Run the acquisition process until `stop` is set."""
    # Imported here, so that only the process that reads the sources pays for what reading needs.
    from streaming.session.acquisition import main

    terminal.guard()
    private.share_with_group(sources.options.group_readable)
    main(sources, mailbox, stop)
