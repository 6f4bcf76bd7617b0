"""What is in the packages, and what Debian's and Fedora's own checkers report."""

import glob
import os
import platform
import re
import shutil
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


def told_by_rpm(path, wanted):
    """What a package file says of itself. The machine's database is not asked: an ordinary user may have none."""
    with tempfile.TemporaryDirectory() as database:
        return output_of("rpm", "--dbpath", database, "-qp", "--queryformat", wanted, path)


def contents(path):
    """The files of a package and their modes, as NAME -> "-rw-r--r--"."""
    if path.endswith(".deb"):
        code, listing = output_of("dpkg-deb", "--contents", path)
        words = [line.split() for line in listing.splitlines()]
        entries = {line[5][1:]: line[0] for line in words}
    else:
        code, listing = told_by_rpm(path, "[%{FILEMODES:perms} %{FILENAMES}\\n]")
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
                 "apache/mcpool.conf", "README.md", "kubernetes/Dockerfile", "kubernetes/myapp.yaml"):
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


def test_nothing_for_rpmlint_to_say(rpms):
    """Remarks that do not apply are in libmcpool.rpmlintrc, each with its reason. Each version makes some of them."""
    [spec] = glob.glob(os.path.join(TOP, "build", "rpm", "libmcpool-*", "packaging", "rpm", "libmcpool.spec"))
    code, output = output_of("rpmlint", "--ignore-unused-rpmlintrc", "--rpmlintrc",
                             os.path.join(TOP, "packaging", "rpm", "libmcpool.rpmlintrc"), spec, *rpms.values())
    assert (code, re.findall(r"^.*[EW]: .*$", output, re.M)) == (0, []), output


def test_uninstall_takes_all_of_it(tmp_path):
    for target in ("install", "uninstall"):
        code, output = output_of("make", "-C", TOP, target, f"DESTDIR={tmp_path}", "PREFIX=/usr")
        assert code == 0, output
    assert list(tmp_path.rglob("libmcpool*")) == []
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []


# The maintainer.

def contact():
    with open(os.path.join(TOP, "packaging", "contact"), encoding="utf-8") as file:
        return dict(line.rstrip("\n").split("=", 1) for line in file if not line.startswith("#"))


def test_packages_name_the_maintainer(debs, rpms):
    known = contact()
    wanted = f"{known['MAINTAINER_NAME']} <{known['MAINTAINER_EMAIL']}>"
    for path in debs.values():
        assert output_of("dpkg-deb", "--field", path, "Maintainer") == (0, wanted + "\n")
    for path in rpms.values():
        assert told_by_rpm(path, "%{PACKAGER}") == (0, wanted)
    for folder in ("deb", "rpm"):
        [security] = glob.glob(os.path.join(TOP, "build", folder, "libmcpool-*", "SECURITY.md"))
        with open(security, encoding="utf-8") as file:
            assert f"at {known['SECURITY_CONTACT']}. Do" in file.read()


def test_contact_comes_from_one_place(tmp_path):
    """A publisher fills in packaging/contact; no other address is in what ships."""
    values = {"MAINTAINER_NAME": "An & Other|One", "MAINTAINER_EMAIL": "one@packages.test",
              "SECURITY_CONTACT": "security@packages.test", "HOMEPAGE": "https://packages.test/pool"}
    shutil.copytree(os.path.join(TOP, "packaging"), tmp_path / "packaging")
    shutil.copytree(os.path.join(TOP, "packaging", "debian"), tmp_path / "debian")
    shutil.copy(os.path.join(TOP, "SECURITY.md"), tmp_path)
    (tmp_path / "packaging" / "contact").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    fill = os.path.join(TOP, "packaging", "fill")
    assert output_of(fill, str(tmp_path)) == (0, "")
    filled = {name: (tmp_path / name).read_text() for name in
              ("debian/control", "debian/changelog", "debian/copyright", "packaging/rpm/libmcpool.spec", "SECURITY.md")}
    for name in list(filled)[:-1]:
        assert "An & Other|One <one@packages.test>" in filled[name], name
    assert "Homepage: https://packages.test/pool\n" in filled["debian/control"]
    assert re.search(r"^URL: +https://packages.test/pool$", filled["packaging/rpm/libmcpool.spec"], re.M)
    assert "at security@packages.test. Do" in filled["SECURITY.md"]
    for name, text in filled.items():
        assert not re.search(r"@[A-Z_]+@", text), name


def test_nothing_ships_with_a_made_up_address():
    listed = subprocess.run(["git", "-C", TOP, "ls-files", "packaging", "shim", "README.md", "SECURITY.md", "pyproject.toml"],
                            stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert len(listed) > 50
    for name in listed:
        with open(os.path.join(TOP, name), encoding="utf-8") as file:
            text = file.read()
        # In an example it stands for what the reader has.
        if not name.startswith("packaging/examples/"):
            assert not re.search(r"\bexample\.(org|com|net)\b", text), name
        assert "example.org" not in text, name
        if name != "packaging/contact":
            assert not re.search(r"\b[\w.]+@[\w-]+\.[a-z]{2,}\b", text.replace(".service", "")), name
