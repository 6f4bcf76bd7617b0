"""The library as it is installed: found by its bare name, gone afterwards."""

import os

from beside import BUILD, LIBRARIES, SCENES, TESTS, needs_mounts, run, run_among_mounts

MAKE = ["make", "-s", "-C", os.path.join(TESTS, ".."), f"B={os.path.abspath(BUILD)}"]
LIBDIR = LIBRARIES.replace("/usr/lib", "/usr/local/lib")

# In a mount namespace where writes to these directories are kept elsewhere, because make install runs
# ldconfig. The arguments are a directory for that, make, and a client, whose log is printed.
INSTALLED = r"""
written=$1 make=$2 client=$3
mount -t tmpfs tmpfs "$written"
for directory in /usr/local /etc /var/cache; do
    mkdir -p "$written$directory/upper" "$written$directory/work"
    mount -t overlay overlay "$directory" -o "lowerdir=$directory,\
upperdir=$written$directory/upper,workdir=$written$directory/work"
done
$make "STATSDIR=$written/stats" install
[ -k "$written/stats" ]
for way in "env LD_PRELOAD=libmcpool.so" "mcpool run --"; do
    MCPOOL_LOG=$written/log $way $client
    grep -o "pooling" "$written/log"
    grep -q "reused as" "$written/log"
    rm "$written/log"
done
$make "STATSDIR=$written/stats" uninstall
[ ! -e "$written/stats" ]
find "$written/usr/local/upper" -type f -o -type l
ldconfig -p | grep libmcpool || true
"""


def clean(environment):
    """The environment, without the variables of an outer make."""
    return {name: value for name, value in environment.items()
            if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DESTDIR", "PREFIX")}


@needs_mounts
def test_bare_name(bench):
    done = run_among_mounts(INSTALLED, bench.folder, " ".join(MAKE), f"{SCENES} {bench.server.port}",
                            environment=clean(bench.environment()))
    assert done == (0, "pooling\npooling\n", "")


def test_staged(bench):
    stage = bench.folder / "stage"
    environment = clean(bench.environment())
    destination = f"DESTDIR={stage}"
    assert run([*MAKE, "install", destination], environment) == (0, "", "")
    installed = {str(path.relative_to(stage)) for path in stage.rglob("*") if path.is_file()}
    pages = ["", "-run", "-check", "-stat", "-top", "-doctor", "-metrics", "-explain", "-switch"]
    assert installed == {f"{LIBDIR[1:]}/libmcpool.so", "usr/local/bin/mcpool",
                         *(f"usr/local/share/man/man1/mcpool{page}.1" for page in pages),
                         "usr/local/share/man/man7/libmcpool.7",
                         "usr/local/share/doc/mcpool/grafana.json",
                         "usr/local/share/bash-completion/completions/mcpool",
                         "usr/local/share/zsh/site-functions/_mcpool",
                         "usr/local/lib/tmpfiles.d/mcpool.conf"}
    client = [SCENES, bench.server.port]
    assert run(client, bench.environment("libmcpool.so",
                                         LD_LIBRARY_PATH=f"{stage}{LIBDIR}")) == (0, "", "")
    assert "reused as" in bench.log()
    assert run([*MAKE, "uninstall", destination], environment) == (0, "", "")
    assert [path for path in stage.rglob("*") if not path.is_dir()] == []


def test_a_prefix_that_the_build_did_not_know(bench):
    """As a user without rights installs it: make && make install PREFIX=$HOME/.local. To make, the user is
    not root, so that it leaves the machine's cache of libraries alone."""
    prefix = bench.folder / ".local"
    someone = bench.folder / "someone"
    someone.mkdir()
    (someone / "id").write_text("#!/bin/sh\necho 1000\n")
    (someone / "id").chmod(0o755)
    environment = clean(bench.environment())
    environment["PATH"] = f"{someone}:{os.environ['PATH']}"
    assert run([*MAKE, "install", f"PREFIX={prefix}"], environment) == (0, "", "")
    client = [prefix / "bin" / "mcpool", "run", "--", SCENES, bench.server.port]
    assert run(client, clean(bench.environment())) == (0, "", "")
    assert "reused as" in bench.log()
    assert run([*MAKE, "uninstall", f"PREFIX={prefix}"], environment) == (0, "", "")
    assert [path for path in prefix.rglob("*") if not path.is_dir()] == []
