"""mcpool metrics: read by Prometheus's own parser, as a file and over HTTP."""

import http.client
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from observed import COMMAND, SHIM, Listener


def families(text):
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text, name, **labels):
    for family in families(text).values():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def test_values(host):
    client = host.client().turns(8).turns(-1)
    text = host.mcpool("metrics").stdout
    mine = {"pid": str(client.pid), "command": "python3", "endpoint": host.server.address}
    assert value(text, "mcpool_connects_total", **mine) == 9
    assert value(text, "mcpool_reused_total", **mine) == 8
    assert value(text, "mcpool_idle", **mine) == 0
    assert value(text, "mcpool_refused_total", reason="REQUEST_PARTIAL", **mine) == 1
    assert value(text, "mcpool_time_wait_avoided_total", **mine) == 8
    assert 0 < value(text, "mcpool_connect_seconds_total", **mine) < 5
    usual = value(text, "mcpool_usual_connect_seconds", **mine)
    assert 0 < value(text, "mcpool_connect_seconds_avoided_total", **mine) == pytest.approx(8 * usual, rel=0.2)
    assert value(text, "mcpool_process_info", pid=str(client.pid), dry_run="false", mode="on") == 1


def test_conventions(host):
    host.client().turns(3)
    text = host.mcpool("metrics").stdout
    for family in families(text).values():
        assert family.documentation and family.name.startswith("mcpool_")
        assert family.type in ("counter", "gauge", "histogram")
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    for name, kind in kinds.items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert text.count(f"# HELP {name} ") == 1
    samples = [line.split("{")[0] for line in text.splitlines() if line[0] != "#"]
    names = [re.sub("_(bucket|sum|count)$", "", name) for name in samples]
    assert names == sorted(names, key=list(kinds).index), "samples of a metric stand together"


