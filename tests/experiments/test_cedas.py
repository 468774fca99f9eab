"""CEDAS against its rivals, small: orders, rates, exactness and bits as measured."""

import csv

import pytest
import xarray as xr

import jaxdopt as jd
from experiments import cedas
from experiments.__main__ import main

PLAIN, ROUGH = "CEDAS, dither, 2 bits", "CEDAS, dither, 1 level"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One quick run: the folder of its results."""
    folder = tmp_path_factory.mktemp("cedas")
    main(["cedas", "--quick", "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def samples(out):
    return xr.load_dataset(out / "cedas_samples.nc")


@pytest.fixture(scope="module")
def full(out):
    return xr.load_dataset(out / "cedas_full_gradients.nc")


def rows(path):
    header, *lines = csv.reader(path.read_text().splitlines())
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}


def test_all_is_written_with_the_command_that_makes_it_again(out, samples):
    names = {path.name for path in out.iterdir()}
    tables = {f"cedas_{name}.csv" for name in ("methods", "transients", "exactness", "claims")}
    figures = {f"cedas_{name}.{kind}" for name in ("main", "messages") for kind in ("png", "pdf")}
    assert names == tables | figures | {"cedas_samples.nc", "cedas_full_gradients.nc"}
    assert all(path.stat().st_size > 0 for path in out.iterdir())
    assert samples.attrs["command"] == "python -m experiments cedas --quick --seed 0"


def test_compression_costs_the_more_the_rougher_and_choco_the_most(samples):
    ratio = cedas.ratios(samples.sel(theta=cedas.COMMON)).isel(step=slice(-10, None)).mean("step")
    order = ["SGD", "EDAS", PLAIN, ROUGH, "CHOCO-SGD, dither, 2 bits"]
    values = ratio.sel(algorithm=order).values
    assert sorted(values) == values.tolist()
    assert values[1] < 1.15
    assert values[2] < cedas.CLOSE
    assert values[-1] > 50


def test_cedas_becomes_as_good_as_centralized_sgd(samples):
    ratio = cedas.ratios(samples.sel(theta=cedas.COMMON)).sel(algorithm=PLAIN)
    time = float(cedas.transients(ratio))
    assert 500 < time < 2200
    assert float(ratio.sel(step=slice(200, 800)).max()) > cedas.CLOSE
    assert float(ratio.sel(step=slice(time, None)).max()) < cedas.CLOSE


def test_a_transient_ends_where_the_ratio_stays_low():
    step = [0, 10, 20, 30]
    values = [[1, 2, 1.6, 1.2], [1, 1, 2, 1], [1, 1, 1, 2], [1, 1, 1, 1]]
    ratio = xr.DataArray(values, {"step": step}, ("algorithm", "step"))
    times = cedas.transients(ratio).values
    assert times[[0, 1, 3]].tolist() == [30, 30, 0]
    assert times[2] != times[2]


def test_the_error_falls_as_one_over_the_steps(samples):
    for name in ("SGD", "EDAS", PLAIN):
        assert cedas.rate(samples, name) == pytest.approx(-1, abs=0.3)


def test_two_bits_save_most_of_the_traffic(out):
    table = rows(out / "cedas_methods.csv")
    nominal, exact = (
        [float(table[name][column]) for name in ("EDAS", PLAIN)]
        for column in (f"kbit to {cedas.TARGET:g}", "exact kbit")
    )
    assert nominal[0] / nominal[1] > 6
    assert exact[0] / exact[1] > 4
    assert (table[PLAIN]["bits a message"], table[PLAIN]["exact bits"]) == ("160", "224")


def test_with_full_gradients_choco_stops_and_cedas_does_not(full):
    lowest = jd.best(full, "error").error.min("step").to_series()
    assert lowest["CEDAS"] < cedas.EXACT
    assert lowest["CHOCO-SGD"] > 1e-3


def test_no_claim_is_refuted_but_the_one_that_takes_longer(out):
    claims = rows(out / "cedas_claims.csv")
    assert len(claims) == 9
    assert all(row["met"] != "no" for row in claims.values())
    asymptotic = next(row for name, row in claims.items() if "-> 1" in name)
    assert asymptotic["met"].endswith("of 2 below 1.5")


def test_the_defaults_are_those_of_the_library():
    gamma, alpha = cedas.parameters(jd.CEDAS(0.1, jd.compressors.RandomK(32)))
    assert (gamma, alpha) == (1 / 8, 0.45)
    assert cedas.message_bits(cedas.EXACT_METHODS["BEER"]) == (160, 224)
    assert cedas.message_bits(jd.DSGD(0.1)) == (2048, 2048)
