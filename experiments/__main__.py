"""The command line, ``python -m experiments NAME``; ``list`` prints the names."""

import dataclasses
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import jax
import pandas as pd
import tyro

from experiments import conformance, methods, networks, quickstart, roles
from experiments.benchmarks import rows as benchmarks
from experiments.benchmarks.measure import measure
from experiments.tables import text
from jaxdopt import require


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of every experiment."""

    quick: bool = False
    """Run a small version in seconds, for a first look and for the tests."""
    out: Path = Path("results")
    """The folder for figures, tables and datasets."""
    seed: int = 0
    """Shift all seeds: of the split into training and held-out data, and of the runs."""

    def check(self) -> None:
        """Raise ValueError, before any work, for options that would fail later."""
        require(0 <= self.seed < 2**31, f"--seed is {self.seed}; give 0 to 2**31 - 1.")
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.out).close()
        except OSError as error:
            raise ValueError(
                f"--out is {self.out}, where nothing can be written ({error.strerror}); give a "
                "folder of your own."
            ) from error


@dataclasses.dataclass(frozen=True)
class Quickstart(Options):
    """Compare DGD, gradient tracking, EXTRA and exact diffusion on the digits data.

    Logistic regression of the digits 3 against 8, split by label over 16 agents, on a ring, a grid
    and an exponential graph; every method at its own best stepsize. Figures, tables, datasets.
    """

    def run(self) -> None:
        """Run the experiment and print the paths of its results."""
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
        """Run the experiment and print the paths of its results."""
        began = time.perf_counter()
        for path in networks.run(quick=self.quick, out=self.out, seed=self.seed):
            print(path)
        print(f"{time.perf_counter() - began:.0f} s")


@dataclasses.dataclass(frozen=True)
class Figure(Options):
    """The options of experiments that reproduce a paper's figures."""

    scale: Literal["small", "full"] = "small"
    """``full`` has the paper's sizes where they are known, and can take hours."""

    def run(self) -> None:
        """Run the experiment and print the paths of its results."""
        import matplotlib

        matplotlib.use("Agg")
        began = time.perf_counter()
        name = next(name for name, kind in COMMANDS.items() if kind is type(self))
        module = importlib.import_module(f"experiments.{name}")
        for path in module.run(
            quick=self.quick, out=self.out, seed=self.seed, scale=self.scale, **self.extra()
        ):
            print(path)
        print(f"{time.perf_counter() - began:.0f} s")

    def extra(self) -> dict[str, Any]:
        """Return the options that only this experiment has."""
        return {}


@dataclasses.dataclass(frozen=True)
class DRR(Figure):
    """D-RR against DSGD, centralized RR and SGD on MNIST 2 against 6 (arXiv 2112.15287).

    Constant and decreasing stepsizes on three graphs, stationary errors, slopes, and the nonconvex
    problem.
    """

    mnist: Path | None = None
    """A folder with MNIST's IDX files, for the paper's 12,000 images; default: a subset of 992."""

    def check(self) -> None:
        """Also refuse a folder of MNIST that does not exist."""
        super().check()
        require(
            self.mnist is None or self.mnist.is_dir(),
            f"--mnist is {self.mnist}, which is not a folder; give the one with MNIST's IDX files.",
        )

    def extra(self) -> dict[str, Any]:
        """Return the folder of MNIST."""
        return {"mnist": self.mnist}


@dataclasses.dataclass(frozen=True)
class GTRR(Figure):
    """GT-RR and ED-RR against D-RR, DSGT and exact diffusion (arXiv 2306.12037).

    Ring and grid: order at small stepsizes, stationary errors over heterogeneity, the crossover
    with the stepsize, dependence on the spectral gap.
    """


@dataclasses.dataclass(frozen=True)
class CEDAS(Figure):
    """CEDAS against CHOCO-SGD, LEAD, DSGD, exact diffusion and SGD (arXiv 2301.05872).

    Errors over bits and over steps with several compressors, and the transient times.
    """


@dataclasses.dataclass(frozen=True)
class APD(Figure):
    """APD and APD-SC against Push-DIGing and Push-Pull on unbalanced digraphs (arXiv 2107.12065).

    Iterations over the condition number, with fitted exponents, and the convex case.
    """


@dataclasses.dataclass(frozen=True)
class CPP(Figure):
    """CPP and B-CPP against uncompressed Push-Pull (arXiv 2106.07243): errors over bits."""


@dataclasses.dataclass(frozen=True)
class STPP(Figure):
    """STPP and BTPP against methods for graphs, digraphs and trees (arXiv 2503.16123, 2404.05454).

    Noise floors and transient times over the number of agents, and BTPP's synthetic experiment.
    """


@dataclasses.dataclass(frozen=True)
class FedAvg(Figure):
    """FedAvg's bias, server optimizers, and the general variance condition (arXiv 2301.12677).

    Bias over stepsizes, local steps and heterogeneity; digits sorted by label and shuffled.
    """


@dataclasses.dataclass(frozen=True)
class FedSUM(Figure):
    """FedSUM against FedAvg, SCAFFOLD, MIFA and FedVARP under participation (arXiv 2512.18275).

    Seven participation patterns; stationary errors over delays, clients and local steps.
    """


