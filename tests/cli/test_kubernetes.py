"""The example for Kubernetes, followed as far as a machine without a cluster can."""

import json
import os
import platform
import shutil
import subprocess
import time

import pytest
import yaml

from observed import COMMAND, HERE, mcpool
from pod import Pod
from support import LIBRARY, PYTHON, Load

EXAMPLES = os.path.join(HERE, "..", "..", "packaging", "examples")
VISITORS = os.path.join(HERE, "..", "package", "visitors.py")
TRIPLET = f"{platform.machine()}-linux-gnu"
NAME = "myapp-6d5f7c9b8-x2x7q"
VISITS, AT_A_TIME, WORKERS = 60, 4, 2

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a pod")


def read(*path):
    with open(os.path.join(EXAMPLES, *path), encoding="utf-8") as file:
        return file.read()


def specification():
    """That of the pod."""
    manifest = yaml.safe_load(read("kubernetes", "myapp.yaml"))
    assert (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "Deployment")
    template = manifest["spec"]["template"]
    assert manifest["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    return template["spec"]


@pytest.fixture
def images(tmp_path):
    """What the images have. That of the library has it where the package puts it."""
    files = {"mcpool": {f"usr/lib/{TRIPLET}/libmcpool.so": LIBRARY, "usr/bin/mcpool": COMMAND},
             "myapp": {"srv/myapp/app.py": os.path.join(EXAMPLES, "app.py")}}
    for image, places in files.items():
        for place, file in places.items():
            path = tmp_path / image / place
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, path)
    return {f"registry.example.com/{image}": str(tmp_path / image) for image in files}


@pytest.fixture
def pod(images, tmp_path):
    (tmp_path / "pod").mkdir()
    with Pod(NAME, specification(), images, tmp_path / "pod") as made:
        if not made.is_ready:
            pytest.skip("no namespaces here")
        made.serve("memcached", "-u", "root", "-l", "127.0.0.1", "-p", "11211", "-U", "0")
        yield made


def visitors(pod_, *arguments):
    done = subprocess.run(["nsenter", f"--target={pod_.pause.pid}", "--net", "--", PYTHON, VISITORS,
                           *map(str, arguments)], stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


def opened_by_visits(pod_):
    """Connections that memcached accepted for visits, which were all answered rightly."""
    visitors(pod_, "load", WORKERS * AT_A_TIME, AT_A_TIME, 1000)
    before = visitors(pod_, "connections")
    assert Load(*visitors(pod_, "load", VISITS, AT_A_TIME, 0)) == (VISITS, 0, 0)
    return visitors(pod_, "connections") - before - 1


def follow(pod_):
    """Starts the pod; returns what lists the processes of its container."""
    for container in pod_.initial:
        done = pod_.run(container)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    [unshare] = [pod_.start(container) for container in pod_.containers]
    return lambda: processes_below(unshare)[1:]  # without the shell that has made the container


def processes_below(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        children = [int(child) for child in file.read().split()]
    return children + [grandchild for child in children for grandchild in processes_below(child)]


def default_environment():
    return {name: value for name, value in os.environ.items() if name not in ("MCPOOL_STATS", "XDG_RUNTIME_DIR")}


def test_its_connections_are_pooled_and_shown(pod):
    processes = follow(pod)
    assert opened_by_visits(pod) <= WORKERS * AT_A_TIME
    inside = processes()
    time.sleep(1.1)
    visitors(pod, "load", WORKERS * AT_A_TIME, AT_A_TIME, 1000)
    seen = {process["pid"]: process for process in json.loads(
        mcpool("stat", "--json", environment=default_environment()).stdout)["processes"]}
    shown = [seen[pid] for pid in inside if pid in seen]
    assert len(shown) == WORKERS
    for process in shown:
        assert process["container"].split("/")[0] == NAME and process["inner_pid"] != process["pid"]
    assert sum(server["reused"] for process in shown for server in process["servers"]) >= VISITS
    for comment in ("mcpool stat ", "-- mcpool stat\n"):
        assert comment in read("kubernetes", "myapp.yaml")
    for said in (mcpool("stat", environment=default_environment()).stdout, debugged(pod, inside[0])):
        assert said.count("127.0.0.1:11211") >= WORKERS


def debugged(pod_, target):
    """What `mcpool stat` says in a container that `kubectl debug --target` starts."""
    done = pod_.run({"name": "debugger", "image": "registry.example.com/mcpool", "command": ["mcpool", "stat"]},
                    target)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_it_has_no_rights_and_cannot_write(pod):
    """That is what the manifest asks for, and what this test's pods give."""
    processes = follow(pod)
    visitors(pod, "load", 1, 1, 0)
    deadline = time.monotonic() + 20
    while len(processes()) < 1 + WORKERS:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for pid in processes():
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        assert status["Uid"].split() == status["Gid"].split() == ["1000"] * 4
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert {int(status[name], 16) for name in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb")} == {0}
        root = f"/proc/{pid}/root"
        writable = {path for path in ("", "/run", "/tmp", "/etc", "/srv/myapp", "/opt/mcpool", "/run/mcpool", "/dev/shm")
                    if not os.statvfs(root + path).f_flag & os.ST_RDONLY}
        assert writable == {"/run/mcpool", "/dev/shm"}
        assert os.listdir(root + "/opt/mcpool") == ["libmcpool.so"]


def test_without_the_preload_nothing_is_pooled(pod):
    [container] = pod.containers
    container["env"] = [variable for variable in container["env"] if variable["name"] != "LD_PRELOAD"]
    follow(pod)
    assert opened_by_visits(pod) >= VISITS


def test_its_image_is_built_from_the_packages():
    """tests/package follows this file; here its name and what the manifest takes from it are compared."""
    spec = specification()
    [image] = {container["image"] for container in spec["initContainers"]}
    assert f"docker build -f kubernetes/Dockerfile -t {image} ." in read("kubernetes", "Dockerfile").replace("\n# ", " ")
    assert f"--image={image} " in read("kubernetes", "myapp.yaml")
