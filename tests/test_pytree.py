"""Frozen dataclasses as pytrees: what is checked, what is traced, what is part of the program."""

import dataclasses
import inspect
import re
from typing import Annotated, Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdopt as jd


@jd.pytree
class Thing:
    rate: jd.Nonnegative
    share: jd.Fraction = 0.5
    offset: float = -1.0
    payload: object = None
    count: int = jd.static(default=2)


@pytest.mark.parametrize("given", [1, np.int64(1), np.float32(1), jnp.ones(()), 1.0])
def test_numbers_are_stored_as_floats(given):
    stored = Thing(rate=given).rate
    assert jnp.issubdtype(jnp.result_type(stored), jnp.floating)
    assert float(stored) == 1.0


def test_signatures_have_the_names_of_types():
    class Even:
        def accept(self, name, value):
            jd.require(value % 2 == 0, f"{name} is {value}; give an even number.")
            return value

    @jd.pytree
    class Told(Thing):
        extra: Annotated[int, Even()] = 2
        model: jax.Array | None = None
        inner: "jd.Nonnegative" = 1.0
        times: float = jd.static(default=1.0)

    number = "float | Schedule"
    assert str(inspect.signature(Told)) == (
        f"(rate: {number}, share: {number} = 0.5, offset: {number} = -1.0, payload: object = None, "
        f"count: int = 2, extra: int = 2, model: Array | None = None, inner: {number} = 1.0, "
        "times: float = 1.0)"
    )
    assert str(inspect.signature(Told.__init__)).startswith(f"(self, rate: {number}, ")
    assert str(inspect.signature(jd.CHOCOSGD)) == (
        f"(stepsize: {number}, compressor: Compressor, consensus_stepsize: {number} | None = None, "
        "order: Literal['before', 'after'] = 'before')"
    )

    class Undecorated(Told):
        def __init__(self, own: int) -> None:
            super().__init__(own)

    assert str(inspect.signature(Undecorated)) == "(own: int) -> None"


def test_integer_arrays_become_floating():
    assert Thing(jnp.arange(3)[:, None]).rate.dtype == jnp.float64
    assert jax.vmap(Thing)(jnp.arange(3)).rate.dtype == jnp.float64


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("rate", -0.5, "rate is -0.5"),
        ("rate", np.array([[0.1], [-0.2]]), "rate is -0.2"),
        ("rate", True, "boolean"),
        ("rate", jnp.ones((2, 1), bool), "boolean"),
        ("rate", float("nan"), "finite"),
        ("rate", jnp.array(jnp.nan), "nan"),
        ("rate", "fast", "'fast'"),
        ("rate", None, "None"),
        ("rate", jnp.ones(4), r"shape \(4,\)"),
        ("rate", jnp.ones((4, 2)), r"shape \(4, 2\)"),
        ("share", 1.5, "share is 1.5; give at most 1"),
        ("offset", float("inf"), "offset is inf"),
    ],
)
def test_numbers_are_checked_when_a_user_constructs(field, value, words):
    with pytest.raises(ValueError, match=words):
        Thing(**{"rate": 0.1, field: value})


def test_jax_rebuilds_without_checks():
    thing = Thing(0.1)
    odd = jax.tree.map(lambda _: object(), thing)
    assert isinstance(odd, Thing)
    negative = jax.tree.map(lambda leaf: -leaf, Thing(0.1, payload=jnp.ones(2)))
    assert negative.rate == -0.1
    assert jax.tree.unflatten(jax.tree.structure(thing), jax.tree.leaves(thing)).count == 2


def test_leaves_have_the_fields_names():
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(
        Thing(0.1, payload={"a": 1.0}))]  # fmt: skip
    assert paths == [".rate", ".share", ".offset", ".payload['a']"]


def test_numbers_are_traced_and_static_fields_are_not():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(2)
    def double(thing):
        return thing.rate * thing.count

    assert float(double(Thing(0.5))) == 1.0
    assert float(double(Thing(0.7))) == pytest.approx(1.4)
    assert float(double(Thing(0.7, count=3))) == pytest.approx(2.1)
    with pytest.raises(AssertionError, match="traced"):
        double(Thing(0.7, count=4))


def test_instances_are_frozen_and_compare_by_identity():
    thing = Thing(0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        thing.rate = 0.2  # type: ignore[misc]
    assert thing != Thing(0.1)
    assert len({thing, Thing(0.1)}) == 2


def test_replace_checks_what_it_changes_and_knows_its_fields():
    assert isinstance(jd.replace(Thing(0.1), rate=1).rate, float)
    with pytest.raises(ValueError, match="rate is -1; give at least 0"):
        jd.replace(Thing(0.1), rate=-1)
    with pytest.raises(ValueError, match="Thing has no field 'speed'; it has rate, share"):
        jd.replace(Thing(0.1), speed=1)


def test_a_post_init_of_the_users_own_sees_checked_numbers():
    @jd.pytree
    class Own:
        rate: jd.Nonnegative

        def __post_init__(self):
            jd.require(self.rate < 1, f"rate is {self.rate}; give one below 1.")

    assert Own(0).rate == 0.0
    with pytest.raises(ValueError, match=r"rate is 2\.0; give one below 1"):
        Own(2)
    assert jax.vmap(Own)(jnp.array([0.5, 3.0])).rate.shape == (2,)  # silent for traced values


def test_grad_goes_through_a_method():
    slope = jax.grad(lambda thing: thing.rate**2 * thing.share)(Thing(3.0))
    assert (float(slope.rate), float(slope.share)) == (3.0, 9.0)


@jd.pytree
class Mine(jd.FedAvg):
    """A user's own variant, with one more number."""

    extra: jd.Nonnegative = 1.0


@jd.pytree
class Stricter(Mine):
    """A variant of the variant, with a check of its own."""

    def __post_init__(self):
        jd.require(self.extra < 5, f"extra is {self.extra}; give less than 5.")


@pytest.mark.parametrize("cls", [jd.FedAvg, Mine, Stricter])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"stepsize": -1.0}, "stepsize is -1; give at least 0"),
        ({"stepsize": 0.1, "local_steps": 0}, "local_steps is 0"),
        ({"stepsize": 0.1, "server": optax.adam(0.1)}, "turns gradients around"),
        ({"stepsize": 0.1, "own_steps": np.full((4, 1), 3)}, "give at most local_steps = 1"),
    ],
)
def test_a_subclass_keeps_the_checks_of_its_base(cls, options, says):
    with pytest.raises(ValueError, match=says):
        cls(**options)


