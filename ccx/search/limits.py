"""How much a proof may take."""

from __future__ import annotations

import time

from ccx import jobs
from ccx.kernels.compiling import compiled_seconds


class Limit:
    """How much a proof may take: evaluations, seconds from now on, or neither.

    `evaluations` counts those that were made; seconds in which kernels are compiled do not count.
    """

    def __init__(self, evaluations: int | None, seconds: float | None) -> None:
        self.evaluations = 0
        self.is_given = evaluations is not None or seconds is not None
        self._most = evaluations
        self._seconds = seconds
        self._started = self._now()

    def reached(self) -> bool:
        """Return whether it is time to stop; raise `Stopped` if nobody waits for the proof."""
        jobs.check_stopped()
        late = self._seconds is not None and self._now() - self._started >= self._seconds
        return late or (self._most is not None and self.evaluations >= self._most)

    def _now(self) -> float:
        return time.monotonic() - compiled_seconds()
