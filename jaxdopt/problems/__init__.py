"""Problems: the agents' data, their gradients, and what is known about the solution."""

from jaxdopt import _repr
from jaxdopt.problems import data, neural, prox
from jaxdopt.problems.black_box import BlackBox
from jaxdopt.problems.composite import Composite
from jaxdopt.problems.factorization import matrix_factorization
from jaxdopt.problems.finite_sum import FiniteSum
from jaxdopt.problems.games import bilinear, robust_least_squares
from jaxdopt.problems.heterogeneity import general_variance, heterogeneity
from jaxdopt.problems.labels import flip_labels
from jaxdopt.problems.linear import (
    huber_regression,
    least_squares,
    logistic_regression,
    nonconvex_logistic_regression,
    softmax_regression,
)
from jaxdopt.problems.neural.flax import flax, next_token
from jaxdopt.problems.neural.mlp import mlp
from jaxdopt.problems.oracles import GaussianNoise, Minibatch
from jaxdopt.problems.problem import Given, Oracle, Problem
from jaxdopt.problems.quadratic import Quadratic, quadratic
from jaxdopt.problems.saddle import Saddle
from jaxdopt.problems.wrapper import Wrapper
from jaxdopt.problems.zeroth_order import ZerothOrder

__all__ = [
    "BlackBox",
    "Composite",
    "FiniteSum",
    "GaussianNoise",
    "Given",
    "Minibatch",
    "Oracle",
    "Problem",
    "Quadratic",
    "Saddle",
    "Wrapper",
    "ZerothOrder",
    "bilinear",
    "flax",
    "flip_labels",
    "general_variance",
    "heterogeneity",
    "huber_regression",
    "least_squares",
    "logistic_regression",
    "matrix_factorization",
    "mlp",
    "neural",
    "next_token",
    "nonconvex_logistic_regression",
    "prox",
    "quadratic",
    "robust_least_squares",
    "softmax_regression",
]

for _name, _shown in (("__repr__", _repr.text), ("_repr_html_", _repr.html)):
    setattr(data.Dataset, _name, _shown)  # from here, as `data` itself needs NumPy alone
