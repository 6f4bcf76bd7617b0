"""The picture in the README: what netstat shows after requests to gunicorn, without and with the library.

Usage: picture.py LIBRARY FILE. Writes FILE, an SVG. Needs root: everything runs in a network namespace, where
port 11211 is free and no other socket is shown.
"""
import collections
import html
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests"))
from support import PYTHON, Process, preloaded

PORT, REQUESTS, CONCURRENCY = 11211, 306, 6
SHOWN = 7    # lines of netstat in each half
INSIDE = "MCPOOL_DEMO_INSIDE"

Half = collections.namedtuple("Half", "command lines more")


def enter_namespace():
    if INSIDE in os.environ:
        return
    command = "ip link set lo up && exec \"$@\""
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", command, "sh", sys.executable, *sys.argv])


def connections():
    """What netstat says of those to the server, by their local port."""
    text = subprocess.run(["netstat", "-tn"], stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = (line.rstrip() for line in text.splitlines())
    return {line.split()[3]: line for line in lines if line.split()[4:5] == [f"127.0.0.1:{PORT}"]}


def half(library):
    """Serves the requests; returns what is to be shown of it."""
    address = f"127.0.0.1:{PORT}"
    command = ["gunicorn", "-k", "gevent", "app:app"]
    with Process(["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(PORT), "-U", "0"], PORT):
        with Process([PYTHON, "-m", *command], 8000, preloaded(library, address, DEMO_SERVER=address), cwd=HERE):
            before = connections()    # whether the servers listen was asked by connecting to them
            subprocess.run(["ab", "-q", f"-n{REQUESTS}", f"-c{CONCURRENCY}", "http://127.0.0.1:8000/"],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
            lines = [line for port, line in connections().items() if port not in before]
    words = ["LD_PRELOAD=libmcpool.so", *command] if library else command
    return Half(" ".join(words), lines[:SHOWN], len(lines[SHOWN:]))


def text_at(x, y, text, color):
    return f'<text x="{x}" y="{y}" fill="{color}" xml:space="preserve">{html.escape(text)}</text>'


def draw(halves):
    line, left = 19, 16
    rows, y = [], 30
    for one in halves:
        more = [f"... and {one.more} more"] if one.more else []
        rows.append(text_at(left, y, f"$ {one.command}", "#7ee787"))
        y += line
        rows.append(text_at(left, y, f"$ ab -q -n{REQUESTS} -c{CONCURRENCY} http://127.0.0.1:8000/ >/dev/null; "
                                     f"netstat -tn | grep 127.0.0.1:{PORT}", "#7ee787"))
        for text in [*one.lines, *more]:
            y += line
            rows.append(text_at(left, y, text, "#e6edf3"))
        y += 2 * line
    width = left * 2 + 9 * max(len(text) for one in halves for text in [*one.lines, " " * 86])
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y - line}" '
        'font-family="monospace" font-size="14">',
        '<rect width="100%" height="100%" rx="8" fill="#0d1117"/>', *rows, "</svg>", ""])


def main():
    library, path = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    enter_namespace()
    picture = draw([half(None), half(library)])
    with open(path, "w", encoding="utf-8") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
