"""A figure of a paper as a declaration: what is run, what is claimed, what is drawn.

A `Study` has parts; a part is a few `Program`s, each one compiled sweep whose result is one cached
file, joined to one dataset. Claims measure the datasets and say what would hold; figures are rows
of panels. Files, tables, the command line, interruptions and the report are here, once:

    OUT/NAME/PART.nc            each part's dataset
    OUT/NAME/FIGURE.png, .pdf   each figure
    OUT/NAME/TABLE.csv          each table
    OUT/NAME/claims.json        what is claimed and what was measured, see `experiments.claims`
    OUT/NAME/cache/             finished programs: the same command goes on where it was stopped

A cached file is named by the `fingerprint` of its program, which reads values, code and the
constants it names; whatever changes is run again, and nothing else.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

import jaxdopt as jd
from experiments import claims as judged
from experiments.claims import Claim
from experiments.panels import Figure, NotRun
from experiments.tables import text
from jaxdopt.fingerprint import fingerprint
from jaxdopt.settings import ONLY

STUDIES: dict[str, "Study"] = {}
SCALES = ("quick", "default", "full")


@dataclasses.dataclass(frozen=True)
class Axis:
    """A swept argument's dimension in the dataset, with a label for every member."""

    dim: str
    labels: Sequence[Any]


@dataclasses.dataclass(frozen=True)
class Program:
    """One sweep, compiled once, whose labelled result is kept in one file.

    Args:
        arguments: of ``function``, by name; those in ``over`` are stacked.
        over: {argument: Axis}, see `jd.sweep`; none for a single call.
        function: `jd.run`, `jd.compare`, or any function that returns a `Result`, a dataset, or
            arrays by name; axes of arrays beyond the swept ones are called NAME_0, NAME_1, ....
        reduce: what to keep of the dataset, such as a few of its variables.
    """

    arguments: Mapping[str, Any]
    over: Mapping[str, Axis] = dataclasses.field(default_factory=dict)
    function: Callable[..., Any] = jd.run
    reduce: Callable[[xr.Dataset], xr.Dataset] | None = None

    def run(self) -> xr.Dataset:
        """Return the labelled result."""
        axes = {axis.dim: list(axis.labels) for axis in self.over.values()}
        names = {argument: axis.dim for argument, axis in self.over.items()}
        function = jd.sweep(self.function, over=names) if names else self.function
        result = function(**self.arguments)
        if isinstance(result, jd.Result):
            dataset = jd.label(result, **axes)
        elif isinstance(result, xr.Dataset):
            dataset = result
        else:
            arrays = {name: np.asarray(values) for name, values in result.items()}
            dataset = xr.Dataset(
                {
                    name: (
                        [*axes, *(f"{name}_{i}" for i in range(values.ndim - len(axes)))],
                        values,
                    )
                    for name, values in arrays.items()
                },
                axes,
            )
        return dataset if self.reduce is None else self.reduce(dataset)

    def kept(self, folder: Path) -> xr.Dataset:
        """Return the result, from its file in ``folder`` if it is there, else run and write it."""
        path = folder / f"{fingerprint(self)}.nc"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write(self.run(), path)
        return xr.load_dataset(path, engine="h5netcdf")


@dataclasses.dataclass(frozen=True)
class Part:
    """Programs whose datasets lie along one dimension, or several.

    Args:
        dim: the dimension of the programs' labels; a tuple, with tuples of labels, for several;
            None for a single program.
        programs: (world, done) to {label: Program}; ``done`` holds the earlier parts' datasets.
            With no programs at a scale the part is left out; None for a part that is derived from
            earlier ones, of which ``derive`` gets none.
        derive: (dataset, world, done) to the part's dataset.
    """

    dim: str | tuple[str, ...] | None
    programs: Callable[[Any, "Results"], Mapping[Any, Program]] | None
    derive: Callable[[xr.Dataset, Any, "Results"], xr.Dataset] | None = None


class Results(dict[str, xr.Dataset]):
    """The datasets by part, with the ``world`` and the ``scale``; NotRun for parts left out."""

    def __init__(self, world: Any, scale: str) -> None:
        super().__init__()
        self.world, self.scale = world, scale

    def __missing__(self, part: str) -> Any:
        raise NotRun(f"the part {part!r} is not run at the scale {self.scale!r}")


def derived(measure: Callable[[Results], xr.Dataset]) -> Part:
    """Return a part that is computed from the earlier ones."""
    return Part(None, None, lambda _, __, done: measure(done))


