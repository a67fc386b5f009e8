"""What deploy/ holds: Ray's config, and the commands of the containers, as far as they run without any."""

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
CONFIG = yaml.safe_load((DEPLOY / "ray" / "serve.yaml").read_text())
CONTAINERS = ("edge", "gpu")
MOST_LINES = 150


def instructions(name: str) -> dict[str, list[str]]:
    """The instructions of a container's file, without comments and with its lines joined."""
    lines = (DEPLOY / f"Containerfile.{name}").read_text().splitlines()
    joined = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    instruction_lines: dict[str, list[str]] = {}
    for line in joined.splitlines():
        word, _, arguments = line.partition(" ")
        instruction_lines.setdefault(word, []).append(arguments.strip())
    return instruction_lines


def test_ray_gets_our_decoder_and_its_own_router() -> None:
    assert len((DEPLOY / "ray" / "app.py").read_text().splitlines()) <= MOST_LINES
    (application,) = CONFIG["applications"]
    module, _, name = application["import_path"].partition(":")
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert application["runtime_env"]["env_vars"]["RAY_USAGE_STATS_ENABLED"] == "0"
    (deployment,) = application["deployments"]
    assert deployment["name"] in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    router = deployment["request_router_config"]
    assert router["request_router_class"].endswith(".consistent_hash_router.ConsistentHashRouter")
    assert router["request_router_kwargs"] == {"num_fallback_replicas": 0}
    assert CONFIG["http_options"]["host"] == "127.0.0.1"


def test_ray_is_imported_nowhere_else() -> None:
    importing = [
        str(path.relative_to(ROOT))
        for folder in ("rtdecode", "streaming", "train", "export", "benchmarks", "deploy")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"^\s*(?:from|import) ray\b", path.read_text(), re.MULTILINE)
    ]
    assert importing == ["deploy/ray/app.py"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_copies_what_there_is_and_checks_its_health(name: str) -> None:
    instruction_lines = instructions(name)
    for line in instruction_lines["COPY"]:
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources)
    (install,) = (word for line in instruction_lines["RUN"] for word in re.findall(r"'(\.\[[\w,]+\])'", line))
    extras = (ROOT / "pyproject.toml").read_text()
    assert all(f"\n{extra} = [" in extras for extra in install[2:-1].split(","))
    assert " CMD " in instruction_lines["HEALTHCHECK"][0]


def check_of(name: str) -> str:
    return instructions(name)["HEALTHCHECK"][0].partition(" CMD ")[2].strip()


def run_check(name: str, *, port: str, patience_s: int = 5) -> subprocess.CompletedProcess[str]:
    """Run the check of a container with this Python, on another port of this machine."""
    command = check_of(name).replace("8765", port).replace("timeout=5", f"timeout={patience_s}")
    words = ["sh", "-c", command.replace("python", sys.executable, 1)]
    return subprocess.run(words, check=False, capture_output=True, text=True)


def test_the_edge_is_well_while_its_report_is_rewritten(tmp_path: Path) -> None:
    command = check_of("edge").replace("/session", str(tmp_path))

    def is_well() -> bool:
        return subprocess.run(["sh", "-c", command], check=False).returncode == 0

    assert not is_well()
    report = tmp_path / "out" / "report.json"
    report.parent.mkdir()
    report.touch()
    assert is_well()
    old = time.time() - 60
    os.utime(report, (old, old))
    assert not is_well()


def test_a_port_behind_which_no_decoder_answers_is_not_well() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        # It takes connections and says nothing.
        silent = run_check("gpu", port=port, patience_s=1)
        assert silent.returncode != 0
        assert "timed out" in silent.stderr
    closed = run_check("gpu", port=port)
    assert closed.returncode != 0
    assert "refused" in closed.stderr


@pytest.mark.full
@pytest.mark.parametrize("name", CONTAINERS)
def test_the_commands_of_a_container_run_in_a_fresh_environment(name: str, tmp_path: Path) -> None:
    """All but what is fetched: the packages of this environment stand in for those of the registry."""
    instruction_lines = instructions(name)
    place = tmp_path / "rtdecode"
    place.mkdir()
    for line in instruction_lines["COPY"]:
        *sources, target = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                unused = shutil.ignore_patterns("__pycache__", "*.egg-info")
                shutil.copytree(ROOT / source, place / target, ignore=unused)
            else:
                shutil.copy(ROOT / source, place)
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = next(path for path in sys.path if path.endswith(f"{version}/site-packages"))
    (environment / "lib" / version / "site-packages" / "base.pth").write_text(f"{site_packages}\n")
    (install,) = (line.partition(" && ")[0] for line in instruction_lines["RUN"])
    words = [str(environment / "bin" / "python"), "-m", *install.replace("'", "").split()]
    words += ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--ignore-installed"]
    bare = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(words, cwd=place, check=True, env=bare)
    entry = [word.strip('"') for word in instruction_lines["ENTRYPOINT"][0].strip("[]").split(", ")]
    command = [str(environment / "bin" / entry[0]), *entry[1:], "--help"]
    done = subprocess.run(command, cwd=tmp_path, check=True, env=bare, capture_output=True, text=True)
    assert "--token-file" in done.stdout


@pytest.mark.full
def test_a_replica_that_is_killed_costs_no_window() -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "deploy.ray.demo"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "replicas was killed" in done.stdout
