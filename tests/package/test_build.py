"""The build: the same bytes in every place, folders with spaces in their names, and what make prints."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
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


# What an installation touches.

CHANGING = ("open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,symlink,symlinkat,link,"
            "linkat,chmod,fchmodat,chown,fchownat,lchown,truncate,utimensat,mknod,mknodat")
MOVING = "chdir,fchdir,fork,vfork,clone,clone3"


def changed(trace, start):
    """The paths that the traced calls of make in the folder START, and of its children, made, changed or removed."""
    found, folders = set(), {}
    for line in trace.splitlines():
        call = re.match(r"(\d+) +(\w+)\((.*)\) += (\d+)", line)
        if not call:
            continue
        pid, name, arguments, result = call.groups()
        here = folders.setdefault(pid, start)
        # Also "AT_FDCWD</folder>, "path"": strace writes the folder behind each fd.
        paths = [os.path.normpath(os.path.join(folder or here, path or ""))
                 for folder, path in re.findall(r'(?:(?:AT_FDCWD|\b\d+)<([^>]*)>(?:, )?)?(?:"([^"]*)")?', arguments)
                 if folder or path]
        if name in ("chdir", "fchdir"):
            folders[pid] = paths[0]
        elif name in ("fork", "vfork", "clone", "clone3"):
            folders[result] = here
        elif not name.startswith("open") or re.search("O_(WRONLY|RDWR|CREAT|TRUNC)", arguments):
            found |= set(paths)
    return found


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace here")
@pytest.mark.parametrize("as_root, packages", [(True, True), (True, False), (False, False)])
def test_installation_touches_nothing_outside(plain, as_root, packages):
    """Neither a package's, with DESTDIR, nor one in the home directory."""
    if os.geteuid() != 0:
        pytest.skip("only root can be both users")
    make(plain, "-j2")
    home = plain / f"home-{as_root:d}{packages:d}"
    home.mkdir()
    user = [] if as_root else ["setpriv", "--reuid=64321", "--regid=64321", "--clear-groups"]
    if not as_root:
        os.chown(home, 64321, 64321)
        for path in [plain, *plain.parents]:
            if path.stat().st_uid == os.geteuid() and not path.stat().st_mode & 0o005 == 0o005:
                path.chmod(path.stat().st_mode | 0o055)
    places = [f"DESTDIR={home}", "PREFIX=/usr"] if packages else [f"PREFIX={home}/.local"]
    for target in ("install", "uninstall"):
        done = subprocess.run(["strace", "-f", "-qq", "-y", "-e", f"trace={CHANGING},{MOVING}", "-o", plain / "trace", *user, "make",
                               target, *places], cwd=plain, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              check=False, env=quiet_environment(HOME=str(home), TMPDIR=str(home)))
        assert done.returncode == 0, done.stdout
        paths = changed((plain / "trace").read_text(errors="replace"), str(plain))
        assert sum(path.endswith("/libmcpool.so") for path in paths) >= 1
        assert {path for path in paths if not path.startswith(f"{home}/")} - {"/dev/null", "/dev/tty"} == set()


def test_nothing_fails_where_there_is_no_compiler(plain):
    """Before the packages are installed: no failed command is seen, whatever is asked of make."""
    for target in ("demo", "test", "deb", "all"):
        done = subprocess.run(["make", "-n", target, "CC=/no/such/compiler"], cwd=plain, capture_output=True, text=True,
                              check=False, env=quiet_environment())
        assert (done.returncode, done.stderr) == (0, "")


def test_little_is_said_before_the_demo(plain):
    demo = subprocess.Popen(["make", "demo"], cwd=plain, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            env=quiet_environment(), start_new_session=True)
    try:
        before = list(itertools.takewhile(lambda line: not line.startswith("gunicorn "), demo.stdout))
        assert demo.poll() is None and len(before) <= 3, before
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(demo.pid, signal.SIGTERM)
        demo.communicate()


def test_what_runs_tests_installs_first():
    """On a new machine a program that is needed first, in a prerequisite, could not be built."""
    rules = re.findall(r"^([a-z][a-z-]*):(.*)\n((?:\t.*\n)+)", read_makefiles(), re.M)
    testing = {name: (needed, recipe) for name, needed, recipe in rules if "/usr/bin/python3 tests/" in recipe}
    assert {"test", "night", "soak", "stress", "fuzz", "differential", "valgrind"} <= set(testing)
    for name, (needed, recipe) in testing.items():
        assert needed.strip() == "", name
        assert recipe.startswith("\t@.ci/packages build test"), name
