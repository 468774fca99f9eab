"""Liars: networks some of whose agents lie, and whose honest agents aggregate robustly.

Who lies is the network's business: methods do not change. `robust` puts a rule of
`jaxdopt.aggregators` in the place of a network's weights or of a server's mean, and an attack of
`jaxdopt.attacks` between liars and those who hear them:

    (network @ x)ᵢ = R(xᵢ; xⱼ of all honest in-neighbors j; what each lying in-neighbor tells i)

The attack knows all honest messages that i is sent in this product, after their half-step. Liars
may tell everyone something else; their own rows follow the protocol on true messages. They are
never measured: in `jd.run`, metrics, divergence and costs are those of the agents that never lie.
"""

from jaxdopt.networks.liars.mixing import RobustMixing, told
from jaxdopt.networks.liars.robust import robust
from jaxdopt.networks.liars.server import RobustServer

__all__ = ["RobustMixing", "RobustServer", "robust", "told"]
