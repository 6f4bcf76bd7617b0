/*
 * What the integration tests share. Each Criterion test runs in its own process, with
 * libmcpool.so preloaded, against a real memcached at TEST_PORT or a scripted server of its
 * own. What the library did is read from its log, lines of this process only.
 */
#ifndef MCPOOL_TEST_HARNESS_H
#define MCPOOL_TEST_HARNESS_H

#include <stdbool.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <criterion/criterion.h>

#include "base/rawsys.h"
#include "slowness.h"
#include "stats/counters.h"

/* The port of the memcached, and the path of the one on a unix socket. */
int server_port(void);
const char *server_path(void);

/* A connected socket to 127.0.0.1:PORT. */
int dial(int port);
int dial_server(void);

/* Fills ADDR with 127.0.0.1:PORT. */
struct sockaddr_in *loopback(struct sockaddr_in *addr, int port);

void send_text(int fd, const char *text);
/* Reads exactly TEXT; fails the test when something else comes. */
void expect_text(int fd, const char *text);

/* One request with its reply, which leaves the connection clean. */
void exchange(int fd);

/* A thread that closes a connection without waiting for its reply does not get it back for a
 * second, but the caller may. */
void close_by_another_thread(int fd);

/* The local port, by which a connection is recognised. */
int local_port(int fd);

/* Uses and closes a connection, which is kept; returns its local port. */
int park(void);

/* Shadow fds are in the top quarter of the table, which in these tests has 64 entries. */
#define LOWEST_PRIVATE 48

/* The shadow fd of the one idle connection. */
int shadow_fd(void);

/* How many connections the memcached has opened so far. Asked on a connection that is not
 * pooled. */
long opened_at_server(void);

/* This process's last log line with kept, not kept, reused or discarded. */
const char *last_event(void);
/* How many log lines of this process, or of another, contain TEXT. */
int log_count(const char *text);
int log_count_of(pid_t pid, const char *text);

/* The name of the counters' file of the process PID; NULL when there is none. */
const char *stats_file_of(pid_t pid);

/* What the file of the process PID says of the server at PORT; NULL when it says nothing. */
const struct stats *stats_at(pid_t pid, int port);

/* A listening socket at 127.0.0.1, and its port. */
int listen_here(int *port);

/* A reused connection to PORT, where LISTENER is: the test plays that server, by system calls
 * at SERVER that the library does not see. */
int dial_played(int port, int listener, long *server);

/* A request on FD, and its reply from SERVER, at the other end. */
void exchange_played(int fd, long server);

/* From now on the process gets no more fds. Returns the limit of before. */
struct rlimit allow_no_more_fds(void);

/* A server with one script. It accepts connections on a port of its own and answers each chunk
 * it receives with ANSWER. After HANG_UP_AFTER answers it closes (0: never). Returns the port.
 * It runs in a thread; the library does not follow its calls, because they are on accepted
 * sockets. */
int scripted_server(const char *answer, int hang_up_after);

/* Waits until the thread TID of this process is inside the system call NR, or in a piece of it.
 */
void wait_inside(pid_t tid, long nr);

/* Waits for CHILD, whose exit code is 0 when all was well. */
void expect_good_end(pid_t child);

/* A message of one byte that passes an fd (unix(7)). It must not be moved after
 * fill_fd_message(). */
struct fd_message {
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec iov;
    struct mmsghdr msg; /* msg_hdr is for sendmsg() and recvmsg() */
};

void fill_fd_message(struct fd_message *message, int fd);

/* The fd that came with MESSAGE. */
int fd_of_message(const struct fd_message *message);

/* Skips the test under ASan, which itself makes the program behave otherwise. */
void not_under_asan(void);

/* Skips the test under valgrind, which has fds and a limit of its own and reports every bad
 * address. */
void not_under_valgrind(void);

/* Skips the test where the kernel has no close_range() with all its flags: before Linux 5.11.
 */
void needs_close_range(void);

/* A system call that the library cannot see. Returns -errno on failure. */
#define unseen raw_syscall

#define EXPECT_EVENT(text)                                                                     \
    cr_expect(strstr(last_event(), text) != NULL, "expected '%s', the log says '%s'", text,    \
              last_event())
#define EXPECT_NOT_KEPT(reason) EXPECT_EVENT(": not kept: " reason " ")
#define EXPECT_KEPT()           EXPECT_EVENT(": kept")

#endif
