"""What every kind of source has to hold: for its author's tests, and for datops' own.

    from datops_assets.testing.sources import FarSide, SourceContract, SourceSuite

`SourceContract` holds the promises of the interface; `SourceSuite` holds what happens between two of
them: kills, cuts, slowness, size, change, lies, wrong credentials. A conftest.py switches on the
warehouse they run in: `pytest_plugins = ["datops_assets.testing.plugin"]`.
"""

from datops_assets.testing.sources.contract import SourceContract
from datops_assets.testing.sources.far_side import FarSide, Rig
from datops_assets.testing.sources.proxy import SlowOrCutProxy
from datops_assets.testing.sources.suite import FEW, SourceSuite

__all__ = ["FEW", "FarSide", "Rig", "SlowOrCutProxy", "SourceContract", "SourceSuite"]
