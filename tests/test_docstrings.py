"""What users read of public classes and functions: every argument, and where methods come from."""

import doctest
import inspect
import re
import sys

import pytest

import jaxdopt as jd
from experiments.catalogue import listings

METRIC = ["state", "problem"]  # what every metric is a function of, as their module says


def public(module, found):
    """Add what a module offers, and the modules that it offers, to {object: name}."""
    everything = getattr(module, "__all__", None)
    for name in everything or [name for name in vars(module) if not name.startswith("_")]:
        value = getattr(module, name)
        home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "")
        if not home.startswith("jaxdopt") or value in found:
            continue
        if inspect.ismodule(value):
            found[value] = home
            public(value, found)
        elif (inspect.isclass(value) or inspect.isfunction(value)) and (
            everything or home == module.__name__
        ):
            found[value] = f"{module.__name__}.{name}"
    return found


PUBLIC = public(jd, {})
MODULES = [value for value in PUBLIC if inspect.ismodule(value)]
CLASSES = [value for value in PUBLIC if inspect.isclass(value)]
FUNCTIONS = [value for value in PUBLIC if inspect.isfunction(value)]
METHODS = [getattr(jd, name) for name in jd.algorithms.__all__]
NO_CONSTRUCTOR = {jd.problems.Problem, jd.roles.Missing}  # a protocol, an exception


def parameters(value):
    return list(inspect.signature(value).parameters)


def test_the_public_names_are_found():
    assert set(METHODS) <= set(CLASSES)
    assert {jd.problems.prox.L1, jd.networks.durations.Fixed, jd.schedules.Cosine} <= set(CLASSES)
    assert {jd.graphs.ring, jd.data.mnist, jd.networks.participation.rare} <= set(FUNCTIONS)
    assert {jd.networks.participation, jd.problems.prox, jd.plot} <= set(MODULES)


@pytest.mark.parametrize("value", [*CLASSES, *FUNCTIONS], ids=PUBLIC.get)
def test_signatures_have_names_of_types(value):
    if value not in NO_CONSTRUCTOR:
        assert not re.search(
            r"Annotated|Number\(|Integer\(| object at ", str(inspect.signature(value))
        )


@pytest.mark.parametrize("value", [v for v in CLASSES if v not in NO_CONSTRUCTOR], ids=PUBLIC.get)
def test_a_class_documents_what_it_is_made_of(value):
    described = listings.arguments(value.__doc__) or listings.arguments(value.__doc__, "Attributes")
    assert list(described) == parameters(value)
    assert all(len(text) > 1 for text in described.values()), described


@pytest.mark.parametrize("value", FUNCTIONS, ids=PUBLIC.get)
def test_a_function_documents_its_parameters(value):
    """In a list of all of them; or, where there is none, each in a sentence."""
    described, asked = listings.arguments(value.__doc__), parameters(value)
    if described:
        assert list(described) == asked
    elif asked != METRIC:
        assert [name for name in asked if not re.search(rf"\b{name}\b", value.__doc__)] == []


@pytest.mark.parametrize("value", [*MODULES, *CLASSES, *FUNCTIONS], ids=PUBLIC.get)
def test_a_docstring_says_something_itself(value):
    text = re.sub(r"\s+", " ", inspect.getdoc(value) or "").strip()
    assert text
    assert not re.fullmatch(r"(all else is )?(as|see|like)( in)? `?\S+", text.rstrip("."), re.I)
    for name, described in listings.arguments(value.__doc__).items():
        assert not re.fullmatch(r"as (in|for) `\w+`\.?", described), name


@pytest.mark.parametrize("method", METHODS, ids=PUBLIC.get)
def test_a_method_names_its_source_and_how_sure_its_listing_is(method):
    told = listings.listing(method)
    assert re.search(r"\((1|2)\d{3}\)", told.source), told.source  # a year
    assert set(told.words) <= set(listings.CONFIDENCE), told.confidence
    assert all((told.title, told.formula, told.iteration, told.tested))
    assert "Listing" not in str(sys.modules[method.__module__].__doc__)


def test_fields_of_a_listing():
    told = listings.listing(jd.OSGP)
    assert told.words == ("authors' code", "from memory")
    assert (
        told.confidence
        == """authors' code ("cta", whose ``synch_freq`` is τ − 1), from memory ("atc")"""
    )
    assert told.open == "which order the paper prints"
    assert told.source.endswith("arXiv 1811.10792, algorithm 2 (τ-OSGP)")
    assert told.formula.startswith('order "atc":  hᵢ = uᵢ − α gᵢ(xᵢ),')
    assert told.iteration.endswith("U⁺ = CU − αG.")
    assert told.about.startswith(told.title)
    assert told.about.endswith("a message goes where its own step sent it.")
    assert list(told.arguments) == ["stepsize", "overlap", "order"]
    assert told.arguments["overlap"].endswith('at least 0 ("atc") or 1 ("cta"); static.')
    assert told.departs == ""
    assert told.invariant.startswith("Σᵢ wᵢ and what is in flight")
    assert listings.listing(jd.DGD).tested.startswith("the fixed point above")


def test_the_overview_names_everything_and_its_example_runs():
    overview = str(jd.__doc__)
    assert sorted(set(jd.__all__) - set(re.findall(r"\w+", overview))) == []
    assert len(overview.splitlines()) < 80  # two screens
    runner = doctest.DocTestRunner()
    example = doctest.DocTestFinder(recurse=False).find(jd, "jaxdopt")[0]
    assert example.examples
    assert runner.run(example).failed == 0


@pytest.mark.parametrize(
    "method", [m for m in METHODS if "compressor" in parameters(m)], ids=PUBLIC.get
)
@pytest.mark.parametrize("given", [None, 2, jd.compressors.Sign])
def test_what_a_signature_calls_a_compressor_is_asked_for(method, given):
    assert "compressor: Compressor" in str(inspect.signature(method))
    if given is None and inspect.signature(method).parameters["compressor"].default is None:
        assert method(0.1, compressor=None).compressor is None
        return
    with pytest.raises(ValueError, match=r"compressor is .*; give one of jd\.compressors, such as"):
        method(0.1, compressor=given)
