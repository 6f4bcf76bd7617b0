"""Every way of the README to switch the library on, followed exactly on a clean Debian machine with the
packages.

Each is measured by memcached's own count of connections: as the machine was, and with the path
followed. The last test takes the packages away and looks for what they left.
"""

import json
import os
import re
import shlex
import subprocess
import time

import pytest
import yaml

from conftest import TOP
from machine import BUILD, Machine, why_not

EXAMPLES = os.path.join(TOP, "packaging", "examples")
INSTALLED = "/usr/share/doc/mcpool/examples"
VISITS = 60
AT_A_TIME = 4
# Two workers, each of which may serve all requests that come at a time.
POOLED = 2 * AT_A_TIME + 2

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


def readme_section(title):
    """The blocks of code behind TITLE where the README says how to switch the library on: a list of
    lists of lines. None is the part before all titles."""
    with open(os.path.join(TOP, "README.md"), encoding="utf-8") as file:
        section = file.read().split("\n## Switch it on\n")[1].split("\n## ")[0]
    text = section.split(f"\n**{title}**")[1] if title else section
    text = re.split(r"^\*\*", text, flags=re.M)[0]
    return [block.splitlines() for block in re.findall(r"^```\w+\n(.*?)^```$", text, re.M | re.S)]


def shell(title):
    return "\n".join(readme_section(title)[0])


def install(machine, debs):
    """As the README says, in a directory that has the packages."""
    [[line]] = readme_section(None)
    assert line.startswith("apt install ./")
    machine.run("mkdir -p /root/downloads")
    for package in debs.values():
        machine.copy(package, "/root/downloads")
    machine.run(f"cd /root/downloads && {line.replace('apt install', 'apt-get install -y')}",
                network=True)
    machine.run("rm -r /root/downloads")


@pytest.fixture(scope="module")
def machine():
    with Machine() as booted:
        for page in ("app.py", "page.php"):
            booted.copy(os.path.join(EXAMPLES, page), "/srv/myapp")
        yield booted


@pytest.fixture(scope="module")
def unpooled(machine):
    """Connections that the visits cost without the package."""
    with machine.running("gunicorn -k gevent app:app"):
        return opened_by_visits(machine)


@pytest.fixture(scope="module")
def ready(machine, unpooled, debs):
    """The machine with the packages, and what was measured without them."""
    assert unpooled >= VISITS
    install(machine, debs)
    return machine


def opened_by_visits(machine):
    """Connections opened at memcached for visits of the application, which are all answered."""
    before = machine.connections()
    load = machine.visit(VISITS, AT_A_TIME, first_key=0)
    assert load == (VISITS, 0, 0)
    return machine.connections() - before - 1


@pytest.mark.parametrize("line", readme_section("gunicorn")[0])
def test_gunicorn(ready, line):
    with ready.running(line):
        assert opened_by_visits(ready) <= POOLED


def test_gunicorn_with_its_configuration(ready):
    ready.run(f"cp -r {INSTALLED}/gunicorn .")
    example = read_example("gunicorn/gunicorn.conf.py")
    for line in re.findall(r"^#     (.*gunicorn .*)", example, re.M):
        with ready.running(line):
            assert opened_by_visits(ready) <= POOLED


def test_uwsgi(ready):
    ready.run(f"cp {INSTALLED}/uwsgi/app.ini .")
    with ready.running("uwsgi --ini app.ini"):
        assert opened_by_visits(ready) >= VISITS
    with ready.running(shell("uwsgi")):
        assert opened_by_visits(ready) <= POOLED


