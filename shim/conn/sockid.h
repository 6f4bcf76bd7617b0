/*
 * Asks the kernel about the socket at an fd: which socket it is (SO_COOKIE, Linux 4.12), and
 * how many bytes have moved through it (TCP_INFO, tcp(7)).
 *
 * The functions have no state. None takes a lock, blocks or is a cancellation point. errno is
 * kept.
 */
#ifndef MCPOOL_SOCKID_H
#define MCPOOL_SOCKID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conn/conn.h"

struct tcp_info;

/* The kernel's identity of the socket at FD. False when FD is no socket. One system call. */
bool sockid_cookie(int fd, uint64_t *cookie);

/* Whether FD names the socket of CONN. One system call. */
bool sockid_is_at(const struct conn *conn, int fd);

/* Whether FD certainly does not name the socket of CONN: it names another file, or none. False
 * when the kernel does not tell. One system call, or two when it gives no cookie. */
bool sockid_is_elsewhere(const struct conn *conn, int fd);

/* Fills INFO about the TCP socket at FD, up to the last field that the library reads. Returns
 * how many bytes of INFO the kernel has filled, which are those that may be read; 0 when the
 * call failed. One system call. */
#define SOCKID_TCP_INFO                                                                        \
    (offsetof(struct tcp_info, tcpi_notsent_bytes) +                                           \
     sizeof(((struct tcp_info *)NULL)->tcpi_notsent_bytes))
size_t sockid_tcp_info(int fd, struct tcp_info *info);

#endif
