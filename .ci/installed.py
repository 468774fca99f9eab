"""Try the installed package: ``python -I .ci/installed.py SOURCES`` outside of the sources."""

import importlib
import pkgutil
import sys
from pathlib import Path

import jax

import jaxdopt as jd

package, sources = Path(jd.__file__).parent, Path(sys.argv[1]) / "jaxdopt"
assert "site-packages" in package.parts, package
for module in pkgutil.walk_packages(jd.__path__, "jaxdopt."):
    if module.name != "jaxdopt.problems.neural.models":  # modules of flax, which is an extra
        importlib.import_module(module.name)
missing = {
    path.relative_to(sources)
    for path in sources.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
} - {path.relative_to(package) for path in package.rglob("*")}
assert not missing, missing

problem = jd.problems.quadratic(8, 3)
network = jd.networks.metropolis(jd.graphs.ring(8))
result = jd.run(
    jd.GradientTracking(0.1), problem, network, problem.start(), jax.random.key(0), steps=500
)
assert result.history["gap"][-1] < 1e-6
print(jd.__version__, package)
