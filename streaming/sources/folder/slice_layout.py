"""Learn from instance numbers which volume a slice belongs to, where no header says it."""

import itertools
from bisect import bisect_left, insort
from dataclasses import dataclass, field

from streaming.sources.folder.slice_stack import places

# Where time runs fastest, two of any three instances in a row are at one position.
_TELLING = 3


@dataclass(slots=True)
class SliceLayout:
    """The way instance numbers run over slices and time.

    Attributes
    ----------
    period : int
        Instances from one volume to the next at one position or, with `inner`, from one slice to the
        next; 0 while unknown.
    inner : bool
        Whether time runs fastest: all volumes of one slice, then the next slice.
    instances : dict
        Instances by position, in rising order, until the period is known.
    gap : int
        Smallest distance between two instances at one position; 0 while none has come twice.
    first : int
        Instance of the run's first slice: 0, or -1 where headers count from 0.
    numbers : set of int
        All instances, until the period is known.
    """

    period: int = 0
    inner: bool = False
    instances: dict[float, list[int]] = field(default_factory=dict)
    gap: int = 0
    first: int = 0
    numbers: set[int] = field(default_factory=set)

    def volume(self, instance: int) -> int:
        """Return the index of an instance's volume; `period` must be known."""
        place = instance - self.first
        return place % self.period if self.inner else place // self.period

    def learn(self, key: float, instance: int) -> bool:
        """Take one slice into account.

        Positions repeat when a new volume begins. The smallest gap at one position is the number of
        slices once as many positions have come, and as many instances in a row: without these, a few slices
        of a run in which time runs fastest could look the same.

        Returns
        -------
        bool
            Whether the period is known.
        """
        self.first = min(self.first, instance)
        instances = self.instances.setdefault(key, [])
        index = bisect_left(instances, instance)
        if index < len(instances) and instances[index] == instance:
            return self.period > 0
        for other in instances[max(index - 1, 0) : index + 1]:
            self.gap = min(self.gap or abs(instance - other), abs(instance - other))
        insort(instances, instance)
        self.numbers.add(instance)
        if self.gap == len(self.instances) > 1 and self._is_in_row(instance, max(self.gap, _TELLING)):
            self.period = self.gap
        return self.period > 0

    def _is_in_row(self, instance: int, count: int) -> bool:
        """Return whether an instance is one of `count` in a row."""
        lowest = highest = instance
        while lowest - 1 in self.numbers and highest - lowest + 1 < count:
            lowest -= 1
        while highest + 1 in self.numbers and highest - lowest + 1 < count:
            highest += 1
        return highest - lowest + 1 == count

    def settle(self) -> bool:
        """Decide from what there is, because no more will come in time; return whether that was possible."""
        if self.gap == 0:
            # No position came twice: this is one volume, perhaps with empty places.
            grid_places = places(self.instances)
            self.period = grid_places[-1] + 1 if grid_places else 0
        elif self.gap >= len(self.instances):
            # Some positions never came: their slices were lost.
            self.period = self.gap
        else:
            # Fewer instances between repetitions than positions: time may run fastest, if the slices
            # begin at even distances and none reaches into the next.
            firsts = sorted(instances[0] for instances in self.instances.values())
            steps = {later - earlier for earlier, later in itertools.pairwise(firsts)}
            longest = max(instances[-1] - instances[0] for instances in self.instances.values())
            self.inner = len(steps) == 1 and longest < min(steps)
            self.period = steps.pop() if self.inner else 0
        return self.period > 0
