"""What is in the packages, and what Debian's and Fedora's own checkers report."""

import glob
import os
import platform
import re
import subprocess
import tempfile

from conftest import TOP

ZSH_OF_DEBIAN = "/usr/share/zsh/vendor-completions"
ZSH = "/usr/share/zsh/site-functions"
TRIPLET = f"{platform.machine()}-linux-gnu"


def output_of(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False)
    return done.returncode, done.stdout


def contents(path):
    """The files of a package and their modes, as NAME -> "-rw-r--r--"."""
    if path.endswith(".deb"):
        code, listing = output_of("dpkg-deb", "--contents", path)
        words = [line.split() for line in listing.splitlines()]
        entries = {line[5][1:]: line[0] for line in words}
    else:
        code, listing = output_of("rpm", "-qp", "--qf", "[%{FILEMODES:perms} %{FILENAMES}\\n]",
                                  path)
        entries = {line.split()[1]: line.split()[0] for line in listing.splitlines()}
    assert code == 0, listing
    return {name: mode for name, mode in entries.items() if not mode.startswith("d")}


def installed():
    """What `make install` installs, by its names under /usr."""
    with tempfile.TemporaryDirectory() as root:
        code, output = output_of("make", "-C", TOP, "install", f"DESTDIR={root}", "PREFIX=/usr",
                                 f"LIBDIR=/usr/lib/{TRIPLET}", f"ZSHDIR={ZSH_OF_DEBIAN}")
        assert code == 0, output
        return {path[len(root):] for path in glob.glob(f"{root}/**", recursive=True)
                if not os.path.isdir(path)}


def test_nothing_for_lintian_to_say(debs):
    [changes] = glob.glob(os.path.join(os.path.dirname(debs["mcpool"]), "*.changes"))
    code, output = output_of("lintian", "--allow-root", "--fail-on", "error,warning", changes)
    assert (code, output) == (0, "")


def test_every_override_has_its_reason():
    """Reasons stand in a comment before the overrides."""
    overrides = glob.glob(os.path.join(TOP, "packaging", "debian", "*.lintian-overrides"))
    assert overrides
    for path in overrides:
        with open(path, encoding="utf-8") as file:
            assert file.readline().startswith("# ")


def test_library_package(debs):
    """It can be installed for several architectures at once: beside the library it has only common files."""
    found = contents(debs["libmcpool"])
    assert found[f"/usr/lib/{TRIPLET}/libmcpool.so"] == "-rw-r--r--"
    others = {name for name in found if not re.match("/usr/(lib|share/doc|share/lintian)/", name)}
    assert others == {"/usr/share/man/man7/libmcpool.7.gz"}
    _, field = output_of("dpkg-deb", "--field", debs["libmcpool"], "Multi-Arch")
    assert field.strip() == "same"


def test_packages_have_all_that_is_installed(debs):
    packaged = {name for path in debs.values() for name in contents(path)}
    packaged |= {name.removesuffix(".gz") for name in packaged}
    assert len(installed()) >= 5
    assert installed() - packaged == set()


def test_command_package(debs):
    found = contents(debs["mcpool"])
    assert found["/usr/bin/mcpool"] == "-rwxr-xr-x"
    for name in ("systemd/mcpool.conf", "systemd/run-mcpool.mount", "gunicorn/gunicorn.conf.py", "uwsgi/app.ini",
                 "php-fpm/mcpool.conf", "supervisord/myapp.conf", "docker/Dockerfile",
                 "kubernetes/Dockerfile", "kubernetes/myapp.yaml"):
        assert f"/usr/share/doc/mcpool/examples/{name}" in found
    manuals = {name for name in found if name.startswith("/usr/share/man/")}
    assert "/usr/share/man/man1/mcpool.1.gz" in manuals
    assert all(name.endswith(".gz") for name in manuals)


def test_library_depends_on_libc_alone(debs):
    _, depends = output_of("dpkg-deb", "--field", debs["libmcpool"], "Depends")
    assert re.fullmatch(r"libc6 \(>= [\d.]+\)", depends.strip())


def test_rpms_are_like_the_debs(debs, rpms):
    """The same files, at the places of the other kind of system."""
    def plain(name):
        name = re.sub(r"^/usr/lib(64|/[^/]+-linux-gnu)/", "/LIB/", name).removesuffix(".gz")
        name = name.replace(ZSH_OF_DEBIAN, ZSH)
        elsewhere = r"^/usr/(share/(doc|licenses|lintian)/|lib/\.build-id)"
        return None if re.search(elsewhere, name) else name

    assert set(rpms) == set(debs)
    for name, path in debs.items():
        assert ({plain(file) for file in contents(rpms[name])} - {None} ==
                {plain(file) for file in contents(path)} - {None})


def test_rpmlint_has_no_errors():
    """The rpm checker's remarks that do not apply: the source has no URL, and BuildRoot is obsolete."""
    code, output = output_of("rpmlint", os.path.join(TOP, "packaging", "rpm", "libmcpool.spec"))
    told = re.findall(r"[EW]: (\S+)", output)
    assert (code, set(told) - {"no-buildroot-tag", "invalid-url"}) == (0, set()), output


def test_uninstall_takes_all_of_it(tmp_path):
    for target in ("install", "uninstall"):
        code, output = output_of("make", "-C", TOP, target, f"DESTDIR={tmp_path}", "PREFIX=/usr")
        assert code == 0, output
    assert list(tmp_path.rglob("libmcpool*")) == []
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