@dataclasses.dataclass(frozen=True)
class FedNMap(Figure):
    """FedNMap against FedMid, FedDualAvg and Zhang, Hu, Johansson's method (arXiv 2602.03357).

    Sparse logistic regression with l1 and MCP: stationarity, sparsity, linear speedup, support.
    """


@dataclasses.dataclass(frozen=True)
class OLDSGD(Figure):
    """OLDSGD against DSGD, local DSGD and OSGP in simulated time (arXiv 2601.01493).

    Messages that take 0.1 to 16 gradients' time: curves, time to a target, the wall-clock formulas.
    """


@dataclasses.dataclass(frozen=True)
class ADSGD(Figure):
    """ADSGD against AD-PSGD, R-FAST, DSGD and parallel SGD in simulated time (arXiv 2505.10322).

    Digits over 8 to 128 agents with stragglers; stable stepsizes and limits over delays.
    """


@dataclasses.dataclass(frozen=True)
class FedFix(Figure):
    """FedFix and FedBuff against synchronous and asynchronous FedAvg (arXiv 2206.10189).

    Clients of unequal speeds: the bias of naive weights, and simulated time to an accuracy.
    """


@dataclasses.dataclass(frozen=True)
class Benchmark(Options):
    """Measure the engine: overhead, NumPy, mixing, sweeps, compilations, growth (P1 to P6).

    Ratios of programs timed alternately in one process; the seed has no effect.
    """

    def run(self) -> None:
        """Measure, print one table and write it as JSON."""
        rows, about = measure(self.quick)
        print(text(benchmarks.table(rows)))
        print(", ".join(f"{name} {value}" for name, value in about.items()))
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "benchmark.json"
        record = {"about": about, "rows": [dataclasses.asdict(row) for row in rows]}
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(path)


@dataclasses.dataclass(frozen=True)
class List:
    """List the experiments."""

    def check(self) -> None:
        """Do nothing, as there are no options."""

    def run(self) -> None:
        """Print one line per experiment."""
        rows = [(name, str(kind.__doc__).splitlines()[0]) for name, kind in COMMANDS.items()]
        print(text(pd.DataFrame(rows, columns=("experiment", "what it does"))))


@dataclasses.dataclass(frozen=True)
class Roles:
    """Print which method runs on which kind of network, with their needs and offers."""

    def check(self) -> None:
        """Do nothing, as there are no options."""

    def run(self) -> None:
        """Print the table."""
        roles.run()


@dataclasses.dataclass(frozen=True)
class Conformance:
    """Write golden trajectories of every method as JSON, and the checker that reads them."""

    out: Path = Path("conformance")
    """The folder for the files; the repository's own by default, from its root."""

    def check(self) -> None:
        """Accept any folder."""

    def run(self) -> None:
        """Write the files and print their paths."""
        for path in conformance.write(self.out):
            print(path)


@dataclasses.dataclass(frozen=True)
class Methods:
    """Describe every method: how it is built, its iteration, family, needs, messages and source."""

    def check(self) -> None:
        """Accept: there are no options."""

    def run(self) -> None:
        """Print an entry a method."""
        methods.run()


COMMANDS: dict[str, Any] = {
    "quickstart": Quickstart,
    "networks": Networks,
    "drr": DRR,
    "gtrr": GTRR,
    "cedas": CEDAS,
    "apd": APD,
    "cpp": CPP,
    "stpp": STPP,
    "fedavg": FedAvg,
    "fedsum": FedSUM,
    "fednmap": FedNMap,
    "oldsgd": OLDSGD,
    "adsgd": ADSGD,
    "fedfix": FedFix,
    "benchmark": Benchmark,
    "conformance": Conformance,
    "methods": Methods,
    "roles": Roles,
    "list": List,
}

Command = (
    Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[Networks, tyro.conf.subcommand("networks")]
    | Annotated[DRR, tyro.conf.subcommand("drr")]
    | Annotated[GTRR, tyro.conf.subcommand("gtrr")]
    | Annotated[CEDAS, tyro.conf.subcommand("cedas")]
    | Annotated[APD, tyro.conf.subcommand("apd")]
    | Annotated[CPP, tyro.conf.subcommand("cpp")]
    | Annotated[STPP, tyro.conf.subcommand("stpp")]
    | Annotated[FedAvg, tyro.conf.subcommand("fedavg")]
    | Annotated[FedSUM, tyro.conf.subcommand("fedsum")]
    | Annotated[FedNMap, tyro.conf.subcommand("fednmap")]
    | Annotated[OLDSGD, tyro.conf.subcommand("oldsgd")]
    | Annotated[ADSGD, tyro.conf.subcommand("adsgd")]
    | Annotated[FedFix, tyro.conf.subcommand("fedfix")]
    | Annotated[Benchmark, tyro.conf.subcommand("benchmark")]
    | Annotated[Conformance, tyro.conf.subcommand("conformance")]
    | Annotated[Methods, tyro.conf.subcommand("methods")]
    | Annotated[Roles, tyro.conf.subcommand("roles")]
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
    try:
        command.check()
    except ValueError as error:
        refuse(error)
    try:
        command.run()
    except (OSError, ImportError) as error:  # missing data or packages; other errors are bugs
        refuse(error)


def refuse(error: Exception) -> NoReturn:
    """Print what is wrong in one line, and exit with status 2."""
    print(f"python -m experiments: {error}", file=sys.stderr)
    raise SystemExit(2) from error


if __name__ == "__main__":
    main()
