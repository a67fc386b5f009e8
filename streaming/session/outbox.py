"""Messages on their way to the session, which may be busy: nothing is dropped, and reading does not wait."""

from collections import deque
from collections.abc import Callable

from streaming.message import Message

# Messages that may wait. Beyond that, reading waits for the session: there
# are so many only where a backlog is read, or where the session hangs.
_MAX_WAITING = 32


class Outbox:
    """Put messages into a mailbox in order, as there is room in it.

    Parameters
    ----------
    put : callable
        Puts a message into the mailbox; returns False if there was no room for so long, s.
    is_read : callable
        Whether the session that takes the messages still runs.
    """

    def __init__(self, put: Callable[[Message, float], bool], is_read: Callable[[], bool]) -> None:
        self._put = put
        self._is_read = is_read
        self._waiting: deque[Message] = deque()
        # Refined windows, until no volume waits any more.
        self._refined: list[Message] = []

    def __len__(self) -> int:
        """Return the number of messages that wait for room in the mailbox."""
        return len(self._waiting)

    def send(self, message: Message) -> None:
        """Put a message into the mailbox, behind those that wait for room there."""
        self._waiting.append(message)
        self.post()

    def hold_refined(self, message: Message) -> None:
        """Keep a refined window until `send_refined`.

        The volumes that wait may complete a final, which the decoder should then be free for. All refined
        windows go this way and stay in order, as each carries on from the one before it.
        """
        self._refined.append(message)

    def send_refined(self) -> None:
        """Send the refined windows that were held."""
        for message in self._refined:
            self.send(message)
        self._refined.clear()

    def post(self, max_waiting: int = _MAX_WAITING) -> None:
        """Put what waits into the mailbox; wait for room only while more than `max_waiting` are left."""
        while self._waiting:
            waits = len(self._waiting) > max_waiting
            if self._put(self._waiting[0], 0.5 if waits else 0.0):
                self._waiting.popleft()
            elif not waits:
                return
            elif not self._is_read():
                # A session that was killed never takes a message, and this process must not outlive it.
                self._waiting.clear()
