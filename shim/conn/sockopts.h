/*
 * Socket options: which ones the program has set on a socket, and how a pooled connection gets
 * exactly the options of the fresh socket that it replaces.
 *
 * The options that we know can be set back, or are fixed: a connection is reused only where its
 * fixed options equal those of the fresh socket. Any other option makes the connection
 * unpoolable.
 *
 * TCP_NODELAY is special. The kernel of the server acknowledges at once on a new connection.
 * Later it delays an acknowledgement for up to 40 ms, and Nagle's algorithm holds back the
 * client's next small packet until then. A program that writes twice before it reads would wait
 * so on every reused connection, and never on a new one. So reused connections have TCP_NODELAY
 * on, unless the program has set it itself, and sockopts_seen() hides that.
 *
 * So is TCP keepalive (tcp(7)): with it the kernel notices that the path of an idle connection
 * is dead, and firewalls do not forget the connection. It is left alone on a connection whose
 * program has set one of its options, or TCP_USER_TIMEOUT, which changes what it does.
 */
#ifndef MCPOOL_SOCKOPTS_H
#define MCPOOL_SOCKOPTS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

#include "base/compiler.h"

#define OPTIONS_COUNT    15 /* rows of the table in sockopts.c */
#define OPTION_VALUE_MAX 16 /* bytes: a struct timeval */

/* Rows of the table, as bits of `given`: the options of TCP keepalive, and TCP_USER_TIMEOUT. */
#define OPTIONS_OF_KEEPALIVE 0x3c1u

struct sockopts {
    uint16_t given;      /* a bit per row: the program has set the option */
    bool forced_nodelay; /* we have set TCP_NODELAY, not the program; see sockopts_apply() */
    bool bound;          /* by bind(), to a port that the kernel chose, before connect() */
    uint16_t keep_idle;  /* seconds: our TCP keepalive is on; 0: it is not */
    uint8_t value[OPTIONS_COUNT][OPTION_VALUE_MAX];
};

/* Notes that setsockopt() succeeded with these arguments. False when the socket must not be
 * pooled any more: the option or its size is unknown to us; the option is fixed and CONNECTED,
 * which says that the socket has a peer; or IP_TOS was set after SO_PRIORITY. */
bool sockopts_note(struct sockopts *options, bool connected, int level, int name,
                   const void *value, socklen_t len);

/* Whether a connection with the options HAVE can get the options WANT: all fixed options and
 * `bound` are equal. A bound socket differs from others: it keeps its port when connect() with
 * AF_UNSPEC ends the connection (connect(2)). */
bool sockopts_fit(const struct sockopts *have, const struct sockopts *want);

/* Makes the kernel send what Nagle's algorithm (tcp(7), TCP_NODELAY) holds back on the
 * connection FD, which has OPTIONS and keeps them. */
void sockopts_push(int fd, const struct sockopts *options);

/* Switches off SO_LINGER (socket(7)) on the socket FD, with which close() may wait. False when
 * the call failed. errno is kept; no cancellation point. */
COLD bool sockopts_linger_off(int fd);

/* Switches off SO_LINGER on the connection FD, which has OPTIONS, if close() would
 * wait for unsent data; and notes that in OPTIONS. One system call then, else none. False when
 * the call failed. errno is kept; no cancellation point. */
bool sockopts_stop_lingering(int fd, struct sockopts *options);

/* Sets all of OPTIONS on the socket FD, which has none. False when one failed. errno is kept;
 * no cancellation point. */
COLD bool sockopts_give(int fd, const struct sockopts *options);

/* Whether OPTIONS, of a socket that was never connected, can be set back to the kernel's
 * defaults. Not those of a bound socket. */
bool sockopts_can_be_cleared(const struct sockopts *options);

/* Sets OPTIONS back to the kernel's defaults on FD. False when one failed. errno is kept; no
 * cancellation point. */
bool sockopts_clear(int fd, const struct sockopts *options);