def test_a_subclass_adds_its_own_checks_and_takes_schedules():
    for cls in (Mine, Stricter):
        with pytest.raises(ValueError, match="extra is -1; give at least 0"):
            cls(0.1, extra=-1.0)
    with pytest.raises(ValueError, match=r"extra is 7\.0; give less than 5"):
        Stricter(0.1, extra=7.0)
    problem = jd.problems.quadratic(4, 3)
    runs = [
        jd.run(
            cls(lambda k: 0.1 / (k + 1)), problem, jd.networks.Server(4), problem.start(),
            jax.random.key(0), steps=5,
        ).state.server
        for cls in (jd.FedAvg, Stricter)
    ]  # fmt: skip
    assert np.array_equal(*runs)
    assert jax.tree.leaves(Mine(1)) == [1.0, 1.0, 1.0]
    assert Mine.needs == jd.FedAvg.needs


def test_a_subclass_of_a_class_with_a_constructor_of_its_own_keeps_it():
    @jd.pytree
    class Coarse(jd.compressors.Dither):
        """Dithering by another name."""

    coarse: Any = Coarse
    assert coarse(bits=2).levels == jd.compressors.Dither(bits=2).levels
    with pytest.raises(ValueError, match="give one of them"):
        coarse()


def test_replace_asks_what_the_class_asks_and_leaves_stacks_alone():
    with pytest.raises(ValueError, match="local_steps is 0; give an integer of at least 1"):
        jd.replace(jd.FedAvg(0.1), local_steps=0)
    with pytest.raises(ValueError, match="compressor is 3; give one of jd"):
        jd.replace(jd.BEER(0.1, jd.compressors.TopK(1)), compressor=3)
    several = jd.replace(jax.vmap(jd.FedAvg)(jnp.array([0.1, 0.2])), local_steps=4)
    assert several.stepsize.shape == (2,)
    swept = jax.vmap(lambda rate: jd.replace(Thing(0.1), rate=rate))(jnp.array([0.1, -0.2]))
    assert swept.rate.shape == (2,)
    assert not jax.make_jaxpr(lambda rate: jd.replace(Thing(0.1), rate=rate))(0.2).eqns
    opaque = jd.problems.GaussianNoise(Plain(), 0.1)
    assert jd.replace(opaque, sigma=0.2).sigma == 0.2


class Plain:
    n, d = 2, 1

    def grad(self, x, key):
        return x


class Even:
    """A check of a user's own."""

    def accept(self, name: str, value: Any) -> Any:
        if value % 2:
            raise ValueError(f"{name} is {value}; give an even number.")
        return value // 2


@jd.pytree
class Annotations:
    steps: jd.Count = jd.static(default=1)
    order: Literal["first", "last"] = jd.static(default="first")
    half: Annotated[int, Even()] = jd.static(default=4)
    shared: "jd.Nonnegative | None" = None
    period: jd.Count | None = jd.static(default=None)


@jd.pytree
class Narrower(Annotations):
    order: Literal["last"] = jd.static(default="last")  # type: ignore[assignment]


class TestAnnotations:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"steps": 0}, "steps is 0; give an integer of at least 1."),
            ({"steps": 2.0}, "steps is 2.0; give an integer of at least 1."),
            ({"steps": True}, "steps is True; give an integer of at least 1."),
            ({"order": "middle"}, "order is 'middle'; give 'first' or 'last'."),
            ({"half": 3}, "half is 3; give an even number."),
            ({"period": 0}, "period is 0; give an integer of at least 1."),
        ],
    )
    def test_they_are_asked_of_a_constructor_and_of_replace(self, options, says):
        for make in (lambda: Annotations(**options), lambda: jd.replace(Annotations(), **options)):
            with pytest.raises(ValueError, match=re.escape(says)):
                make()

    def test_what_they_accept_is_stored(self):
        made = Annotations(steps=np.int64(3), half=6, period=None)  # type: ignore[arg-type]
        assert (made.steps, type(made.steps), made.half, made.period) == (3, int, 3, None)
        assert jax.tree.leaves(made) == []

    def test_a_subclass_may_ask_for_less_or_more(self):
        with pytest.raises(ValueError, match="order is 'first'; give 'last'"):
            Narrower(order="first")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="half is 3"):
            Narrower(half=3)
