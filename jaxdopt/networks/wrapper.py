"""Networks around another network."""

from typing import Any

from jaxdopt import _wrapper, roles
from jaxdopt._pytree import pytree
from jaxdopt._wrapper import wrapped
from jaxdopt.networks.checks import require_network


@pytree
class Wrapper(_wrapper.Wrapper):
    """A network around another one, whose attributes it has but for those that it defines.

    Subclass it for wrappers of your own. Rounds, also with links cut or agents asleep, are wrapped
    again. One that changes what ``@`` does defines ``laplacian``, ``row`` and ``column`` as well,
    or drops their words from ``offers`` (see `jaxdopt.roles`).

    Args:
        network: the wrapped network.

    Raises:
        ValueError: this is no network.

    Example:
        >>> import jaxdopt as jd
        >>> @jd.pytree
        ... class Rounded(jd.networks.Wrapper):
        ...     offers = frozenset({"mixing", "all"})
        ...     def __matmul__(self, x):
        ...         return super().__matmul__(jnp.round(x))
        ...     def laplacian(self, x):
        ...         return self.network.laplacian(jnp.round(x))
        >>> pair = Rounded(jd.networks.Complete(2)).at(0, jax.random.key(0))
        >>> pair.n, (pair @ jnp.array([0.9, 2.2])).tolist()
        (2, [1.5, 1.5])
    """

    network: Any
    wraps = "network"
    renews = ("at", "cut", "awake")

    def __post_init__(self) -> None:
        """Refuse what is no network."""
        require_network(wrapped(self))

    @property
    def offers(self) -> frozenset[str]:
        """What every round can do; see `jaxdopt.roles`."""
        return roles.offers(wrapped(self))

    def __matmul__(self, x: Any) -> Any:
        return wrapped(self) @ x
