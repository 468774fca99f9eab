"""`jd.optimizer`: Optax's own numbers, from one program for all of their values."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdopt as jd
from jaxdopt import loop, programs

KEY = jax.random.key(0)
FACTORIES = {
    "trace": {"decay": 0.9},
    "ema": {"decay": 0.9},
    "scale": {"step_size": 0.5},
    "clip": {"max_delta": 0.3},
    "clip_by_global_norm": {"max_norm": 0.4},
    "clip_by_block_rms": {"threshold": 0.3},
    "adaptive_grad_clip": {"clipping": 0.1},
    "add_decayed_weights": {"weight_decay": 0.1},
    "scale_by_adam": {"b1": 0.8, "b2": 0.9, "eps": 1e-3},
    "scale_by_adamax": {"b1": 0.8, "b2": 0.9},
    "scale_by_adadelta": {"rho": 0.9, "eps": 1e-3},
    "scale_by_amsgrad": {"b1": 0.8, "b2": 0.9},
    "scale_by_belief": {"b1": 0.8, "b2": 0.9},
    "scale_by_lion": {"b1": 0.8, "b2": 0.9},
    "scale_by_novograd": {"b1": 0.8, "b2": 0.9},
    "scale_by_optimistic_gradient": {"alpha": 0.9, "beta": 0.8},
    "scale_by_radam": {"b1": 0.8, "b2": 0.9},
    "scale_by_rms": {"decay": 0.8, "eps": 1e-3},
    "scale_by_rss": {"initial_accumulator_value": 0.2},
    "scale_by_stddev": {"decay": 0.8},
    "scale_by_trust_ratio": {"trust_coefficient": 0.9},
    "scale_by_yogi": {"b1": 0.8, "b2": 0.9},
    "sgd": {"learning_rate": 0.1, "momentum": 0.9},
    "adam": {"learning_rate": 0.1},
    "adamw": {"learning_rate": 0.1, "weight_decay": 0.1},
    "adagrad": {"learning_rate": 0.1},
    "lamb": {"learning_rate": 0.1},
    "lion": {"learning_rate": 0.1},
    "rmsprop": {"learning_rate": 0.1, "decay": 0.8},
}


QUICK = ("trace", "clip", "scale_by_adam")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in FACTORIES],
)
def test_a_factorys_numbers_are_one_program(name):
    """One trace for two values, of which both give what Optax itself gives."""
    factory, numbers = getattr(optax, name), FACTORIES[name]
    params, gradients = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.7])
    traces = []

    def two(optimizer):
        traces.append(1)
        _, state = optimizer.update(gradients, optimizer.init(params), params)
        return optimizer.update(2 * gradients, state, params)[0]

    jitted = jax.jit(two)
    for scale in (1.0, 0.5):
        own = {key: scale * value for key, value in numbers.items()}
        jitted.trace(jd.optimizer(factory, **own))
        plain = factory(**own)
        _, state = plain.update(gradients, plain.init(params), params)
        expected = plain.update(2 * gradients, state, params)[0]
        with jax.disable_jit():
            found = two(jd.optimizer(factory, **own))
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert len(traces) == 1 + 2


@pytest.mark.slow
def test_sweeps_and_comparisons_over_its_numbers():
    problem, clients = jd.problems.quadratic(4, 3), jd.networks.participation.full(4)
    setting, decays = (problem, clients, problem.start(), KEY), [0.5, 0.9]

    def method(decay, stepsize=0.1):
        return jd.FedAvg(stepsize, server=jd.optimizer(optax.trace, decay=decay))

    single = [
        jd.run(jd.FedAvg(0.1, server=optax.trace(d)), *setting, steps=3).history["gap"]
        for d in decays
    ]
    programs._KEPT.programs.clear()  # other tests may have made the same
    before = loop.simulate.made
    for decay, expected in zip(decays, single, strict=True):
        result = jd.run(method(decay), *setting, steps=3)
        np.testing.assert_allclose(result.history["gap"], expected, rtol=1e-12)
    sweep = jd.sweep(jd.run, over=("algorithm",))
    swept = sweep(jax.vmap(method)(jnp.array(decays)), *setting, steps=3)
    np.testing.assert_allclose(swept.history["gap"], single, rtol=1e-12)
    servers = {str(d): jd.optimizer(optax.trace, decay=d) for d in decays}
    dataset = jd.compare(  # the program of the sweep
        {"FedAvgM": jd.FedAvg(0.1)},
        *(problem, clients),
        over={"server": servers},
        steps=3,
        progress=False,
    )
    np.testing.assert_allclose(dataset["gap"].squeeze().values, single, rtol=1e-12)
    assert loop.simulate.made == before + 1


def test_what_is_no_number_is_static():
    optimizer = jd.optimizer(optax.trace, decay=np.float32(0.5), nesterov=True)
    assert jax.tree.leaves(optimizer) == [0.5]
    assert repr(optimizer) == "Optimizer(factory=trace, decay=0.5, nesterov=True)"
    assert jax.tree.leaves(jd.optimizer(optax.apply_every, k=2)) == []


def sm3(b2):
    zero = jnp.zeros(2)
    return jd.optimizer(optax.scale_by_sm3, b2=b2).update(zero, optax.scale_by_sm3().init(zero))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: jd.optimizer(optax.trace(0.9)),
            "factory is trace, no function; give one of Optax",
        ),
        (
            lambda: jax.vmap(lambda b: jd.FedAvg(0.1, server=optax.trace(b)))(jnp.ones(2)),
            r"server has a number in it that is swept .*give jd\.optimizer\(optax\.trace",
        ),
        (lambda: jd.optimizer(optax.trace), "trace fails with no arguments .*missing 1 required"),
        (lambda: jd.optimizer(optax.trace, decy=0.9), "trace fails with decy .*give its arguments"),
        (lambda: jd.optimizer(lambda a: a, a=0.5), r"returns 0\.5, which has no init and update"),
        (
            lambda: jd.FedAvg(0.1, server=jd.optimizer(optax.sgd, learning_rate=0.1)),
            "server turns gradients around",
        ),
        (
            lambda: jax.eval_shape(sm3, 0.5),
            r"scale_by_sm3 decides by the value of one of b2 .*give optax\.scale_by_sm3",
        ),
        (
            lambda: jd.FedAvg(0.1, server=jd.optimizer(optax.polyak_sgd, max_learning_rate=0.1)),
            "server cannot do with gradients and parameters alone .*the loss's value",
        ),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
