"""The steps from what a server has to what a team's database shall be, each the exact statement.

Values in, values out: no connection, no clock. Deletions come only of an explicit word, and last.
"""

from datops_assets.databases.plan.order import plan
from datops_assets.databases.plan.steps import VERIFIER, Plan, Step

__all__ = ["VERIFIER", "Plan", "Step", "plan"]
