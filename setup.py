"""Package list and entry points; everything else about the distribution is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py


class BuildWithDbtProject(build_py):
    """Puts the shop's dbt project into the wheel, where its gold assets look for it outside a clone."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            left_behind = shutil.ignore_patterns("target", "logs", "dbt_packages", ".user.yml")
            inside = Path(self.build_lib) / "datops_assets" / "dbt_project"
            shutil.copytree("dbt_project", inside, ignore=left_behind, dirs_exist_ok=True)


setup(
    cmdclass={"build_py": BuildWithDbtProject},
    packages=find_namespace_packages(include=["datops_assets", "datops_assets.*"]),
    package_data={"datops_assets": ["**/*.yaml", "**/*.yml", "**/*.sql", "**/*.csv", "py.typed"]},
    entry_points={
        "console_scripts": ["datops = datops_assets.cli:main"],
        "dagster_dg_cli.registry_modules": ["datops_assets = datops_assets.components"],
    },
)
