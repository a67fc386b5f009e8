"""What a session hands to its page, where it has one."""

from streaming.message import Message
from streaming.session.page_link import PageLink


class PageFeed:
    """Hand messages and sentences on; without a page, nothing happens.

    Parameters
    ----------
    page : PageLink or None
        The page that is told; None without one.
    """

    def __init__(self, page: PageLink | None) -> None:
        self._page = page

    def tell(self, message: Message) -> None:
        """Hand a message of the acquisition on."""
        if self._page is not None:
            self._page.tell(message)

    def say(self, sentence: str) -> None:
        """Hand a sentence on."""
        if self._page is not None:
            self._page.say(sentence)

    def over(self, ended: str) -> None:
        """Say why the session ended."""
        if self._page is not None:
            self._page.over(ended)

    def last_requests(self) -> tuple[list[str], bool]:
        """Return what the page has for the terminal, and whether the participant has withdrawn meanwhile."""
        requests = [] if self._page is None else self._page.requests()
        sentences = [request.word for request in requests if request.what == "say"]
        return sentences, any(request.what == "withdraw" for request in requests)
