"""The recipes for Go and TypeScript, as far as that is known without Go and Node: `make interop` follows them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import google.api.annotations_pb2
import pytest
import yaml
from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest

from tests.interop import recipes, run

CLIENTS = recipes.ROOT / "clients"
BUF = Path(sys.executable).parent / "buf"
GOOGLEAPIS = Path(google.api.annotations_pb2.__file__).parents[1]
OURS = {f"artstore/identity/v1/{path.name}" for path in (recipes.ROOT / "protos").glob("artstore/**/*.proto")}
VENDORED = re.findall(r'"((?:api|rpc)/\w+\.proto)"', (recipes.ROOT / "protos/generate.py").read_text())
"""Google's protos that `make setup` puts beside ours."""

RECORDER = """
import sys
from google.protobuf.compiler import plugin_pb2
request = sys.stdin.buffer.read()
answer = plugin_pb2.CodeGeneratorResponse(supported_features=1)
name = plugin_pb2.CodeGeneratorRequest.FromString(request).file_to_generate[0] + ".asked"
answer.file.add(name=name, content=request.hex())
sys.stdout.buffer.write(answer.SerializeToString())
"""
"""A plugin of protoc that writes down what it was asked."""


def template(folder: str) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((CLIENTS / folder / "buf.gen.yaml").read_text())
    return read


def unpinned(package: dict[str, Any], lock: dict[str, Any]) -> set[str]:
    """What package.json leaves open, or its lock file knows otherwise."""
    asked = package.get("dependencies", {}) | package.get("devDependencies", {})
    locked = {name: lock["packages"].get(f"node_modules/{name}", {}).get("version") for name in asked}
    return {name for name, version in asked.items() if version != locked[name]}


def package_and_lock() -> tuple[dict[str, Any], dict[str, Any]]:
    names = ("package.json", "package-lock.json")
    package, lock = (json.loads((CLIENTS / "typescript" / name).read_text()) for name in names)
    return package, lock


def test_typescript_is_pinned() -> None:
    """package.json names one version of each package, the lock file the same ones, with a hash of each and no host."""
    package, lock = package_and_lock()
    assert not unpinned(package, lock)
    installed = [each for name, each in lock["packages"].items() if name]
    assert installed
    assert all(each["integrity"].startswith("sha512-") and "resolved" not in each for each in installed)


@pytest.mark.parametrize("version", ["^2.13.0", "2.12.0", "latest"])
def test_a_version_that_is_open_or_differs_is_found(version: str) -> None:
    package, lock = package_and_lock()
    package["devDependencies"]["@bufbuild/protoc-gen-es"] = version
    assert unpinned(package, lock) == {"@bufbuild/protoc-gen-es"}


def test_typescript_plugin_is_installed_by_the_lock_file() -> None:
    """The plugin and the health proto that the template names are in node_modules once `npm ci` has run."""
    package, lock = package_and_lock()
    modules = "clients/typescript/node_modules"
    programs = {name for each in lock["packages"].values() for name in each.get("bin", {})}
    plugins = {each["local"] for each in template("typescript")["plugins"]}
    assert plugins <= {f"{modules}/.bin/{name}" for name in programs}
    (health,) = (
        each["directory"] for each in template("typescript")["inputs"] if each["directory"].startswith(modules)
    )
    assert health.removeprefix(f"{modules}/").split("/")[0] in package["devDependencies"]


def tools_of(mod: str) -> list[str]:
    """The packages that go.mod declares tools."""
    (block,) = re.findall(r"^tool \((.*?)^\)", mod, re.MULTILINE | re.DOTALL)
    return sorted(str(block).split(), key=lambda tool: Path(tool).name)


def without_hash(mod: str, sums: str) -> set[str]:
    """The tools of go.mod whose module has no version there, or no hash in go.sum."""
    versions = dict(re.findall(r"^\t(\S+) (v\S+)", mod, re.MULTILINE))
    found = set()
    for tool in tools_of(mod):
        module = max((name for name in versions if f"{tool}/".startswith(f"{name}/")), key=len, default="")
        if not module or f"{module} {versions[module]} h1:" not in sums:
            found.add(tool)
    return found


def go_files() -> tuple[str, str]:
    return (CLIENTS / "go/go.mod").read_text(), (CLIENTS / "go/go.sum").read_text()


def test_go_plugins_are_pinned() -> None:
    """The template's plugins are go.mod's tools, each with a version there and its hash in go.sum."""
    mod, sums = go_files()
    named = [["go", "-C", "clients/go", "tool", Path(tool).name] for tool in tools_of(mod)]
    assert [each["local"] for each in template("go")["plugins"]] == named
    assert not without_hash(mod, sums)


