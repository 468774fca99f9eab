"""The command line, ``python -m experiments NAME``; ``list`` prints the names."""

import dataclasses
import importlib
import json
import pkgutil
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import jax
import pandas as pd
import tyro

import experiments
from experiments import conformance
from experiments.benchmarks import rows as benchmarks
from experiments.benchmarks import scaling
from experiments.benchmarks.measure import measure
from experiments.catalogue import methods, roles
from experiments.study import STUDIES, Study
from experiments.tables import text
from jaxdopt import require

for _module in pkgutil.iter_modules(experiments.__path__):
    if not _module.ispkg and _module.name != "__main__":
        importlib.import_module(f"experiments.{_module.name}")  # enters its study, if it has one


@dataclasses.dataclass(frozen=True)
class Options:
    """The options of every experiment."""

    quick: bool = False
    """Run a small version, for a first look and for the tests."""
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
        keep_compiled(self.out)


def keep_compiled(out: Path) -> None:
    """Keep compiled programs in ``out``, unless JAX has been told where: later runs are quicker."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(out.absolute() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@dataclasses.dataclass(frozen=True)
class Figure(Options):
    """The options of studies."""

    scale: Literal["quick", "default", "full"] = "default"
    """``full`` has the paper's sizes where they are known, and can take hours."""

    def check(self) -> None:
        """Also refuse two scales, and what the study's own options refuse."""
        super().check()
        require(
            not self.quick or self.scale == "default",
            f"--quick and --scale {self.scale} are two scales; give one.",
        )
        own = self.own()
        if hasattr(own, "check"):
            own.check()

    def own(self) -> Any:
        """Return the study's own options."""
        kind = self.study.options  # type: ignore[attr-defined]
        if kind is None:
            return None
        return kind(**{f.name: getattr(self, f.name) for f in dataclasses.fields(kind)})

    def run(self) -> None:
        """Run the study and print the paths of its results."""
        own = self.own()
        options = {} if own is None else dataclasses.asdict(own)
        scale = "quick" if self.quick else self.scale
        study: Study = self.study  # type: ignore[attr-defined]
        execute(study, scale, self.out, self.seed, options)


def execute(study: Study, scale: str, out: Path, seed: int, options: dict[str, Any]) -> None:
    """Run a study, print the paths of its results, and say what an interruption leaves."""
    import matplotlib

    matplotlib.use("Agg")
    warnings.simplefilter("once", UserWarning)  # of jd.best: each once, not once a panel
    began = time.perf_counter()
    try:
        written = study.run(scale, out, seed, **options)
    except KeyboardInterrupt:
        print(
            f"\nstopped; finished programs are kept in {out / study.name / 'cache'}, and the same "
            f"command goes on: {study.command(scale, out, seed, options)}",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    for path in written:
        print(path)
    print(f"{time.perf_counter() - began:.0f} s")


@dataclasses.dataclass(frozen=True)
class All(Options):
    """Run all studies, one after the other, and build the gallery: the site with their claims."""

    def run(self) -> None:
        """Run them, print the paths of their results and of the gallery."""
        began = time.perf_counter()
        for study in STUDIES.values():
            execute(study, "quick" if self.quick else "default", self.out, self.seed, {})
        print(f"all studies: {(time.perf_counter() - began) / 60:.1f} minutes")
        try:
            from docs.__main__ import main as site
        except ImportError as error:
            raise ImportError(
                f"{error}: the studies are done, and the gallery needs the tools of the site; "
                f'pip install -e ".[docs]" && python -m docs --results {self.out}'
            ) from error
        site(["--results", str(self.out)])


@dataclasses.dataclass(frozen=True)
class Benchmark(Options):
    """Measure the engine, from overhead to memory and a million agents: P1 to P16.

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
class Scaling(Options):
    """Measure steps of more and more agents, equally many on each of 1 to 8 devices.

    With one GPU or none, the devices are simulated on a CPU; the seed has no effect.
    """

    def run(self) -> None:
        """Measure, print what devices send each other, and write it as JSON."""
        points, about = scaling.measured("quick" if self.quick else "default")
        print(text(scaling.table(points)))
        print(about)
        path = self.out / "scaling.json"
        record = {"about": about, "points": [dataclasses.asdict(point) for point in points]}
        path.write_text(json.dumps(record, indent=2) + "\n")
        print(path)


class Plain:
    """A command without options."""

    def check(self) -> None:
        """Do nothing, as there are no options."""


@dataclasses.dataclass(frozen=True)
class List(Plain):
    """List the studies, each with its paper, its question, and its minutes on two cores."""

    def run(self) -> None:
        """Print one row a study."""
        rows = [
            {
                "study": study.name,
                "paper": study.paper,
                "question": study.question,
                "minutes (quick, default)": ", ".join(
                    f"{study.minutes[scale]:g}" for scale in ("quick", "default")
                ),
            }
            for study in STUDIES.values()
        ]
        print(text(pd.DataFrame(rows)))
        others = [name for name in COMMANDS if name not in STUDIES]
        print(f"\nother commands: {', '.join(others)}")


@dataclasses.dataclass(frozen=True)
class Roles(Plain):
    """Print which method runs on which kind of network, with their needs and offers."""

    def run(self) -> None:
        """Print the table."""
        roles.run()


@dataclasses.dataclass(frozen=True)
class Conformance(Plain):
    """Write golden trajectories of every method as JSON, and the checker that reads them."""

    out: Path = Path("experiments/conformance/suite")
    """The folder for the files; the repository's own by default, from its root."""

    def run(self) -> None:
        """Write the files and print their paths."""
        for path in conformance.write(self.out):
            print(path)


@dataclasses.dataclass(frozen=True)
class Methods(Plain):
    """Describe every method: how it is built, its iteration, family, needs, messages and source."""

    def run(self) -> None:
        """Print an entry a method."""
        methods.run()


def command_of(study: Study) -> Any:
    """Return the dataclass of a study's command: the common options and its own."""
    own = () if study.options is None else dataclasses.fields(study.options)
    fields = [(f.name, f.type, f) for f in own]
    made = dataclasses.make_dataclass(study.name, fields, bases=(Figure,), frozen=True)
    made.__doc__ = f"{study.question}\n\n{study.paper}."
    made.study = study  # type: ignore[attr-defined]
    return made


COMMANDS: dict[str, Any] = {name: command_of(study) for name, study in STUDIES.items()} | {
    "all": All,
    "benchmark": Benchmark,
    "scaling": Scaling,
    "conformance": Conformance,
    "methods": Methods,
    "roles": Roles,
    "list": List,
}


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run the experiment it names, in float64."""
    kinds = [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in COMMANDS.items()]
    union: Any = kinds[0]
    for kind in kinds[1:]:
        union = union | kind
    command: Any = tyro.cli(
        union,
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
