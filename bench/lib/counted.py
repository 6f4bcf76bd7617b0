"""How many connections a server has while something runs."""

import socket
import threading
import time


class Counted:
    """Counts a server's connections while the block runs, on a connection that does not count. The server closes what
    was hung up only when its threads get to it."""

    def __init__(self, server):
        time.sleep(0.2)  # what stored the values is gone
        self.connection = socket.create_connection(("127.0.0.1", server.port), 20)
        self.answers = self.connection.makefile("rb")
        self.lock = threading.Lock()
        self.most = self.opened = 0
        self.before = self.ask()[0]
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.look)

    def ask(self):
        """(opened ever, open now)"""
        with self.lock:
            self.connection.sendall(b"stats\r\n")
            stats = dict(line.split()[1:3] for line in iter(self.answers.readline, b"END\r\n"))
        return int(stats[b"total_connections"]), int(stats[b"curr_connections"]) - 1

    def look(self):
        while not self.ended.wait(0.01):
            self.most = max(self.most, self.ask()[1])

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        self.opened = self.ask()[0] - self.before
        self.answers.close()
        self.connection.close()