def test_a_tool_without_its_hash_is_found() -> None:
    mod, sums = go_files()
    other, count = re.subn(r"(protoc-gen-go-grpc v1)\.\S+", r"\1.0.0", mod)
    assert count == 1
    assert without_hash(other, sums) == {"google.golang.org/grpc/cmd/protoc-gen-go-grpc"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What buf reads of the repository, with a recording plugin."""
    shutil.copyfile(recipes.ROOT / "buf.yaml", tmp_path / "buf.yaml")
    shutil.copytree(recipes.ROOT / "protos", tmp_path / "protos")
    for name in VENDORED:
        path = tmp_path / "build/googleapis/google" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(GOOGLEAPIS / name, path)
    (tmp_path / "recorder.py").write_text(RECORDER)
    return tmp_path


def asked(tree: Path, folder: str, edited: dict[str, Any] | None = None) -> list[CodeGeneratorRequest]:
    """What buf asks a plugin by a language's template; the inputs that npm brings are left out."""
    made = edited or template(folder)
    made["plugins"] = [{"local": [sys.executable, str(tree / "recorder.py")], "out": "made"}]
    made["inputs"] = [each for each in made["inputs"] if "node_modules" not in each["directory"]]
    (tree / "buf.gen.yaml").write_text(yaml.safe_dump(made))
    environment = os.environ | {"HOME": str(tree), "BUF_CACHE_DIR": str(tree / ".cache")}
    subprocess.run([BUF, "generate"], cwd=tree, env=environment, check=True, capture_output=True, timeout=60)
    return [
        CodeGeneratorRequest.FromString(bytes.fromhex(each.read_text())) for each in (tree / "made").rglob("*.asked")
    ]


def packages(requests: list[CodeGeneratorRequest]) -> dict[str, str]:
    """The Go package of every file that the plugin was told of."""
    return {file.name: file.options.go_package for each in requests for file in each.proto_file}


def test_go_makes_ours_and_imports_the_rest(tree: Path) -> None:
    """Stubs of all our protos, in a package of the module in go.mod; google's stay where google has published them."""
    requests = asked(tree, "go")
    assert {name for each in requests for name in each.file_to_generate} == OURS
    (module,) = re.findall(r"^module (\S+)$", (CLIENTS / "go/go.mod").read_text(), re.MULTILINE)
    (out,) = {each["out"].removeprefix("clients/go/") for each in template("go")["plugins"]}
    found = packages(requests)
    assert {found[name] for name in OURS} == {f"{module}/{out}/artstore/identity/v1;identityv1"}
    assert found["google/api/http.proto"].startswith("google.golang.org/genproto/")


def test_go_would_miss_google_without_the_exception(tree: Path) -> None:
    """Managed mode renames google's packages too unless told not to, and then nothing compiles."""
    edited = template("go")
    del edited["managed"]["disable"]
    assert not packages(asked(tree, "go", edited))["google/api/http.proto"].startswith("google.golang.org/genproto/")


def test_typescript_makes_all_that_it_imports(tree: Path) -> None:
    """Stubs of our protos, of google's that these import, and of ErrorInfo; protobuf's own come with its package."""
    requests = asked(tree, "typescript")
    made = {name for each in requests for name in each.file_to_generate}
    assert made == OURS | {f"google/{name}" for name in VENDORED}
    imported = {name for each in requests for file in each.proto_file for name in file.dependency}
    assert {name for name in imported if not name.startswith("google/protobuf/")} <= made


@pytest.mark.parametrize(("language", "folder"), [("Go", "go"), ("TypeScript", "typescript")])
def test_the_readme_has_a_recipe(language: str, folder: str) -> None:
    """`make interop` follows the README's lines: they make the stubs by the template, and end in the example."""
    lines = recipes.recipe(language)
    assert language in recipes.LANGUAGES
    assert f"buf generate --template clients/{folder}/buf.gen.yaml" in lines
    assert lines[-1].split()[-1].endswith("example")
    assert (CLIENTS / folder / "example").is_dir()


@pytest.mark.parametrize(
    "text", ["## Go\nno lines\n", "## Go\n```sh\na\n```\n```sh\nb\n```\n", "## Rust\n```sh\na\n```\n"]
)
def test_a_readme_without_one_recipe_is_refused(text: str) -> None:
    with pytest.raises(LookupError, match="one recipe for Go"):
        recipes.recipe("Go", text)


def test_the_readme_names_the_versions_that_are_needed() -> None:
    """Those of go.mod and package.json."""
    (go,) = re.findall(r"^go (\d+\.\d+)", go_files()[0], re.MULTILINE)
    node = package_and_lock()[0]["engines"]["node"].removeprefix(">=")
    shown = recipes.README.read_text()
    assert f"Needs Go {go}" in shown
    assert f"Needs Node.js {node} or newer" in shown


def test_every_client_is_in_the_table() -> None:
    folders = {path.name for path in CLIENTS.iterdir() if path.is_dir()}
    assert set(re.findall(r"^\| [^|]+ \| \[(\w+)/\]", recipes.README.read_text(), re.MULTILINE)) == folders


def test_every_link_leads_somewhere() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", recipes.README.read_text()):
        assert (CLIENTS / link).exists(), link


def test_what_is_missing_is_named() -> None:
    assert not run.refusal(lambda name: f"/bin/{name}")
    assert (
        run.refusal(lambda name: None if name == "go" else name) == "make interop needs node, npm, go; not found: go."
    )


def test_it_refuses_in_one_sentence(tmp_path: Path) -> None:
    """Without Node the whole of `make interop` is refused, before anything is started or downloaded."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.interop.run"],
        cwd=recipes.ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == run.UNCONFIGURED
    assert re.fullmatch(r"make interop needs node, npm, go; not found: node, npm(, go)?\.\n", done.stderr)
    assert not done.stdout
