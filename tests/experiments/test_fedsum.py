"""The study of FedSUM: exact under any participation; noise falls with nK and grows with age."""

import numpy as np
import pytest

from experiments import fedsum


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return fedsum.STUDY.results("quick")


def test_exactness_under_seven_patterns(results):
    errors = fedsum.final(results["patterns"])
    assert errors.sizes["pattern"] == 7
    assert float(errors.sel(algorithm=["FedSUM", "FedSUM-CR"]).max()) < fedsum.EXACT
    average = errors.sel(algorithm="FedAvg")
    assert float(average.min()) == float(average.sel(pattern="full")) > 1e-3
    assert float(average.max()) > 0.5


def test_noise_falls_with_clients_and_steps_and_grows_with_age(results):
    scaled = results["speedup"].scaled.transpose("law", "case")
    np.testing.assert_allclose(scaled[:, 1] / scaled[:, 0], 1, atol=0.35)
    # independent clients: E D² / E D = 2/p − 1, of each
    ages = [np.mean(2 / np.linspace(*bounds, 4)) - 1 for bounds in fedsum.LAWS.values()]
    np.testing.assert_allclose(scaled.mean("case") / scaled[0].mean(), ages, rtol=0.35)
    aged = results["delays"]
    assert aged.tau_max.sel(law="cyclic").values.tolist() == [0, 15]
    ratio = aged.error.mean("seed").isel(groups=-1) / aged.error.mean("seed").isel(groups=0)
    np.testing.assert_allclose(ratio, aged.age.isel(groups=-1), rtol=0.4)


def test_what_is_claimed_holds(results):
    verdicts = {c.text: c.judge(results)["verdict"] for c in fedsum.CLAIMS}
    assert set(verdicts.values()) == {"holds", "not judged"}
    for claim in ("FedSUM, -B and -CR reach", "FedAvg does not", "the stationary error grows"):
        (verdict,) = (v for text, v in verdicts.items() if text.startswith(claim))
        assert verdict == "holds"
