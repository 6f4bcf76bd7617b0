"""A pod of Kubernetes as its node makes it, as far as a process can tell: namespaces, volumes, read-only roots,
users, rights and filters. The images are what this machine has, with some more files.

Only what is known here may be in a specification, so that nothing in it is passed over.
"""

import os
import signal
import subprocess

from observed import HERE
from support import PYTHON, die_with_parent

INTEROP = os.path.join(HERE, "..", "interop")

# What the containers share. $1 is where the volumes and roots are; the other arguments are SIZE:GROUP:NAME.
PAUSE = """mount --make-rprivate /
echo "$2" >/proc/sys/kernel/hostname
ip link set lo up
mount -t tmpfs none "$1"
echo "127.0.0.1 localhost memcached" >"$1/hosts"
echo "$2" >"$1/hostname"
cd "$1"; shift 2
for volume in "$@"; do
    mkdir -p "volumes/${volume##*:}"
    mount -t tmpfs -o "size=${volume%%:*},mode=2777" none "volumes/${volume##*:}"
    chgrp "$(echo "$volume" | cut -d: -f2)" "volumes/${volume##*:}"
done
echo ready
exec cat"""

# A container. Its shell stays, because it dies with the test, and what changes its user does not. $1 is as above, $2
# its name, $3 the files that its image has beside those of this machine. PREPARE mounts the volumes in its root.
CONTAINER = """mount --make-rprivate /
exec 3<{filter}
mkdir -p "$1/$2/upper" "$1/$2/work" "$1/$2/root"
cp -R "$3/." "$1/$2/upper"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/$2/upper,workdir=$1/$2/work" "$1/$2/root"
cd "$1/$2/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 shm dev/shm
for file in hosts hostname; do mount --bind "$1/$file" etc/$file; done
{prepare}
pivot_root . .
umount -l .
cd {folder}
shift 3
"$@"
exit $?"""


def known(given, *names):
    """The values of NAMES in GIVEN, a dictionary that may have no other; None where there is none."""
    assert set(given) <= set(names), f"not known here: {set(given) - set(names)}"
    return [given.get(name) for name in names]


def only(*arguments):
    """What becomes a program that has no other system calls than the default filter of container runtimes allows.
    The list of calls is at fd 3."""
    with open(os.path.join(INTEROP, "filtered.py"), encoding="utf-8") as file:
        return [PYTHON, "-c", file.read(), "only", "EPERM", "/proc/self/fd/3", *arguments]


class Pod:
    """SPEC is the specification, NAME that of the pod, IMAGES has the folder of additional files of each image."""

    def __init__(self, name, spec, images, folder):
        security, volumes, self.initial, self.containers = known(
            spec, "securityContext", "volumes", "initContainers", "containers")
        non_root, self.user, self.group, self.volume_group, seccomp = known(
            security, "runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup", "seccompProfile")
        assert non_root and self.user > 0 and seccomp == {"type": "RuntimeDefault"}
        self.images, self.folder, self.running = images, str(folder), []
        self.pause = subprocess.Popen(
            ["unshare", "--mount", "--net", "--ipc", "--uts", "sh", "-ec", PAUSE, "sh", self.folder, name,
             *map(self.described, volumes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent)
        self.is_ready = self.pause.stdout.readline() == "ready\n"

    def described(self, volume):
        name, empty = known(volume, "name", "emptyDir")
        medium, size = known(empty, "medium", "sizeLimit")
        assert medium in (None, "Memory") and size.endswith("Mi")
        return f"{size[:-1]}:{self.volume_group}:{name}"

    def within(self, *command, target=None):
        """The command line that runs COMMAND in the pod, and in the PID namespace of the process TARGET."""
        return ["nsenter", f"--target={self.pause.pid}", "--mount", "--net", "--ipc", "--uts", "--",
                *(["nsenter", f"--target={target}", "--pid", "--", "unshare", "--mount"] if target else
                  ["unshare", "--mount", "--pid", "--fork", "--kill-child"]), *command]

    def mounted(self, mounts):
        for mount in mounts:
            name, path, read_only = known(mount, "name", "mountPath", "readOnly")
            yield f'mkdir -p .{path}; mount --bind "$1/volumes/{name}" .{path}'
            if read_only:
                yield f"mount -o remount,bind,ro .{path}"

    def command(self, container, target=None):
        """The command line of CONTAINER."""
        name, image, command, folder, variables, security, mounts = known(
            container, "name", "image", "command", "workingDir", "env", "securityContext", "volumeMounts")
        gains, read_only, capabilities = known(
            security or {}, "allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities")
        prepare = [*self.mounted(mounts or []), *(["mount -o remount,bind,ro ."] if read_only else [])]
        rights = ["setpriv", f"--reuid={self.user}", f"--regid={self.group}", f"--groups={self.volume_group}"]
        if gains is False:
            rights.append("--no-new-privs")
        if capabilities:
            assert capabilities == {"drop": ["ALL"]}
            rights += ["--bounding-set=-all", "--inh-caps=-all"]
        settings = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    *("{}={}".format(*known(variable, "name", "value")) for variable in variables or [])]
        script = CONTAINER.format(filter=os.path.join(INTEROP, "docker.txt"), prepare="\n".join(prepare),
                                  folder=folder or "/")
        return self.within("sh", "-ec", script, "sh", self.folder, name, self.images[image], *rights,
                           *only("/usr/bin/env", "-i", *settings, *command), target=target)

    def run(self, container, target=None):
        """Runs a container to its end. With TARGET, as `kubectl debug` does beside that process."""
        return subprocess.run(self.command(container, target), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=60, check=False)

    def start(self, container):
        """Returns the pid of the process above the first one in the container."""
        self.running.append(subprocess.Popen(self.command(container), stdin=subprocess.DEVNULL,
                                             preexec_fn=die_with_parent))
        return self.running[-1].pid

    def serve(self, *command):
        """Runs a server in the network of the pod."""
        self.running.append(subprocess.Popen(
            ["nsenter", f"--target={self.pause.pid}", "--net", "--", *command], stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in [*self.running, self.pause]:
            process.send_signal(signal.SIGKILL)
            process.wait()
