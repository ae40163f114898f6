"""Databases of teams: what they shall be, what a server has, the steps between; and who watches over them.

What others may use is named here.
"""

from datops_assets.databases.actual import Actual, Connect, read_actual
from datops_assets.databases.apply import GRACE, Applied, StepRefusedError, apply, read_plan, rotate
from datops_assets.databases.desired import Access, Limits, Login, TeamDatabase
from datops_assets.databases.detect import Thresholds
from datops_assets.databases.findings import Changes, Finding
from datops_assets.databases.kinds import KINDS
from datops_assets.databases.lints import Lint, lint
from datops_assets.databases.plan import Plan, Step, plan
from datops_assets.databases.secrets import (
    FileStore,
    Secret,
    SecretStore,
    SecretStoreError,
    StoreOfEach,
    VariableStore,
)
from datops_assets.databases.watchdog import Intervention, Patience, watch_once
from datops_assets.databases.watching import Look, look

__all__ = [
    "GRACE",
    "KINDS",
    "Access",
    "Actual",
    "Applied",
    "Changes",
    "Connect",
    "FileStore",
    "Finding",
    "Intervention",
    "Limits",
    "Lint",
    "Login",
    "Look",
    "Patience",
    "Plan",
    "Secret",
    "SecretStore",
    "SecretStoreError",
    "Step",
    "StepRefusedError",
    "StoreOfEach",
    "TeamDatabase",
    "Thresholds",
    "VariableStore",
    "apply",
    "lint",
    "look",
    "plan",
    "read_actual",
    "read_plan",
    "rotate",
    "watch_once",
]
