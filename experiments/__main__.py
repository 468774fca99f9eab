"""The command line: ``python -m experiments {quickstart,networks,benchmark,list}``."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments import networks, quickstart
from experiments.benchmarks import rows as benchmarks
from experiments.benchmarks.measure import measure
from experiments.tables import Table


@dataclasses.dataclass(frozen=True)
class Options:
    """What every experiment understands."""

    quick: bool = False
    """A small version of everything, in seconds: for a first look and for the tests."""
    out: Path = Path("results")
    """The folder for figures, tables and datasets."""
    seed: int = 0
    """Shifts all seeds: of the split into training and held-out data, and of the runs."""


@dataclasses.dataclass(frozen=True)
class Quickstart(Options):
    """Compare DGD, gradient tracking, EXTRA and exact diffusion on the digits data.

    Logistic regression of the digits 3 against 8, split by label over 16 agents, on a ring, a grid
    and an exponential graph; every method at its own best stepsize. Figures, tables, datasets.
    """

    def run(self) -> None:
        """Run the experiment and say where its results are."""
        began = time.perf_counter()
        for path in quickstart.run(quick=self.quick, out=self.out, seed=self.seed):
            print(path)
        print(f"{time.perf_counter() - began:.0f} s")


@dataclasses.dataclass(frozen=True)
class Networks(Options):
    """Compare networks: rounds over the spectral gap, stepsizes, placement of data, changing links.

    Averaging and four methods on twelve graphs of 16 agents, logistic regression of the digits 3
    against 8, split by label; and gradient tracking on networks that change with time.
    """

    def run(self) -> None:
        """Run the experiment and say where its results are."""
        began = time.perf_counter()
        for path in networks.run(quick=self.quick, out=self.out, seed=self.seed):
            print(path)
        print(f"{time.perf_counter() - began:.0f} s")


@dataclasses.dataclass(frozen=True)
class Benchmark(Options):
    """Measure the engine: overhead, NumPy, mixing, sweeps, compilations, growth (P1 to P6).

    Ratios of programs timed in turns in one process; seed has no effect.
    """

    def run(self) -> None:
        """Measure, print one table and write it as JSON."""
        rows, about = measure(self.quick)
        print(benchmarks.table(rows))
        print(", ".join(f"{name} {value}" for name, value in about.items()))
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "benchmark.json"
        record = {"about": about, "rows": [dataclasses.asdict(row) for row in rows]}
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(path)


@dataclasses.dataclass(frozen=True)
class List:
    """List the experiments."""

    def run(self) -> None:
        """Print a line an experiment."""
        rows = [(name, str(kind.__doc__).splitlines()[0]) for name, kind in COMMANDS.items()]
        print(Table(("experiment", "what it does"), rows))


COMMANDS: dict[str, Any] = {
    "quickstart": Quickstart,
    "networks": Networks,
    "benchmark": Benchmark,
    "list": List,
}

Command = (
    Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[Networks, tyro.conf.subcommand("networks")]
    | Annotated[Benchmark, tyro.conf.subcommand("benchmark")]
    | Annotated[List, tyro.conf.subcommand("list")]
)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run the experiment it names, in float64."""
    command: Any = tyro.cli(
        Command,  # type: ignore[arg-type]
        prog="python -m experiments",
        description="The experiments of jaxdopt.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    jax.config.update("jax_enable_x64", True)
    command.run()


if __name__ == "__main__":
    main()
