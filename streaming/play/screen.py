"""Where a film is shown: a window, a whole screen, or nowhere."""

import os
import warnings
from dataclasses import dataclass
from typing import Any, Literal

from rtdecode.errors import RtDecodeError, UsageError
from rtdecode.liblsl import pylsl
from streaming.play.frames import FilmFile, Picture

Command = Literal["start", "quit"]

CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
# A window is enlarged to about this width (pixels), by a whole factor where the screen has room.
_WINDOW = 768
# Video drivers that show nothing, on which SDL falls back unasked where there is no window system.
_BLIND = ("dummy", "offscreen")
_BLACK = (0, 0, 0)
_WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Patch:
    """A square for a photodiode, which is white and black in turn.

    Attributes
    ----------
    corner : str
        One of `CORNERS`.
    pixels : int
        Length of its side.
    """

    corner: str
    pixels: int

    def place(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, top, width and height of the square on a screen."""
        side = min(self.pixels, height, width)
        x = 0 if self.corner.endswith("left") else width - side
        y = 0 if self.corner.startswith("top") else height - side
        return x, y, side, side


def read_patch(text: str) -> Patch:
    """Read ``CORNER`` or ``CORNER:PIXELS``.

    Raises
    ------
    UsageError
        If the text is neither.
    """
    corner, _, size = text.partition(":")
    if corner not in CORNERS or not (size or "64").isdecimal() or not int(size or "64"):
        raise UsageError(
            "play-patch-malformed",
            "--patch {patch}: {corners} was expected, with :PIXELS as in top-left:64",
            patch=text,
            corners=list(CORNERS),
        )
    return Patch(corner, int(size or "64"))


class Nowhere:
    """Stand in for a window without showing anything, on the same clock.

    Parameters
    ----------
    film : FilmFile
        The film, whose size stands in for that of a window.
    """

    def __init__(self, film: FilmFile) -> None:
        self.height = film.height
        self.width = film.width
        self.note = ""

    def draw(self, picture: Picture | None, *, white: bool) -> None:
        """Take the next picture and ignore it."""

    def flip(self) -> float:
        """Return the time of the local clock, as if the picture were shown now."""
        return pylsl.local_clock()

    def commands(self) -> list[Command]:
        """Return nothing: there is no keyboard and no window."""
        return []

    def close(self) -> None:
        """Do nothing."""


class FilmWindow:
    """A window, or a whole screen.

    Parameters
    ----------
    film : FilmFile
        The film, whose shape the pictures have.
    screen : int or None
        Number of the screen to fill, from 0; None opens a window.
    patch : Patch or None
        The square for a photodiode; None for none.

    Attributes
    ----------
    height, width : int
        Size of a picture: the largest of the film's shape that fits.
    note : str
        Warnings of the window system; empty if there were none.

    Raises
    ------
    RtDecodeError
        If there is no window system.
    UsageError
        If there is no such screen.
    """

    def __init__(self, film: FilmFile, screen: int | None, patch: Patch | None) -> None:
        # pygame greets on stdout when it is imported.
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        import pygame

        self._pygame: Any = pygame
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self._surface = self._open(film, screen)
        except pygame.error as error:
            pygame.display.quit()
            raise RtDecodeError(
                "play-window-unavailable",
                "no window can be opened ({error}). Run it on a machine with a screen (DISPLAY set), "
                "or give --headless to send the markers alone.",
                error=error,
            ) from error
        self.note = "; ".join(str(warning.message) for warning in caught)
        width, height = self._surface.get_size()
        scale = min(width / film.width, height / film.height)
        self.height = round(film.height * scale)
        self.width = round(film.width * scale)
        self._corner = ((width - self.width) // 2, (height - self.height) // 2)
        self._patch = None if patch is None else patch.place(height, width)
        self.draw(None, white=False)
        self.flip()

    def draw(self, picture: Picture | None, *, white: bool) -> None:
        """Draw a picture, (row, column, 3) RGB, for the next `flip` to show; None is black."""
        self._surface.fill(_BLACK)
        if picture is not None:
            image = self._pygame.image.frombuffer(picture, (self.width, self.height), "RGB")
            self._surface.blit(image, self._corner)
        if self._patch is not None:
            self._surface.fill(_WHITE if white else _BLACK, self._patch)

    def flip(self) -> float:
        """Show what was drawn at the screen's next refresh; return when, on the local clock."""
        self._pygame.display.flip()
        return pylsl.local_clock()

    def commands(self) -> list[Command]:
        """Return what keyboard and window asked for since the last call."""
        pygame = self._pygame
        # Button boxes type a 5 or a t at each volume.
        starts = (pygame.K_SPACE, pygame.K_5, pygame.K_KP5, pygame.K_t)
        ends = (pygame.K_ESCAPE,)
        commands: list[Command] = []
        for event in pygame.event.get():
            if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key in ends):
                commands.append("quit")
            elif event.type == pygame.KEYDOWN and event.key in starts:
                commands.append("start")
        return commands

    def close(self) -> None:
        """Close the window."""
        self._pygame.display.quit()

    def _open(self, film: FilmFile, screen: int | None) -> Any:
        pygame = self._pygame
        pygame.display.init()
        # Refuse such a driver unless it was asked for: a film would be shown to nobody.
        if pygame.display.get_driver() in _BLIND and "SDL_VIDEODRIVER" not in os.environ:
            raise pygame.error("no window system was found")
        sizes = pygame.display.get_desktop_sizes()
        if screen is not None and not 0 <= screen < len(sizes):
            pygame.display.quit()
            available = ", ".join(f"{n} ({w} x {h})" for n, (w, h) in enumerate(sizes))
            raise UsageError(
                "play-screen-unknown",
                "there is no screen {screen}; there are {available}",
                screen=screen,
                available=available,
            )
        pygame.display.set_caption(f"rtdecode play {film.path.name}")
        # pygame waits for the screen's refresh (vsync) only in SCALED and OPENGL modes.
        if screen is not None:
            flags = pygame.SCALED | pygame.FULLSCREEN
            surface = pygame.display.set_mode(sizes[screen], flags, display=screen, vsync=1)
            pygame.mouse.set_visible(False)
            return surface
        width, height = sizes[0]
        zoom = max(1, round(_WINDOW / film.width))
        scale = min(zoom, 0.9 * width / film.width, 0.9 * height / film.height)
        size = (max(1, int(film.width * scale)), max(1, int(film.height * scale)))
        return pygame.display.set_mode(size, pygame.SCALED, vsync=1)


Screen = FilmWindow | Nowhere