def test_uwsgi_service(ready):
    """Debian's own unit with the drop-in, as the example says."""
    ready.run(f"cp {INSTALLED}/uwsgi/app.ini /etc/uwsgi/apps-enabled/myapp.ini")
    ready.run("echo 'chdir = /srv/myapp' >>/etc/uwsgi/apps-enabled/myapp.ini")
    ready.run("systemctl restart uwsgi")
    assert opened_by_visits(ready) >= VISITS
    [place] = re.findall(r"; (/etc/systemd/\S+)\.", read_example("uwsgi/app.ini"))
    ready.run(f"install -D -m 644 {INSTALLED}/systemd/mcpool.conf {place}")
    ready.run("systemctl daemon-reload && systemctl restart uwsgi")
    assert opened_by_visits(ready) <= POOLED
    ready.run("systemctl stop uwsgi")


def test_systemd_and_off_again(ready):
    ready.run(f"cp {INSTALLED}/systemd/myapp.service /etc/systemd/system/")
    ready.run("systemctl daemon-reload && systemctl start myapp")
    assert opened_by_visits(ready) >= VISITS
    ready.run(shell("systemd"))
    warnings = ready.run("systemd-analyze verify myapp.service")
    assert "myapp" not in warnings
    assert opened_by_visits(ready) <= POOLED
    assert "127.0.0.1:11211" in ready.run("mcpool stat")
    off = readme_section("Switch it off")[0]
    assert off[-1].startswith("apt purge")
    ready.run("\n".join(off[:-1]))
    assert opened_by_visits(ready) >= VISITS
    ready.run("systemctl stop myapp")


def php_of(machine):
    """The version in the names of Debian's PHP, as 8.2."""
    return machine.run("ls /etc/php").strip()


def test_php_fpm(ready):
    """The pages are requested as a web server does."""
    php = php_of(ready)
    ready.run(f"systemctl restart php{php}-fpm")
    assert opened_by_pages(ready) >= VISITS
    assert "php8.2-fpm" in shell("php-fpm")
    ready.run(shell("php-fpm").replace("php8.2", f"php{php}"))
    workers = int(ready.run(f"pgrep -c 'php-fpm{php}'"))
    assert opened_by_pages(ready) <= workers
    # What the example says of settings that do not matter, or do not help.
    pool = f"/etc/php/{php}/fpm/pool.d/www.conf"
    ready.run(f"echo 'clear_env = no' >>{pool} && systemctl restart php{php}-fpm")
    assert opened_by_pages(ready) <= workers
    ready.run(f"rm -r /etc/systemd/system/php{php}-fpm.service.d && systemctl daemon-reload &&"
              f"echo 'env[LD_PRELOAD] = libmcpool.so' >>{pool} && systemctl restart php{php}-fpm")
    assert opened_by_pages(ready) >= VISITS


def opened_by_pages(machine):
    """The same as opened_by_visits() for page.php."""
    ask = ("REQUEST_METHOD=GET SCRIPT_FILENAME=/srv/myapp/page.php QUERY_STRING=page-$n"
           f" cgi-fcgi -bind -connect /run/php/php{php_of(machine)}-fpm.sock")
    before = machine.connections()
    output = machine.run(f"for n in $(seq {VISITS}); do {ask}; echo; done")
    answers = [line for line in output.splitlines() if line.startswith("value")]
    assert answers == [f"value-of-page-{n + 1}" for n in range(VISITS)]
    return machine.connections() - before - 1


def test_supervisord(ready):
    example = read_example("supervisord/myapp.conf")
    [[line]] = readme_section("supervisord")
    assert f"\n{line}\n" in example
    without = shlex.quote(example.replace(f"{line}\n", ""))
    ready.run(f"printf %s {without} >/etc/supervisor/conf.d/myapp.conf && supervisorctl update")
    assert opened_by_visits(ready) >= VISITS
    ready.run(f"cp {INSTALLED}/supervisord/myapp.conf /etc/supervisor/conf.d/ &&"
              "supervisorctl update")
    assert opened_by_visits(ready) <= POOLED
    ready.run("rm /etc/supervisor/conf.d/myapp.conf && supervisorctl update")


# What the README names and the examples' README tells.

APPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "apps")
APACHE = """Listen 8000
StartServers 4
MaxRequestWorkers 4
<VirtualHost *:8000>
    DocumentRoot /srv/myapp
    <Directory /srv/myapp>
        Require all granted
        DirectoryIndex page.php
    </Directory>
    {}
</VirtualHost>
"""
WSGI = """WSGIDaemonProcess myapp processes=2 threads=4 python-path=/srv/myapp
    WSGIScriptAlias / /srv/myapp/per_request.py process-group=myapp application-group=%{GLOBAL}
    WSGICallableObject app"""


@pytest.fixture
def emptied(ready):
    """The machine with an empty cache: clients of other languages read values differently."""
    ready.run("systemctl restart memcached")
    ready.until("have a memcached", ready.memcached_listens)
    return ready


def examples_row(name):
    """What the table of the examples' README says to do for NAME."""
    [row] = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", read_example("README.md"), re.M)
    return row


@pytest.mark.parametrize("module", ["php", "wsgi"])
def test_apache(emptied, module):
    assert "`apache/mcpool.conf`" in examples_row("apache with mod_php or mod_wsgi")
    emptied.copy(os.path.join(APPS, "per_request.py"), "/srv/myapp")
    site = shlex.quote(APACHE.format(WSGI if module == "wsgi" else ""))
    emptied.run(f"printf %s {site} >/etc/apache2/sites-enabled/myapp.conf; rm -f /etc/apache2/sites-enabled/000-*;"
              "systemctl restart apache2")
    assert opened_by_visits(emptied) >= VISITS
    emptied.run(f"install -D -m 644 -t /etc/systemd/system/apache2.service.d {INSTALLED}/apache/mcpool.conf;"
              "systemctl daemon-reload; systemctl restart apache2")
    assert opened_by_visits(emptied) <= POOLED
    emptied.run("rm -r /etc/systemd/system/apache2.service.d; systemctl daemon-reload; systemctl stop apache2")


def test_puma(emptied):
    assert "`systemd/mcpool.conf` for `puma.service`" in examples_row("puma, unicorn, passenger")
    emptied.copy(os.path.join(APPS, "page.ru"), "/srv/myapp")
    emptied.copy(os.path.join(APPS, "puma.service"), "/etc/systemd/system")
    emptied.run("systemctl daemon-reload; systemctl start puma")
    assert opened_by_visits(emptied) >= VISITS
    emptied.run(f"install -D -m 644 -t /etc/systemd/system/puma.service.d {INSTALLED}/systemd/mcpool.conf;"
              "systemctl daemon-reload; systemctl restart puma")
    assert opened_by_visits(emptied) <= POOLED
    emptied.run("systemctl stop puma")


def test_node_cluster(emptied):
    assert examples_row("node, its cluster").startswith("`mcpool run -- node app.js`")
    emptied.copy(os.path.join(APPS, "cluster.js"), "/srv/myapp")
    with emptied.running("node cluster.js"):
        assert opened_by_visits(emptied) >= VISITS
    with emptied.running("mcpool run -- node cluster.js"):
        assert opened_by_visits(emptied) <= POOLED


def test_celery(emptied):
    [line] = re.findall(r"`(mcpool run -- celery [^`]*)`", examples_row("celery"))
    emptied.run("mkdir queue done control results")
    emptied.copy(os.path.join(APPS, "tasks.py"), "/srv/myapp")

    def opened(line):
        with emptied.running(f"C_FORCE_ROOT=1 {line} -c 4"):
            before = emptied.connections()
            emptied.run("python3 tasks.py")
            return emptied.connections() - before - 1

    assert opened(line.removeprefix("mcpool run -- ")) >= VISITS
    assert opened(line) <= POOLED


