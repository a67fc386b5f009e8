"""Values that calls of the graphs hand on to later calls, by name, each for as long as its scope lives."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from rtdecode.bundle.graph import Value
from rtdecode.bundle.manifest import State


class States:
    """The states of one window on its way through the graphs.

    Parameters
    ----------
    declared : dict
        Name -> `State`, as the manifest declares it.
    before : dict or None
        The session's states by name, from which the window carries on; None to start afresh.
    """

    def __init__(self, declared: Mapping[str, State], before: Mapping[str, Value] | None) -> None:
        self._declared = declared
        self._values: dict[str, Value] = dict(before or {})

    def read(self, name: str) -> Value:
        """Return the values of a state, in its shape and dtype; zeros if nothing was written."""
        if name in self._values:
            return self._values[name]
        state = self._declared[name]
        return np.zeros(state.shape, state.dtype)

    def has(self, name: str) -> bool:
        """Return whether a state holds anything."""
        return name in self._values

    def write(self, name: str, value: Value) -> None:
        """Store the values of a state."""
        self._values[name] = value

    def forget(self, scope: str) -> None:
        """Clear the states of a scope."""
        for name, state in self._declared.items():
            if state.scope == scope:
                self._values.pop(name, None)

    def of_session(self, latent: NDArray[np.floating]) -> dict[str, Value]:
        """Return what the next window carries on from, once this one's clean latent is known.

        Parameters
        ----------
        latent : (1, channel, latent frame, row, column)
            Clean latent of this window.
        """
        values: dict[str, Value] = {}
        for name, state in self._declared.items():
            if state.source == "latent":
                values[name] = latent[:, :, -state.shape[2] :].astype(state.dtype)
            elif state.scope == "session" and name in self._values:
                values[name] = self._values[name]
        return values
