"""mcpool check: what prevents preloading a program, and why a process does not have the library."""

import os
import shutil
import subprocess

import pytest

from observed import COMMAND, LIBRARY, SHIM, mcpool
from support import preloaded


def check(*arguments, **more):
    return mcpool("check", *arguments, **more)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


def built(folder, name, *options):
    source = folder / "main.c"
    source.write_text("int main(void) { return 0; }\n")
    path = folder / name
    subprocess.run(["gcc", "-o", path, source, *options], check=True)
    return path


def copied(path, program="/bin/cat"):
    shutil.copy(program, path)
    path.chmod(0o755)
    return path


def patched(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    return path


def test_a_program_that_can_be_helped():
    done = check("cat")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{os.path.realpath('/bin/cat')}\nyes: the library can be preloaded\n"


def test_static(folder):
    done = check(built(folder, "static", "-static"))
    assert done.returncode == 1 and "no: it is linked statically" in done.stdout


def test_go(folder):
    """As Go's linker leaves a program. With cgo it is dynamic, and the library sees its calls no better."""
    section = folder / "section"
    section.write_bytes(b"\xff Go buildinf:")
    for options in (["-static"], []):
        path = built(folder, "go", *options)
        subprocess.run(["objcopy", "--add-section", f".go.buildinfo={section}", path], check=True)
        done = check(path)
        assert done.returncode == 1 and "no: it is written in Go" in done.stdout
        assert "statically" not in done.stdout


def test_musl(folder):
    loader = subprocess.run(["readelf", "-l", "/bin/cat"], stdout=subprocess.PIPE, text=True,
                            check=True).stdout.split("interpreter: ")[1].split("]")[0].encode()
    musl = b"/lib/ld-musl-x86_64.so.1"[:len(loader)]
    path = patched(copied(folder / "musl"), loader, musl + b"\0" * (len(loader) - len(musl)))
    done = check(path)
    assert done.returncode == 1 and "no: it uses musl" in done.stdout


@pytest.mark.parametrize("offset, value", [(4, 1), (18, 8)])
def test_other_architectures(folder, offset, value):
    path = copied(folder / "other")
    content = bytearray(path.read_bytes())
    content[offset] = value
    path.write_bytes(content)
    done = check(path)
    assert done.returncode == 1 and "no: it is for another architecture" in done.stdout


def test_not_a_program(folder):
    path = folder / "data"
    path.write_text("data")
    done = check(path)
    assert done.returncode == 1 and "no: it is not a program" in done.stdout


@pytest.mark.parametrize("content", [b"\x7fELF", b"\x7fELF" + b"\xff" * 60, b"#!", b"#!\n", b""])
def test_broken_programs(folder, content):
    path = folder / "broken"
    path.write_bytes(content)
    assert check(path).returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_privileges(folder):
    path = copied(folder / "set-id")
    os.chown(path, 65534, 65534)
    assert check(path).returncode == 0
    for mode in (0o4755, 0o2755):
        path.chmod(mode)
        done = check(path)
        assert done.returncode == 1 and "no: it has set-id bits" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give capabilities")
def test_capabilities(folder):
    path = copied(folder / "capable")
    subprocess.run(["setcap", "cap_net_raw+ep", path], check=True)
    expect_yes_for_root_only(folder, path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be asked about su as root")
def test_su(folder):
    """Root often asks about what others will run."""
    path = copied(folder / "su")
    path.chmod(0o4755)
    expect_yes_for_root_only(folder, path)
    if shutil.which("su"):
        expect_yes_for_root_only(folder, shutil.which("su"))


def expect_yes_for_root_only(folder, path):
    """These bits give root no privileges."""
    done = check(path)
    assert done.returncode == 0
    assert ("note: for other users the loader ignores LD_PRELOAD: it has set-id bits or file capabilities\n"
            in done.stdout)
    command = shutil.copy(COMMAND, folder / "mcpool")
    for above in (folder, *folder.parents):
        if not os.stat(above).st_mode & 0o001:
            above.chmod(0o711)
    done = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                           command, "check", path], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 1 and "no: it has set-id bits" in done.stdout
    assert "note: for other users" not in done.stdout


@pytest.mark.parametrize("first", ["#!/bin/cat", "#! /usr/bin/env cat", "#!/usr/bin/env -S A=b cat -n"])
def test_scripts_are_followed(folder, first):
    script = folder / "script"
    script.write_text(f"{first}\n")
    done = check(script)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{script}, a script for {os.path.realpath('/bin/cat')}\n")


def test_scripts_of_programs_that_cannot_be_helped(folder):
    static = built(folder, "static", "-static")
    script = folder / "script"
    script.write_text(f"#!{static}\n")
    assert check(script).returncode == 1
    circle = folder / "circle"
    circle.write_text(f"#!{circle}\n")
    assert check(circle).returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can put a file there")
def test_flatpak():
    script = f"""mount -t tmpfs none /var/lib
        mkdir -p /var/lib/flatpak/exports/bin
        cp /bin/cat /var/lib/flatpak/exports/bin/program
        exec {COMMAND} check /var/lib/flatpak/exports/bin/program"""
    apart = ["unshare", "--mount"]
    if subprocess.run([*apart, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True,
                      check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    done = subprocess.run([*apart, "sh", "-ec", script], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 1 and "no: it is started by snap or flatpak" in done.stdout


def test_php():
    if not shutil.which("php"):
        pytest.skip("no php here")
    done = check("php")
    assert done.returncode == 0 and "note: PHP opens extensions with RTLD_DEEPBIND" in done.stdout


FPM = "env[LD_PRELOAD] of a pool comes too late"


def test_php_fpm_and_the_readme_say_the_same(folder):
    with open(os.path.join(SHIM, "..", "README.md"), encoding="utf-8") as file:
        assert f"**php-fpm** gets the same drop-in. {FPM}; clear_env does not matter" in file.read().replace("`", "")
    done = check(copied(folder / "php-fpm8.2"))
    assert done.returncode == 0
    assert f"note: php-fpm gets LD_PRELOAD from its service: {FPM},\n    and clear_env does not matter\n" in done.stdout
    assert "php-fpm" not in check("cat").stdout


def test_no_such_program():
    done = check("no-such-program")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "mcpool: no-such-program: No such file or directory\n"


# Processes.

def test_process_that_pools(host):
    client = host.client().turns(4)
    done = host.mcpool("check", client.pid)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"yes: it has {os.path.realpath(LIBRARY)}\n" in done.stdout
    assert "first connection 20" in done.stdout
    assert f"    {host.server.address}: 3 of 4 connects reused\n" in done.stdout


def test_process_that_has_not_connected(host):
    client = host.client().turns(0)
    done = host.mcpool("check", client.pid)
    assert done.returncode == 0 and "note: it shows no counters" in done.stdout


def test_process_that_is_switched_off(host):
    client = host.client(MCPOOL_DISABLE="1").turns(1)
    assert "note: MCPOOL_DISABLE is set" in host.mcpool("check", client.pid).stdout


def test_process_without(host):
    client = host.client(library=None).turns(0)
    done = host.mcpool("check", client.pid)
    assert done.returncode == 1 and "no: it was started without the library" in done.stdout
    assert f"php-fpm too: {FPM}" in done.stdout and "clear_env" not in done.stdout


def test_process_whose_library_was_replaced(host, tmp_path):
    library = tmp_path / "libmcpool.so"
    shutil.copy(LIBRARY, library)
    client = host.client(library=str(library)).turns(1)
    library.unlink()
    assert "note: the file was replaced since" in host.mcpool("check", client.pid).stdout


def sleeper(command, **more):
    """A process, when it has become what it is to be."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)
    assert process.stdout.readline() == "ready\n"
    return process


def test_process_whose_environment_was_cleared():
    script = "env -i sh -c 'echo ready; read x' ; true"
    with sleeper(["sh", "-c", script], env=preloaded(LIBRARY, "11211"),
                 stdin=subprocess.PIPE) as process:
        children = open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii")
        done = check(children.read().split()[0])
        process.communicate("\n")
    assert done.returncode == 1
    assert f"no: its parent {process.pid} has the library, and cleared the environment" in done.stdout
    assert "php-fpm" not in done.stdout


def test_process_that_could_not_load_it(tmp_path):
    """As in a container, where the path does not exist."""
    with sleeper(["sh", "-c", "echo ready; read x"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
                 env=dict(os.environ, LD_PRELOAD=f"{tmp_path}/libmcpool.so")) as process:
        done = check(process.pid)
        process.communicate("\n")
    assert done.returncode == 1 and "the loader did not load it" in done.stdout


def waiting(path, *libraries):
    """A process of PATH, which reads its input, with LIBRARIES."""
    return subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                            env=dict(os.environ, LD_PRELOAD=":".join(map(str, libraries))))


def answers(path, *libraries):
    """What the command says of the process when it has loaded them all."""
    with waiting(path, *libraries) as process:
        while True:
            with open(f"/proc/{process.pid}/maps", encoding="ascii") as maps:
                mapped = maps.read()
            if all(str(library) in mapped for library in libraries):
                break
        done = check(process.pid)
        process.communicate(b"")
    return done


def test_process_in_go(folder):
    """With cgo the loader loads the library, which sees none of the program's calls."""
    section = folder / "section"
    section.write_bytes(b"\xff Go buildinf:")
    path = copied(folder / "running-go")
    subprocess.run(["objcopy", "--add-section", f".go.buildinfo={section}", path], check=True)
    done = answers(path, os.path.realpath(LIBRARY))
    assert done.returncode == 1 and "no: it is written in Go" in done.stdout
    assert "yes:" not in done.stdout


@pytest.mark.parametrize("name", ["libnetty_transport_native_io_uring42_x86_643894.so",
                                  "libnetty_transport_native_epoll_x86_64.so"])
def test_process_with_netty(folder, name):
    """The program unpacks its library to a name that ends in random digits."""
    netty = built(folder, name, "-shared", "-fPIC")
    done = answers("/bin/cat", netty, os.path.realpath(LIBRARY))
    assert done.returncode == 0 and "yes: it has" in done.stdout
    assert ("note: it has Netty's io_uring transport" in done.stdout) == ("io_uring" in name)


def test_no_such_process():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert check(process.pid).returncode == 127


def test_run_says_what_cannot_be_helped(folder):
    static = built(folder, "static", "-static")
    environment = preloaded(None, None, MCPOOL_LIBRARY=LIBRARY)
    assert mcpool("run", static, environment=environment).stderr == ""
    done = mcpool("run", "-v", static, environment=environment)
    assert done.returncode == 0 and "no: it is linked statically" in done.stderr
    assert "no:" not in mcpool("run", "-v", "true", environment=environment).stderr
