"""The build: the same bytes in every place, folders with spaces in their names, and what make prints."""

import hashlib
import json
import os
import re
import shutil
import subprocess

import pytest

from conftest import TOP, quiet_environment, read_makefiles

COMPILERS = [pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name),
                                                         reason=f"no {name} here"))
             for name in ("gcc", "clang")]


def copy_of_tree(path):
    """PATH, with all of the source that a packager would have, as new as a fresh clone."""
    def unwanted(folder, names):
        at_top = os.path.samefile(folder, TOP)
        return [name for name in names
                if name in ("__pycache__", ".pytest_cache") or at_top and name in ("build", ".git")]

    shutil.copytree(TOP, path, ignore=unwanted, copy_function=shutil.copy)
    return path


def make(folder, *arguments):
    """What make prints in FOLDER."""
    done = subprocess.run(["make", *arguments], cwd=folder, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                          env=quiet_environment(DEB_BUILD_OPTIONS="nocheck"))
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return copy_of_tree(tmp_path_factory.mktemp("plain") / "tree")


@pytest.fixture(scope="module")
def spaced(tmp_path_factory):
    return copy_of_tree(tmp_path_factory.mktemp("with spaces") / "a tree" / "of mine")


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@pytest.mark.parametrize("compiler", COMPILERS)
def test_same_bytes_in_every_folder(plain, spaced, compiler):
    for folder in (plain, spaced):
        make(folder, "-j2", f"CC={compiler}", f"B=build/{compiler}")
    for name in ("libmcpool.so", "mcpool"):
        first, second = (digest(folder / "build" / compiler / name) for folder in (plain, spaced))
        assert first == second, name


def test_same_packages_in_every_folder(plain, debs, rpms):
    for kind, packages in (("deb", debs), ("rpm", rpms)):
        make(plain, kind)
        assert packages
        for path in packages.values():
            [other] = (plain / "build" / kind).rglob(os.path.basename(path))
            assert digest(path) == digest(other), os.path.basename(path)


def test_folders_with_spaces(spaced, tmp_path):
    root = tmp_path / "a root" / "for it"
    make(spaced, "-j2")
    make(spaced, "install", f"DESTDIR={root}", "PREFIX=/usr/my own")
    command = root / "usr" / "my own" / "bin" / "mcpool"
    said = subprocess.run([command, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    [version] = re.findall(r"^VERSION := (.*)$", read_makefiles(), re.M)
    assert said == f"mcpool {version}\n"
    assert len(list(root.rglob("libmcpool.so"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a root"]
    make(spaced, "uninstall", f"DESTDIR={root}", "PREFIX=/usr/my own")
    assert [path for path in root.rglob("*") if not path.is_dir()] == []


def test_commands_are_shown_when_asked_for(plain):
    target = "build/shown/shim/base/fmt.c.o"

    def say(*arguments):
        shutil.rmtree(plain / "build" / "shown", ignore_errors=True)
        return make(plain, "B=build/shown", target, *arguments)

    assert say() == "  CC      shim/base/fmt.c\n"
    assert say("-s") == ""
    assert re.fullmatch(rf"\S+ -std=.* -c shim/base/fmt\.c -o {target}\n", say("V=1"))


def test_inner_makes_show_commands_too(plain):
    target = "build/faults/libmcpool.so"
    for arguments, shows in (([], False), (["V=1"], True)):
        shutil.rmtree(plain / "build" / "faults", ignore_errors=True)
        assert (" -std=" in make(plain, "-j2", target, *arguments)) == shows


def test_help_has_every_target():
    said = make(TOP, "help")
    targets = {name for line in re.findall(r"^\.PHONY:((?:.*\\\n)*.*)", read_makefiles(), re.M)
               for name in line.replace("\\\n", " ").split()} - {"FORCE"}
    assert len(targets) >= 20
    assert set(re.findall(r"^  ([a-z][a-z0-9_-]+) +\S", said, re.M)) == targets


def test_help_has_every_variable():
    """Variables that a caller may set."""
    said = make(TOP, "help")
    variables = set(re.findall(r"^([A-Z_]+) \?=", read_makefiles(), re.M)) | {"B", "CC"}
    assert set(re.findall(r"^  ([A-Z_]+) +\S", said, re.M)) == variables


def test_compile_commands(plain):
    """compile_commands.json has every source file of the library and the command, as it is compiled."""
    make(plain, "compile_commands")
    with open(plain / "compile_commands.json", encoding="utf-8") as file:
        commands = {entry["file"]: entry for entry in json.load(file)}
    sources = {str(path.relative_to(plain)) for path in (plain / "shim").rglob("*.[cS]")}
    assert sources - set(commands) == set()
    entry = commands["shim/base/fmt.c"]
    (plain / os.path.dirname(entry["arguments"][-1])).mkdir(parents=True, exist_ok=True)
    subprocess.run(entry["arguments"], cwd=entry["directory"], check=True)