def test_every_process(emptied):
    """/etc/ld.so.preload: programs with set-id bits run as before."""
    [block] = re.findall(r"^```sh\n(.*?)^```$", read_example("README.md"), re.M | re.S)
    on, off = block.splitlines()
    emptied.run(on)
    with emptied.running("gunicorn -k gevent app:app"):
        assert opened_by_visits(emptied) <= POOLED
    told = emptied.run("setpriv --reuid=www-data --clear-groups su --version 2>&1")
    assert told.startswith("su from util-linux")
    assert emptied.run("systemctl restart memcached && echo good") == "good\n"
    emptied.run(off)
    assert emptied.run("cat /etc/ld.so.preload; python3 -c pass 2>&1") == ""
    emptied.run("rm /etc/ld.so.preload")


def test_autopkgtest(ready):
    """Debian's own tests of the packages, as autopkgtest runs them."""
    folder = os.path.join(TOP, "packaging", "debian", "tests")
    with open(os.path.join(folder, "control"), encoding="ascii") as file:
        fields = dict(line.split(": ", 1) for line in file.read().splitlines())
    ready.run(f"dpkg-query -W {fields['Depends'].replace(',', ' ')}")
    for name in fields["Tests"].split():
        ready.copy(os.path.join(folder, name), "/srv")
        told = ready.run(f"chmod 755 /srv/{name} && AUTOPKGTEST_TMP=$(mktemp -d) /srv/{name}")
        assert told.count("connections: ") == 2 and told.count("libmcpool ") == 2


def read_example(name):
    with open(os.path.join(EXAMPLES, name), encoding="utf-8") as file:
        return file.read()


def dockerfile(name):
    """The instructions of the example as (word, rest), with continued lines joined."""
    text = read_example(name).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines()
            if line and not line.startswith("#")]


def follow(image, name, *files):
    """Follows the instructions on a machine, as there is no container engine here. FILES are where an image is
    built. Returns what is for its containers: the directory, the environment and the command."""
    directory, environment, command = "/", [], None
    image.run("mkdir /context")
    for file in files:
        image.copy(file, "/context")
    for word, rest in dockerfile(name):
        if word == "FROM":
            assert rest.startswith("debian:")
        elif word == "RUN":
            image.run(f"cd / && {rest}", network=True)
        elif word == "COPY":
            *sources, target = rest.split()
            image.run(f"mkdir -p {target} && cd /context && cp {' '.join(sources)} {target}")
        elif word == "WORKDIR":
            directory = rest
        elif word == "ENV":
            environment.append(rest)
        else:
            assert word == "CMD"
            command = shlex.join(json.loads(rest))
    return directory, environment, command


def as_docker_runs(line, directory, environment, command):
    """The shell's command that does what the line `docker run` does, without a network and filter of its own."""
    prepare, rights, words = ["mount --make-rprivate /", "mount -t proc proc /proc"], [], shlex.split(line)
    assert words[:2] == ["docker", "run"] and words.pop() == "myapp"
    words = iter(words[2:])
    for word in words:
        if word == "--read-only":
            prepare.append("mount -o remount,bind,ro /")
        elif word == "--user":
            user = next(words)
            rights = ["setpriv", "--reuid", user, "--regid", "0", "--clear-groups", "--bounding-set=-all"]
        else:
            assert word == "--tmpfs"
            path, options = next(words).split(":")
            prepare[1:1] = [f"mkdir -p {path}",
                            f"mount -t tmpfs -o mode=1777,nosuid,nodev,noexec,{options} none {path}"]
    script = "\n".join([*prepare, f"cd {directory}", f"exec {shlex.join(rights)} env {' '.join(environment)} {command}"])
    return f"unshare --mount --pid --fork --kill-child --uts sh -ec {shlex.quote(script)}"


