"""Programs compiled with a sanitizer, whose functions stand before the shim's."""

import subprocess

import pytest

SANITIZERS = ["address,undefined", "undefined", "thread"]
OPTIONS = ("-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


def first_of(compiler, sanitizer):
    """The runtime that must be preloaded first, as gcc's AddressSanitizer demands."""
    if compiler != "gcc" or "address" not in sanitizer:
        return []
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], stdout=subprocess.PIPE,
                           text=True, check=True)
    return [found.stdout.strip()]


def in_its_place(sanitizer):
    """What a program is started by. Where addresses are drawn from a larger space than they know of,
    the ThreadSanitizers of that time find the program's memory in the way of their own."""
    fixed = ["setarch", "-R"]
    allowed = subprocess.run([*fixed, "true"], stderr=subprocess.DEVNULL, check=False)
    return fixed if sanitizer == "thread" and allowed.returncode == 0 else []


@pytest.mark.parametrize("source", ["../faults/scenes.c", "threads.c"])
@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_sanitized_program(bench, built, compiler, sanitizer, source):
    program = built(source, flags=(f"-fsanitize={sanitizer}", *OPTIONS), compiler=compiler)
    done = bench.pools_unnoticed([*in_its_place(sanitizer), program, bench.server.port],
                                 before=first_of(compiler, sanitizer))
    assert done.err == ""