/* Gives the fd CONNECTION, which has HAVE, the options WANT of the fd FRESH, and TCP_NODELAY if
 * WANT has not set that. The kernel's defaults are read from FRESH. A few system calls, none
 * when nothing differs. False when one failed. errno is kept; no cancellation point. The caller
 * notes the result by sockopts_equalize(). */
bool sockopts_apply(int connection, const struct sockopts *have, int fresh,
                    const struct sockopts *want);

/* Whether the two need nothing of each other, as in most hits: no option is the program's, none
 * is bound, and the connection with HAVE was prepared for that. Then sockopts_fit() is true,
 * sockopts_apply() makes no call, and sockopts_equalize() changes nothing. */
static inline bool sockopts_are_alike(const struct sockopts *have, const struct sockopts *want)
{
    static const struct {
        uint16_t given;
        bool forced_nodelay, bound;
    } fresh = {0, false, false}, prepared = {0, true, false};

    return memcmp(want, &fresh, sizeof(fresh)) == 0 &&
           memcmp(have, &prepared, sizeof(prepared)) == 0;
}

/* Makes HAVE what a connection has after sockopts_apply() with WANT. */
void sockopts_equalize(struct sockopts *have, const struct sockopts *want);

/* Switches off what we have set on the TCP connection FD, which has OPTIONS: TCP_NODELAY and
 * TCP keepalive. errno is kept; no cancellation point. */
COLD void sockopts_restore(int fd, struct sockopts *options);

/* The interval of keepalive probes, in seconds, and how many go unanswered before the kernel
 * ends the connection. It must outlive a break of the path as it would without keepalive. */
#define KEEPALIVE_INTERVAL 5
#define KEEPALIVE_PROBES   120

/* Whether sockopts_keep_alive() has anything to do on a connection with OPTIONS. It is done
 * once. */
static inline bool sockopts_can_keep_alive(const struct sockopts *options, unsigned int idle)
{
    return idle != 0 && options->keep_idle == 0 && !(options->given & OPTIONS_OF_KEEPALIVE);
}

/* Whether nothing is to be done to OPTIONS before the connection is kept: no option is the
 * program's, and our keepalive is on, or off when IDLE is 0. */
static inline bool sockopts_are_settled(const struct sockopts *options, unsigned int idle)
{
    return options->given == 0 && (__builtin_expect(options->keep_idle != 0, 1) || idle == 0);
}

/* Switches TCP keepalive on for the connection FD, which has OPTIONS: the first probe is sent
 * after IDLE seconds. sockopts_can_keep_alive() has said that it may be. False when a call
 * failed: then the options are not those of OPTIONS any more, and the connection must not be
 * kept. errno is kept; no cancellation point. */
COLD bool sockopts_keep_alive(int fd, struct sockopts *options, unsigned int idle);

/* Learns from FD, which has OPTIONS and no keepalive of ours, what a connection that another
 * process has switched on must hide. False when FD does not show it. errno is kept; no
 * cancellation point. */
COLD bool sockopts_know_usual(int fd, const struct sockopts *options);

/* The program has just set this option on the connection FD, which has OPTIONS. If it is one
 * that our keepalive depends on, that is switched off, and its other options are what they
 * would be without us. False when that failed. errno is kept; no cancellation point. */
COLD bool sockopts_yield(int fd, struct sockopts *options, int level, int name);

/* Whether an option is set on a socket with OPTIONS that the program has not set. */
static inline bool sockopts_are_forced(const struct sockopts *options)
{
    return options->forced_nodelay || options->keep_idle != 0;
}

/* Whether getsockopt() on a socket with OPTIONS must hide the true value of this option. */
bool sockopts_hides(const struct sockopts *options, int level, int name);

/* getsockopt() has returned VALUE, of LEN bytes, on a socket with OPTIONS. Changes VALUE to
 * what the program must see. */
void sockopts_seen(const struct sockopts *options, int level, int name, void *value,
                   socklen_t len);

#endif
