"""Wall and CPU seconds, read together."""

import time
from dataclasses import dataclass, field


@dataclass
class Stopwatch:
    """Counts wall seconds and the CPU seconds of this process (all threads) from its creation on."""

    _wall: float = field(default_factory=time.perf_counter)
    _cpu: float = field(default_factory=time.process_time)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._wall

    @property
    def cpu_seconds(self) -> float:
        return time.process_time() - self._cpu