def test_promtool_agrees(host):
    if not shutil.which("promtool"):
        pytest.skip("no promtool here")
    host.client().turns(3)
    done = subprocess.run(["promtool", "check", "metrics"], input=host.mcpool("metrics").stdout,
                          capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_every_counter_is_there(host):
    host.client().turns(1)
    known = families(host.mcpool("metrics").stdout)
    with open(os.path.join(SHIM, "stats", "stats.def"), encoding="ascii") as file:
        names = re.findall(r"^STAT\(\w+, (\w+),", file.read(), re.M)
    assert len(names) >= 12
    for name in names:
        assert "mcpool_" + re.sub("_[um]s(?=_|$)", "_seconds", name) in known


def buckets(text, histogram, **labels):
    """The bounds of HISTOGRAM and how many values are up to each."""
    return {float(sample.labels["le"]): sample.value for sample in families(text)[histogram].samples
            if sample.name == histogram + "_bucket" and labels.items() <= sample.labels.items()}


@pytest.mark.parametrize("histogram, values", [("mcpool_connect_duration_seconds", 3),
                                               ("mcpool_idle_age_seconds", 6)])
def test_histograms(host, histogram, values):
    client = host.client().turns(4).turns(-2).turns(3)
    text = host.mcpool("metrics").stdout
    mine = {"pid": str(client.pid)}
    found = buckets(text, histogram, **mine)
    bounds = list(found)
    assert len(bounds) >= 10 and bounds == sorted(bounds) and bounds[-1] == float("inf")
    assert list(found.values()) == sorted(found.values())
    assert found[bounds[-1]] == value(text, histogram + "_count", **mine) == values
    assert 0 <= value(text, histogram + "_sum", **mine) < 5
    assert value(text, "mcpool_connects_timed_total", **mine) == 3
    assert value(text, "mcpool_reused_total", **mine) == 6


def test_idle_ages_are_counted_where_they_belong(host):
    client = host.client().turns(1)
    time.sleep(1.3)
    client.turns(1)
    text = host.mcpool("metrics").stdout
    found = buckets(text, "mcpool_idle_age_seconds", pid=str(client.pid))
    assert found[1] == 0 and sum(found.values()) >= 1
    assert value(text, "mcpool_idle_age_seconds_sum", pid=str(client.pid)) >= 1.2


def test_what_was_avoided_never_falls(host):
    """Also when the connects become shorter: a mean times the reuses did."""
    client = host.client()
    seen = []
    for _ in range(12):
        client.turns(2).turns(-1)
        seen.append(value(host.mcpool("metrics").stdout, "mcpool_connect_seconds_avoided_total",
                          pid=str(client.pid)))
    assert seen == sorted(seen) and seen[0] < seen[-1]


def prometheus_reads(text, tmp_path):
    """What a real Prometheus has after it has scraped TEXT, by the name of a sample."""
    (tmp_path / "metrics").write_text(text, encoding="ascii")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as target, socket.socket() as free:
        threading.Thread(target=target.serve_forever, daemon=True).start()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        (tmp_path / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: mcpool\n  static_configs:\n"
            f"  - targets: ['127.0.0.1:{target.server_port}']\n")
        with subprocess.Popen(["prometheus", f"--config.file={tmp_path}/prometheus.yml",
                               f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address=127.0.0.1:{port}"],
                              stderr=subprocess.DEVNULL) as running:
            try:
                return ask_prometheus(port)
            finally:
                running.kill()
                target.shutdown()


def ask_prometheus(port):
    for _ in range(600):
        time.sleep(0.1)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query="
                                        "%7Bjob%3D%22mcpool%22%7D", timeout=20) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            continue
        if any(sample["metric"]["__name__"].startswith("mcpool_") for sample in found):
            return found
    raise AssertionError("Prometheus has read nothing")


def test_a_real_prometheus_reads_all(host, tmp_path):
    if not shutil.which("prometheus"):
        pytest.skip("no prometheus here")
    client = host.client().turns(3).turns(-1)
    text = host.mcpool("metrics").stdout
    found = [sample["metric"] for sample in prometheus_reads(text, tmp_path)]
    ours = [metric for metric in found if metric["__name__"].startswith("mcpool_")]
    assert len(ours) == sum(line[0] != "#" for line in text.splitlines())
    assert {metric.get("exported_pid", metric.get("pid")) for metric in ours} == {str(client.pid)}


def test_dashboard_asks_for_what_there_is(host):
    host.client().turns(1)
    known = set(re.findall(r"^# TYPE (\S+)", host.mcpool("metrics").stdout, re.M))
    with open(os.path.join(SHIM, "cli", "grafana", "mcpool.json"), encoding="utf-8") as file:
        dashboard = json.load(file)
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked |= set(re.findall(r"\bmcpool_\w+", target["expr"]))
    for variable in dashboard["templating"]["list"]:
        asked |= set(re.findall(r"\bmcpool_\w+", variable["query"]))
    assert len(asked) > 10 and {re.sub("_bucket$", "", name) for name in asked} <= known


def test_output_is_replaced_at_once(host, tmp_path):
    client = host.client().turns(1)
    path = tmp_path / "mcpool.prom"
    path.write_text("old")
    with open(path, encoding="ascii") as old:
        done = host.mcpool("metrics", "--output", path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert old.read() == "old"
    assert value(path.read_text(), "mcpool_connects_total", pid=str(client.pid)) == 1
    assert os.stat(path).st_mode & 0o777 == 0o644
    assert os.listdir(tmp_path).count("mcpool.prom") == 1 and len(os.listdir(tmp_path)) == 2


def test_output_that_cannot_be_written(host, tmp_path):
    done = host.mcpool("metrics", "--output", tmp_path / "missing" / "mcpool.prom")
    assert done.returncode == 1 and "missing" in done.stderr
    (tmp_path / "folder").mkdir()
    done = host.mcpool("metrics", "--output", tmp_path / "folder")
    assert done.returncode == 1 and sorted(os.listdir(tmp_path)) == ["folder", "stats"]


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/null", path)])
def test_output_replaces_files_only(host, tmp_path, make):
    make(tmp_path / "mcpool.prom")
    before = os.lstat(tmp_path / "mcpool.prom")
    done = host.mcpool("metrics", "--output", tmp_path / "mcpool.prom")
    assert (done.returncode, done.stdout) == (1, "") and "not a regular file" in done.stderr
    assert os.lstat(tmp_path / "mcpool.prom").st_ino == before.st_ino


class Exporter(Listener):
    def __init__(self, host):
        super().__init__(host, COMMAND)

    def ask(self, method="GET", path="/metrics"):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read().decode()


@pytest.fixture
def exporter(host):
    running = Exporter(host)
    yield running
    assert running.process.poll() is None
    running.process.kill()
    running.process.wait()


def test_exporter(host, exporter):
    client = host.client().turns(1)
    status, kind, text = exporter.ask()
    assert status == 200 and kind.startswith("text/plain; version=0.0.4")
    assert value(text, "mcpool_connects_total", pid=str(client.pid)) == 1
    client.turns(1)
    assert value(exporter.ask()[2], "mcpool_connects_total", pid=str(client.pid)) == 2
    assert exporter.ask(path="/")[0] == 404
    assert exporter.ask(path="/metricsandmore")[0] == 404
    assert exporter.ask("HEAD")[::2] == (200, "")


def test_exporter_is_for_this_host_only(exporter):
    listening = subprocess.run(["ss", "-Hltn", f"sport = :{exporter.port}"], stdout=subprocess.PIPE,
                               text=True, check=True).stdout
    assert listening.split()[3] == f"127.0.0.1:{exporter.port}"


def test_slow_clients_wait_for_themselves_only(exporter):
    slow = [exporter.dial() for _ in range(60)]
    for connection in slow:
        connection.sendall(b"GET /metr")
    assert exporter.ask()[0] == 200
    for connection in slow[:30]:
        connection.sendall(b"ics HTTP/1.0\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.0 200"
    for connection in slow:
        connection.close()


def test_more_clients_than_there_is_room_for(exporter):
    crowd = [exporter.dial() for _ in range(80)]
    for connection in crowd:
        connection.close()
    assert exporter.ask()[0] == 200


def test_too_long_a_request(exporter):
    connection = exporter.dial()
    connection.sendall(b"GET /" + b"x" * 8000)
    try:
        assert connection.recv(1) == b""
    except ConnectionResetError:
        pass
    assert exporter.ask()[0] == 200


@pytest.mark.parametrize("where", ["256.1.1.1:9855", "[::1%nonsense]:9855", "memcached:9855", "m" * 70 + ":9855"])
def test_addresses_that_are_none(host, where):
    done = host.mcpool("metrics", "--listen", where)
    assert done.returncode == 1 and done.stderr == f"mcpool: {where}: Invalid argument\n"


@pytest.mark.parametrize("where", ["", "nonsense", "127.0.0.1:", ":http-no", "99999", "65536", "0", "-1", "+9855",
                                   "9855x", "127.0.0.1:74071", "[::1]:74071", "18446744073709561471"])
def test_ports_that_are_none(host, where):
    """getaddrinfo() takes each number modulo 65536."""
    done = host.mcpool("metrics", "--listen", where)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mcpool: --listen {where}: the port must be a number from 1 to 65535\n")


def test_both_at_once(host):
    assert host.mcpool("metrics", "--listen", "1", "--output", "x").returncode == 2