@dataclasses.dataclass
class Study:
    """An experiment; constructing it enters it in `STUDIES`.

    Args:
        name: of the command and the folder.
        paper: authors, year, title or short name, arXiv id.
        question: what the study answers, one sentence.
        scales: {"quick", "default", "full": sizes}; "full" has the paper's sizes where known.
        parts: by name, run in order.
        claims: what the paper or theory says, to be measured.
        figures: {name: Figure, or rows of panels}.
        minutes: by scale, on two cores.
        world: (sizes, seed, **options) to whatever programs need: problems, networks, sizes; by
            default a namespace of the seed and of the sizes, which then are a dictionary.
        tables: {name: (title, results to a dataset or data frame)}, printed and written as CSV.
        options: a dataclass of further command line options, or None.
        data: world to a sentence on the data.
    """

    name: str
    paper: str
    question: str
    scales: Mapping[str, Any]
    parts: Mapping[str, Part]
    claims: Sequence[Claim]
    figures: Mapping[str, Any]
    minutes: Mapping[str, float]
    world: Callable[..., Any] = lambda sizes, seed: SimpleNamespace(seed=seed, **sizes)
    tables: Mapping[str, tuple[str, Callable[[Results], Any]]] = dataclasses.field(
        default_factory=dict
    )
    options: type | None = None
    data: Callable[[Any], str] = lambda _: "synthetic"

    def __post_init__(self) -> None:
        """Enter the study in `STUDIES`."""
        STUDIES[self.name] = self

    def results(
        self,
        scale: str = "quick",
        seed: int = 0,
        cache: Path | None = None,
        progress: bool = False,
        **options: Any,
    ) -> Results:
        """Return the datasets of all parts; finished programs are kept in ``cache``, if given."""
        world = self.world(self.scales[scale], seed, **options)
        results = Results(world, scale)
        for name, part in self.parts.items():
            programs = part.programs(world, results) if part.programs else {}
            found: dict[Any, xr.Dataset] = {}
            with tqdm(total=len(programs), desc=name, unit="program", disable=not progress) as bar:
                for at, program in programs.items():
                    bar.set_postfix_str("" if part.dim is None else str(at))
                    found[at] = program.run() if cache is None else program.kept(cache)
                    bar.update()
            try:
                if found or part.programs is None:
                    dataset: Any = joined(found, part.dim) if found else None
                    derive = part.derive
                    results[name] = dataset if derive is None else derive(dataset, world, results)
            except NotRun:  # derived from what is not run
                continue
        return results

    def run(
        self, scale: str, out: Path, seed: int = 0, progress: bool = True, **options: Any
    ) -> list[Path]:
        """Run everything, print the tables and the claims, and return the files written."""
        began = time.perf_counter()
        folder = out / self.name
        folder.mkdir(parents=True, exist_ok=True)
        results = self.results(scale, seed, folder / "cache", progress, **options)
        command = self.command(scale, out, seed, options)
        data = self.data(results.world)
        print(f"{self.name}: {self.question}\n{self.paper}\ndata: {data}")
        written: list[Path] = []
        for name, (title, rows) in self.tables.items():
            try:
                table = frame(rows(results))
            except NotRun:
                continue
            print(f"\n{title}\n\n{text(printed(table))}")
            written.append(folder / f"{name}.csv")
            table.to_csv(written[-1], index=False)
        for name, dataset in results.items():
            written.append(folder / f"{name}.nc")
            write(dataset.assign_attrs(command=command), written[-1])
        figures = []
        for name, figure in self.figures.items():
            figure = Figure.of(figure)
            paths = figure.write(results, folder / name)
            if paths:
                written += paths
                files = {path.suffix[1:]: path.name for path in paths}
                figures.append({"name": name, **files, "width": figure.width})
        verdicts = [claim.judge(results) for claim in self.claims]
        print(f"\nclaims\n\n{text(judged.table(verdicts))}")
        written.append(folder / "claims.json")
        about = {
            "study": self.name,
            "paper": self.paper,
            "question": self.question,
            "scale": scale,
            "seed": seed,
            "command": command,
            "seconds": round(time.perf_counter() - began, 1),
            "versions": judged.versions(),
            "data": data,
            "figures": figures,
        }
        judged.write(about, verdicts, written[-1])
        print(f"\nagain: {command}\n")
        return written

    def command(self, scale: str, out: Path, seed: int, options: Mapping[str, Any]) -> str:
        """Return the whole command that gives these results."""
        words = ["python -m experiments", self.name]
        words += {"quick": ["--quick"], "default": []}.get(scale, [f"--scale {scale}"])
        words += [f"--out {out}"] * (out != Path("results")) + [f"--seed {seed}"] * (seed != 0)
        words += [f"--{name} {value}" for name, value in options.items() if value is not None]
        return " ".join(words)


