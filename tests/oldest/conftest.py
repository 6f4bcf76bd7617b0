"""A tree of Debian 11, which has glibc 2.31, kept in the build directory."""

import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "package")]
from machine import apt_settings, sources, why_not
from support import BUILD, die_with_parent

SUITE = "bullseye"
SOFTWARE = ["gcc", "make", "libc6-dev", "uthash-dev", "memcached", "gunicorn", "python3-gevent",
            "python3-memcache", "perl"]
TOP = os.path.abspath(os.path.join(HERE, "..", ".."))

# /built has what was built on this machine, /source the source, /inside the programs of these tests. All that
# is written is gone at the end.
ENTER = """
root=$1
ip link set lo up
mount -t proc proc $root/proc
for folder in dev/shm tmp run srv; do mkdir -p $root/$folder; mount -t tmpfs tmpfs $root/$folder; done
for file in null zero urandom; do
    [ -e $root/dev/$file ] || touch $root/dev/$file; mount --bind /dev/$file $root/dev/$file
done
mkdir $root/srv/built $root/srv/source $root/srv/inside
mount --bind $2 $root/srv/built
mount --bind $3 $root/srv/source
mount --bind $4 $root/srv/inside
cat >$root/tmp/script
exec chroot $root env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C.UTF-8 sh -euc '
cd /tmp
memcached -u nobody -l 127.0.0.1 -U 0 &
for second in 1 2 3 4 5 6 7 8 9 10; do (: <>/dev/tcp/127.0.0.1/11211) 2>/dev/null && break; sleep 0.1; done
. ./script'
"""


class Tree:
    """The tree. Each script there has a network of its own with a memcached at port 11211."""

    def __init__(self):
        self.root = os.path.join(BUILD, "machine", SUITE)

    def make(self):
        """None, or why it cannot be made. A tree with other software is made anew."""
        contents = os.path.join(self.root, "etc", "mcpool-test-machine")
        wanted = "\n".join([*SOFTWARE, *apt_settings()])
        if os.path.exists(contents):
            with open(contents, encoding="ascii") as file:
                if file.read() == wanted:
                    return None
        subprocess.run(["rm", "-rf", "--one-file-system", self.root], check=True)
        os.makedirs(os.path.dirname(self.root), exist_ok=True)
        uri = sources().split()[1]
        made = subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase",
             *(f"--aptopt={line}" for line in apt_settings()), f"--include={','.join(SOFTWARE)}", SUITE,
             self.root, f"deb {uri} {SUITE} main"], capture_output=True, text=True, check=False)
        if made.returncode != 0:
            return f"no tree of {SUITE}: {made.stderr[-300:]}"
        with open(contents, "w", encoding="ascii") as file:
            file.write(wanted)
        return None

    def run(self, script):
        """What the shell SCRIPT prints there; it must end well."""
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-euc", ENTER, "sh", self.root,
             os.path.abspath(BUILD), TOP, HERE], input=script, capture_output=True, text=True, timeout=300,
            check=False, preexec_fn=die_with_parent)
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="session")
def tree():
    if reason := why_not():
        pytest.skip(reason)
    made = Tree()
    if reason := made.make():
        pytest.skip(reason)
    return made
