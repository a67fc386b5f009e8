"""What stands in the page's place in its process; light, as each process imports it."""

import os
import signal
import struct
import sys
import time
from multiprocessing.connection import Connection

from streaming.session import mailbox as mailboxes
from streaming.session.flag import Flag
from streaming.session.mailbox import Mailbox
from streaming.session.page_link import Request


def dies_at_once(*_arguments: object, **_keywords: object) -> None:
    sys.exit(3)


def dies_in_a_request(*_arguments: object, asking: Connection, **_keywords: object) -> None:
    asking.send(Request("mark"))
    # A request of 64 bytes, of which four are there.
    os.write(asking.fileno(), struct.pack("!i", 64) + b"half")
    os.kill(os.getpid(), signal.SIGKILL)


def dies_with_a_message(*_arguments: object, mailbox: Mailbox, **_keywords: object) -> None:
    # It has taken a slot and does not give it back.
    mailboxes.decode = lambda _: os.kill(os.getpid(), signal.SIGRTMIN + 1)
    mailbox.get(timeout=60)


def stands_still(*_arguments: object, asking: Connection, **_keywords: object) -> None:
    asking.send(Request("mark"))
    os.kill(os.getpid(), signal.SIGSTOP)


def ends_when_told(*_arguments: object, stop: Flag, asking: Connection, **_keywords: object) -> None:
    asking.send(Request("mark"))
    while not stop.is_set():
        time.sleep(0.01)


BODIES = (dies_at_once, dies_in_a_request, dies_with_a_message, stands_still, ends_when_told)