def comparison(
    method: Any,
    keep: Sequence[str] | None = None,
    *,
    axes: Mapping[str, Axis] | None = None,
    reduce: Callable[[xr.Dataset], xr.Dataset] | None = None,
    name: str | None = None,
    **options: Any,
) -> Program:
    """Return the `jd.compare` of one method, without the dimension "algorithm".

    There is no dimension "network" either, unless networks are given by name.

    Args:
        method: the method, or a `jd.Setting`.
        keep: variables to keep in the end, of those that are there; all by default.
        axes: {dimension: its name and labels in the dataset}, such as
            ``{"stepsize": Axis("scaled", grid)}`` for stepsizes that are labelled by α L.
        reduce: the dataset with these labels to one that has what is to be kept.
        name: of the method in messages and in ``over``; its class by default.
        options: the other arguments of `jd.compare`.
    """
    name, axes = name or type(method).__name__, axes or {}

    def reduced(dataset: xr.Dataset) -> xr.Dataset:
        single = ["algorithm"] + ["network"] * (dataset.network.values.tolist() == [ONLY])
        dataset = dataset.isel(dict.fromkeys(single, 0), drop=True)
        dataset = dataset.rename({dim: axis.dim for dim, axis in axes.items() if dim != axis.dim})
        dataset = dataset.assign_coords({axis.dim: list(axis.labels) for axis in axes.values()})
        dataset = dataset if reduce is None else reduce(dataset)
        return dataset if keep is None else dataset[[name for name in keep if name in dataset]]

    arguments = {"algorithms": {name: method}, "progress": False, **options}
    return Program(arguments, function=jd.compare, reduce=reduced)


def comparisons(
    methods: Mapping[str, Any],
    keep: Sequence[str] | None = None,
    *,
    over: Mapping[str, Any] | None = None,
    **shared: Any,
) -> dict[str, Program]:
    """Return the `comparison` of each method, for a part along "algorithm".

    Args:
        methods: {name: method or `jd.Setting`}.
        keep: variables of the dataset to keep; all by default.
        over: {field: values} for all, or {name: {field: values}}.
        shared: the other arguments of `comparison`.
    """
    over = over or {}
    grids = dict.fromkeys(methods, over)
    if set(over) <= set(methods):
        grids = {name: {at: over[at] for at in over if at == name} for name in methods}
    return {
        name: comparison(method, keep, name=name, over=grids[name] or None, **shared)
        for name, method in methods.items()
    }


def keys(seeds: Iterable[int]) -> jax.Array:
    """Return the keys ``jax.random.key(seed)``, stacked."""
    return jax.vmap(jax.random.key)(np.asarray(list(seeds)))


def joined(parts: Mapping[Any, xr.Dataset], dim: str | tuple[str, ...] | None) -> xr.Dataset:
    """Return datasets by label as one, along one dimension or several; missing values are NaN.

    Along a dimension that the datasets have, they follow one another without further labels.
    """
    if dim is None:
        (whole,) = parts.values()
        return whole
    if isinstance(dim, tuple):
        if len(dim) == 1:
            return joined({at: part for (at,), part in parts.items()}, dim[0])
        firsts = dict.fromkeys(at[0] for at in parts)
        inner = {
            first: {at[1:]: part for at, part in parts.items() if at[0] == first}
            for first in firsts
        }
        return joined({first: joined(of, dim[1:]) for first, of in inner.items()}, dim[0])
    names = {name for part in parts.values() for name in part.data_vars}
    flags = {
        name: False
        for name in names
        if all(part[name].dtype == bool for part in parts.values() if name in part)
    }
    has = all(dim in part.dims for part in parts.values())
    index: Any = dim if has else xr.DataArray(list(parts), dims=dim, name=dim)
    fill: Any = {name: flags.get(name, np.nan) for name in names}
    whole: Any = xr.concat(
        list(parts.values()),
        index,
        join="outer",
        data_vars="all",
        coords="different",
        compat="equals",
        fill_value=fill,
    )
    return whole


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset at once: to a temporary file, which then takes the path's place.

    Without the encoding of files that it was read from: the first one's would cut longer labels.
    """
    temporary = path.with_suffix(f".{os.getpid()}.part")
    dataset.drop_encoding().to_netcdf(temporary, engine="h5netcdf")
    temporary.replace(path)


def frame(rows: Any) -> pd.DataFrame:
    """Return a dataset or a data frame as a data frame with a row a combination of labels."""
    if isinstance(rows, xr.Dataset):
        order: Any = list(dict.fromkeys(str(d) for each in rows.values() for d in each.dims))
        rows = rows.to_dataframe(dim_order=order).reset_index()
        rows = rows.dropna(how="all", subset=[c for c in rows if c not in order])
    return rows


def printed(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of text: three digits a number, a dash where there is none."""

    def cell(value: Any) -> str:
        if isinstance(value, float | np.floating):
            return f"{value:.3g}" if value == value else "-"
        return str(value)

    return table.map(cell)
