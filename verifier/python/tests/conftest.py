"""Where evidence and programs are."""

import os
import subprocess
from pathlib import Path

import pytest

# When the revocation lists of the vectors are fresh.
NOW = 1789862400


@pytest.fixture(scope="session")
def vectors() -> Path:
    if "COFFER_SNP_VECTORS" not in os.environ:
        pytest.skip("the genuine vectors are not here (COFFER_VECTORS)")
    return Path(os.environ["COFFER_SNP_VECTORS"])


@pytest.fixture(scope="session")
def milan(vectors: Path) -> Path:
    return vectors / "milan-v2-kvm"


@pytest.fixture(scope="session")
def coffer():
    def run(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run([os.environ["COFFER"], *words], capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture(scope="session")
def simulated(coffer, tmp_path_factory) -> Path:
    """Evidence of a simulator, with its root and the policy that accepts it."""
    folder = tmp_path_factory.mktemp("simulated") / "sample"
    made = coffer("sim", "evidence", "--out", str(folder))
    assert made.returncode == 0, made.stderr
    return folder
