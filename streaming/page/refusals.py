"""What the session is told of requests that its page refused: a line at once, then ever fewer."""

import threading

# Time to the second line, s. Each next one takes twice as long, up to the last of these.
_EVERY_S = 60.0
_SELDOM_S = 3600.0


class Refusals:
    """Count refused requests, and put them into sentences.

    Nobody fills the operator's terminal, however many requests come.
    """

    def __init__(self) -> None:
        # Requests are answered by one thread, and told of by another.
        self._lock = threading.Lock()
        self._count = 0
        self._newest = ("", "")
        self._next_at = 0.0
        self._pause_s = _EVERY_S

    def add(self, client: str, reason: str) -> None:
        """Count a request.

        Parameters
        ----------
        client : str
            The network address that it came from.
        reason : str
            Why it was refused, in a sentence.
        """
        with self._lock:
            self._count += 1
            self._newest = (client, reason)

    def sentence(self, now_at: float) -> str:
        """Tell of the requests since the last sentence; empty if there is nothing to tell yet."""
        with self._lock:
            if not self._count or now_at < self._next_at:
                return ""
            client, reason = self._newest
            requests = "a request" if self._count == 1 else f"{self._count} requests, the newest"
            self._count = 0
            self._next_at = now_at + self._pause_s
            self._pause_s = min(2 * self._pause_s, _SELDOM_S)
        return f"The page refused {requests} from {client}. It answered: {reason}"
