"""The network: the cycle over round trips of 0 to 5 ms, between two network namespaces.

forwarder.c is the network: two TUN devices and the delay between them. The namespaces are held by
processes and go with them. Client and server share a processor, the forwarder has the other. Needs
root.
"""

import statistics
import sys

from lib import machine
from lib.report import Report, number, quartiles
from lib.rounds import interleaved, ratios, spread
from lib.wire import SERVER, can_make_one, network, wait_until_it_answers
from lib.worker import Turns
from namespaces import started
from support import free_port

# Milliseconds for a round trip, and turns in a batch, so that batches take about as long.
ROUND_TRIPS = {0: 100, 0.2: 60, 0.5: 40, 1: 20, 5: 6}
ROUNDS = 20
SECONDS = 120

OPEN, WITHOUT, WITH = "stays open", "cycle, no shim", "cycle, shim"


def measure():
    """{round trip in ms: {kind: µs for each round}}."""
    with network() as (forwarder, client, server):
        port = free_port()
        address = f"{SERVER}:{port}"
        with started([*server, "memcached", "-u", "nobody", "-l", SERVER, "-p", str(port),
                      "-U", "0"]):
            while not wait_until_it_answers(client, address):
                pass
            with Turns(False, address, prefix=client) as plain, \
                    Turns(True, address, prefix=client) as shim:
                results = {}
                for round_trip, turns in ROUND_TRIPS.items():
                    forwarder.ask(round_trip / 2 * 1000)
                    results[round_trip] = interleaved(ROUNDS, {
                        OPEN: lambda: plain.open(turns), WITHOUT: lambda: plain.cycle(turns),
                        WITH: lambda: shim.cycle(turns)})
                return results


def main():
    if not can_make_one():
        print("network: skipped, as it needs root and /dev/net/tun to make a network\n")
        return 0
    machine.stay_on(machine.ONE_CPU)
    with machine.bounded(SECONDS), Report("network", "Over a network") as report:
        results = measure()
        report.raw("network", ["round trip ms", "round", *results[0]],
                   [[round_trip, count, *row] for round_trip, times in results.items()
                    for count, row in enumerate(zip(*times.values()))])
        report.say(f"Client and server in two network namespaces joined by a forwarder that delays "
                   f"each packet; {ROUNDS} rounds, interleaved. Milliseconds are medians; ratios "
                   "are within a round.")
        faster = {round_trip: spread(ratios(times[WITHOUT], times[WITH]))
                  for round_trip, times in results.items()}
        report.table(["round trip, ms", f"{OPEN}, ms", f"{WITHOUT}, ms", f"{WITH}, ms",
                      "shim, times as fast", "quartiles"],
                     [[str(round_trip),
                       *(number(statistics.median(times[kind]) / 1000) for kind in times),
                       *quartiles(faster[round_trip])] for round_trip, times in results.items()])
        for round_trip in (0.5, 5):
            report.headline(f"over a round trip of {round_trip} ms: the shim, times as fast as "
                            "without", faster[round_trip], "2.0")
        report.lines("network", "A cycle by the time of a get on a connection that stays open",
                     {kind: {round_trip: spread(ratios(times[kind], times[OPEN]))
                             for round_trip, times in results.items()}
                      for kind in (WITHOUT, WITH)}, "round trip, ms", "ratio")
    return 0


if __name__ == "__main__":
    sys.exit(main())