def test_dockerfile(debs):
    example = read_example("docker/Dockerfile")
    for line in readme_section("Docker")[0]:
        assert f"\n{line}" in example
    with Machine() as image:
        made = follow(image, "docker/Dockerfile", *debs.values(), os.path.join(EXAMPLES, "app.py"))
        directory, environment, command = made
        with image.running(f"-C {directory} {' '.join(environment)} {command}"):
            assert opened_by_visits(image) <= POOLED
        [line] = re.findall(r"^# (docker run .*)$", example, re.M)
        with image.running(as_docker_runs(line, *made)):
            assert opened_by_visits(image) <= POOLED
            deadline = time.monotonic() + 20
            while reused(seen := seen_by_this_machine(image)) < VISITS - POOLED:
                assert time.monotonic() < deadline, seen
            for process in seen:
                assert os.stat(f"/proc/{process['pid']}").st_uid == 1000
                assert os.statvfs(f"/proc/{process['pid']}/root").f_flag & os.ST_RDONLY


def reused(processes):
    return sum(server["reused"] for process in processes for server in process["servers"])


def seen_by_this_machine(image):
    """The processes of the machine that `mcpool stat` shows outside of it, where it is not installed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("MCPOOL_STATS", "XDG_RUNTIME_DIR")}
    image.visit(AT_A_TIME, AT_A_TIME, first_key=0)
    done = subprocess.run([os.path.join(BUILD, "mcpool"), "stat", "--json"], env=environment, capture_output=True,
                          text=True, timeout=60, check=False)
    return [process for process in json.loads(done.stdout)["processes"]
            if network_of(process["pid"]) == network_of(image.init)]


def network_of(pid):
    """None when the process has ended."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except FileNotFoundError:
        return None


def test_image_for_kubernetes(debs):
    """tests/cli/test_kubernetes.py follows the manifest. Here its image is built, and its container without rights
    copies the library from it."""
    [container] = yaml.safe_load(read_example("kubernetes/myapp.yaml"))["spec"]["template"]["spec"]["initContainers"]
    [mount] = container["volumeMounts"]
    with Machine() as image:
        assert follow(image, "kubernetes/Dockerfile", *debs.values()) == ("/", [], None)
        image.run(f"mkdir -p -m 777 {mount['mountPath']}")
        image.run("setpriv --reuid 1000 --regid 1000 --clear-groups " + shlex.join(container["command"]))
        assert image.run(f"ls {mount['mountPath']}") == "libmcpool.so\n"
        image.run(f"cmp {mount['mountPath']}/libmcpool.so $(dpkg -L libmcpool | grep /libmcpool.so$)")
        assert image.run("mcpool --version").startswith("mcpool ")


# Removing the packages.

# Files that change on any running machine, or whenever apt runs.
RESTLESS = re.compile(
    r"/(var/(log|cache/(apt|ldconfig|debconf/tmp\.ci)|lib/(apt|systemd)|backups)|run/(systemd|log|lock)|tmp"
    r"|var/lib/dpkg/(status|lock|available|triggers|diversions|updates))(/|-old| |$)"
    r"|/run/(mount|utmp)|/etc/\.pwd\.lock")


def listing(machine):
    """Every file: its kind, mode, owner, size and contents. Directories without their times."""
    files = machine.run("find / /run -xdev \\( -path /proc -o -path /sys -o -path /dev \\) -prune"
                        " -o -printf '%p %y %m %U:%G %l\\n'")
    sums = machine.run("find / -xdev -type f -not -path '/var/*' -print0 | xargs -0 md5sum")
    return {line for line in (files + sums).splitlines()
            if not RESTLESS.search(line.split(" ", 1)[0]) and not RESTLESS.search(line)}


def test_nothing_is_left(debs):
    with Machine() as machine:
        machine.run(f"systemctl stop supervisor php{php_of(machine)}-fpm memcached")
        before = listing(machine)
        install(machine, debs)
        during = listing(machine)
        machine.run("mcpool run -- python3 -c pass && touch /run/mcpool/left-by-a-process")
        machine.run("apt-get remove --purge -y mcpool libmcpool && apt-get autoremove --purge -y")
        after = listing(machine)
    installed = {line.split()[0] for line in during - before}
    assert {"/usr/bin/mcpool", "/run/mcpool", "/usr/share/man/man7/libmcpool.7.gz"} <= installed
    assert (after - before, before - after) == (set(), set())
