"""A Python environment with the package as its wheel, as somebody has it who has run `pip install`."""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from batch_assets_tests.module_imports import REPOSITORY

PROGRAMS = ("dg", "dagster", "dagster-daemon")


@dataclass(frozen=True)
class Guest:
    """Somebody's environment and Dagster project."""

    bin: Path
    project: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        own = {
            "HOME": str(self.home), "DAGSTER_HOME": str(self.home), "DAGSTER_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "COLUMNS": "200",
        }  # fmt: skip
        return kept | own | {"PATH": f"{self.bin}:{kept.get('PATH', '')}"}

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment in the project's folder; what it printed."""
        result = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{program} {' '.join(arguments)}\n{result.stdout}"
        return result.stdout


def make_guest(folder: Path, project: Path) -> Guest:
    """The wheel of this repository in a new environment, beside the dependencies that the tests run with."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    quickly = {**os.environ, "PIP_NO_INPUT": "1"}
    wheels, environment = folder / "wheels", folder / "environment"
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(REPOSITORY)]
    subprocess.run(build, env=quickly, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    [wheel] = wheels.glob("*.whl")
    install = [*pip, "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, env=quickly, check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = environment / "lib" / version / "site-packages"
    # Of a folder named so no .pth file is read, so the checkout that the tests import is not found by it.
    (packages / "beside.pth").write_text(f"{sysconfig.get_path('purelib')}\n{project / 'src'}\n")
    for program in PROGRAMS:
        _write_program(python, program)
    home = folder / "home"
    home.mkdir()
    # As without the file, but that the daemon tells nobody anything.
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return Guest(python.parent, project, home)


def _write_program(python: Path, name: str) -> None:
    """What pip writes for the entry point of an installed package."""
    [entry] = importlib.metadata.entry_points(group="console_scripts", name=name)
    file = python.with_name(name)
    file.write_text(
        f"#!{python}\nimport sys\nfrom {entry.module} import {entry.attr}\n"
        f"if __name__ == '__main__':\n    sys.exit({entry.attr}())\n"
    )
    file.chmod(0o755)
