"""The two commands of the README on fresh Debian systems, from a clean clone.

Usage: run.py SUITE:USER:TARGET...

Each argument, as trixie:root:demo or bookworm:worker:test, gets a tree of its own with what a small machine has.
A user that is not root has sudo. `make TARGET` runs there, in this machine's network, and its time is printed.
The tree is removed at the end. The last line counts like a test's.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "package")]
from machine import apt_settings, sources, why_not
from support import die_with_parent

TOP = os.path.abspath(os.path.join(HERE, "..", ".."))
SOFTWARE = "make,git,sudo,ca-certificates"
LONGEST = 2 * 3600    # seconds

# All processes end with the first one, and the mounts with them. The tree becomes the root of its namespace, as on a
# machine: below a root that chroot(2) changed there are no user namespaces.
ENTER = """
root=$1 user=$2 target=$3
mount --bind $root $root
mount -t proc proc $root/proc
mount --rbind /sys $root/sys
mount --rbind /dev $root/dev
for folder in run tmp; do mount -t tmpfs -o mode=1777 tmpfs $root/$folder; done
cd $root
pivot_root . .
umount --lazy .
cd /
exec sh -euc '
[ $1 = root ] || {
    useradd --create-home $1
    echo "$1 ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/$1
}
update-ca-certificates >/dev/null 2>&1
echo "127.0.0.1 localhost $(uname -n)" >/etc/hosts
chown -R $1 /srv/libmcpool
cd /srv/libmcpool
exec setpriv --reuid $1 --regid $(id -g $1) --init-groups env HOME=$(getent passwd $1 | cut -d : -f 6) make $2
' sh $user $target
"""


def environment():
    """Nothing of this shell, except where certificates are."""
    kept = {name: value for name, value in os.environ.items() if re.search(r"CERT|CA_BUNDLE|CAINFO", name)}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **kept}


def make_tree(suite, root):
    uri = sources().split()[1]
    subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", *(f"--aptopt={line}" for line in apt_settings()),
                    f"--include={SOFTWARE}", suite, root, uri], check=True, stdin=subprocess.DEVNULL)
    for file in "/etc/resolv.conf", "/usr/local/share/ca-certificates/.":
        if os.path.exists(file):
            subprocess.run(["cp", "-r", file, root + file], check=True)
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", TOP, f"{root}/srv/libmcpool"], check=True)


def run(suite, user, target):
    """True when `make TARGET` ends well."""
    if reason := why_not():
        print(f"FAILED no tree can be made: {reason}")
        return False
    with tempfile.TemporaryDirectory(prefix="mcpool-fresh-", dir="/var/tmp") as folder:
        root = os.path.join(folder, "root")
        try:
            make_tree(suite, root)
            began = time.monotonic()
            # The kernel removes what the tree mounted together with the namespace.
            done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", ENTER,
                                   "sh", root, user, target], env=environment(), stdin=subprocess.DEVNULL,
                                  timeout=LONGEST, preexec_fn=die_with_parent, check=False)
            print(f"{suite}, {user}: make {target} took {time.monotonic() - began:.0f} s, exit code "
                  f"{done.returncode}", flush=True)
            return done.returncode == 0
        except (subprocess.SubprocessError, OSError) as error:
            print(f"FAILED {suite}, {user}: {error}")
            return False
        finally:
            subprocess.run(["rm", "-rf", "--one-file-system", root], check=False)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made is removed then, too
    results = {case: run(*case.split(":")) for case in sys.argv[1:]}
    for case in (case for case, good in results.items() if not good):
        print(f"FAILED {case}")
    passed = sum(results.values())
    print(f"{passed} passed, {len(results) - passed} failed")
    return 0 if passed == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
