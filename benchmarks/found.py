"""What was measured: steps by part, rates, sweeps, memory."""

from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import floors, parts, peaks
from benchmarks.clock import Spread, ratios

TEXTBOOK = "textbook"


@dataclass(frozen=True)
class Step:
    """One training step by part, in seconds."""

    parts: dict[str, Spread]
    whole: Spread  # a batch, and one training step on it, not compiled
    floors: dict[str, floors.Floor]


@dataclass(frozen=True)
class Findings:
    """All that was measured in one run of the benchmark, or up to one of its sections.

    Attributes:
        machine: what it was measured on, with which code, and when.
        config: the network and how it trains, field by field.
        peaks: of the machine.
        steps: by precision.
        swept: the precision of sweeps and processes.
        rates: images per second of ``textbook``, and of ``training`` and ``evaluation`` at each precision, taken in turn.
        sweeps: axis -> value -> images per second of training at the precision ``swept``, taken in turn.
        memory: ``training`` and ``evaluation`` at each precision -> bytes at the peak.
        processes: number of processes -> images per second of all together, at the precision ``swept``, taken in turn.
        left_out: what was not measured, and why.
        seconds: what all of it took.
    """

    machine: dict[str, str | int | float]
    config: dict[str, str]
    peaks: peaks.Peaks
    steps: dict[str, Step]
    swept: str
    rates: dict[str, Spread]
    sweeps: dict[str, dict[int, Spread]]
    memory: dict[str, int]
    processes: dict[int, Spread]
    left_out: tuple[str, ...]
    seconds: float

    @property
    def precisions(self) -> list[str]:
        """Those that were measured."""
        return list(self.steps)

    @property
    def ratios(self) -> dict[str, Spread]:
        """What is compared, round by round: ours with the textbook version, evaluation with training."""
        found = {}
        for precision in self.precisions if self.rates else ():
            training, tested = self.rates[f"training {precision}"], self.rates[f"evaluation {precision}"]
            found[f"training {precision} / textbook"] = ratios(training, self.rates[TEXTBOOK])
            found[f"evaluation {precision} / training {precision}"] = ratios(tested, training)
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything, each measurement with its samples, n, median, lowest and highest."""
        return {
            "machine": self.machine,
            "config": self.config,
            "seconds": self.seconds,
            "left_out": list(self.left_out),
            "peaks": {
                "flops_per_second": self.peaks.flops_per_second,
                "bytes_per_second": self.peaks.bytes_per_second,
                "products_in_flops_per_second": _plain(self.peaks.products),
                "shapes": self.peaks.shapes,
                "copies_in_bytes_per_second": _plain(self.peaks.bandwidth),
            },
            "step_in_seconds": {
                precision: {
                    "parts": _plain(step.parts),
                    "whole": _plain(step.whole),
                    "unexplained_share": _plain(parts.unexplained(step.parts, step.whole)),
                    "floors": {part: asdict(floor) for part, floor in step.floors.items()},
                }
                for precision, step in self.steps.items()
            },
            "images_per_second": _plain(self.rates),
            "ratios": _plain(self.ratios),
            "precision_of_sweeps_and_processes": self.swept,
            "images_per_second_by": _plain(self.sweeps),
            "images_per_second_of_processes": _plain(self.processes),
            "peak_memory_bytes": self.memory,
        }


def _plain(found: Any) -> Any:
    if isinstance(found, Spread):
        return {"median": found.median, "low": found.low, "high": found.high, "n": found.n, "samples": list(found.samples)}
    return {str(key): _plain(value) for key, value in found.items()}
