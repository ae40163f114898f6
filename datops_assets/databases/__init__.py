"""Databases of teams: what they shall be, what a server has, the steps between; and who watches over them.

What others may use is named here.
"""

from datops_assets.databases.actual import Actual, Connect, read_actual
from datops_assets.databases.apply import GRACE, Applied, StepRefusedError, apply, read_plan, rotate
from datops_assets.databases.desired import Access, Limits, Login, TeamDatabase
from datops_assets.databases.plan import Plan, Step, plan
from datops_assets.databases.secrets import (
    FileStore,
    Secret,
    SecretStore,
    SecretStoreError,
    StoreOfEach,
    VariableStore,
)

__all__ = [
    "GRACE",
    "Access",
    "Actual",
    "Applied",
    "Connect",
    "FileStore",
    "Limits",
    "Login",
    "Plan",
    "Secret",
    "SecretStore",
    "SecretStoreError",
    "Step",
    "StepRefusedError",
    "StoreOfEach",
    "TeamDatabase",
    "VariableStore",
    "apply",
    "plan",
    "read_actual",
    "read_plan",
    "rotate",
]
