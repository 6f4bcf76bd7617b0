/*
 * The wire tracker: is anything owed on this connection?
 *
 * It is fed exactly the bytes that moved, in order, in either direction, in any fragmentation,
 * and answers whether the next user of the connection could receive, or cause, a byte that
 * belongs to this one. It knows bytes only: no descriptors, no clock, no allocation, no locks.
 * The caller serialises all calls on one struct wire, except for those marked SENDER.
 *
 * What is sent is looked at before the system call, as its memory may be gone afterwards, and
 * counts only after it: so the parser of requests works on a copy, a look ahead, which is
 * committed when all of it was sent.
 *
 * Source: memcached's doc/protocol.txt and doc/protocol-binary.txt; where servers differ from
 * them or from each other, the grammar accepted here is the part on which all of them agree.
 * Anything else poisons the connection for good.
 */
#ifndef MCPOOL_WIRE_H
#define MCPOOL_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reasons.h"

/* Different kinds of requests in a row that can wait for their replies; equal ones in a row
 * count as one. */
#define WIRE_RUNS 64

enum wire_protocol {
    WIRE_UNDECIDED, /* no byte was sent yet: the server decides by the first one */
    WIRE_TEXT,      /* classic and meta commands alike */
    WIRE_BINARY,
};

enum wire_verdict {
    WIRE_CLEAN,       /* both directions at a boundary, nothing owed, nothing can still come */
    WIRE_UNCONFIRMED, /* at a boundary, but quiet requests may still be answered: any fence */
    WIRE_UNPROVEN,    /* the same, and only the answer MN to `mn` proves the opposite */
    WIRE_REPLY_OWED,  /* at a boundary between requests, and replies are owed */
    WIRE_BUSY,        /* inside a request */
    WIRE_DIRTY,       /* never to be handed on */
};

struct wire_run {
    uint8_t class; /* what was asked; private to the parsers */
    uint8_t quiet; /* it is answered only sometimes */
    uint32_t count;
};

/* The requests that were sent in full and not answered yet, oldest first: a ring. */
struct wire_queue {
    uint8_t first;
    uint8_t used;
    struct wire_run runs[WIRE_RUNS];
};

/* The part of a word of a text line that came so far: its beginning, which is all of it for a
 * number or a command name. */
struct wire_word {
    uint16_t length;
    char text[22];
};

struct wire_text_request {
    uint8_t state;
    uint8_t command; /* row of the command table plus one; 0 while its name is being read */
    uint8_t args;
    bool quiet;
    bool spaced;    /* the data block holds a space */
    uint16_t line;  /* length so far, up to one more than is allowed */
    uint32_t data;  /* bytes of the data block still to come, without its CR LF */
    uint64_t flags; /* the meta flags seen, one bit for each letter */
    struct wire_word token;
};

struct wire_text_reply {
    uint8_t state;
    uint8_t head; /* row of the table of reply heads */
    uint8_t tokens;
    bool malformed;
    bool continued; /* lines of a longer reply came before this one */
    uint16_t line;
    uint32_t data; /* bytes of the value still to come, without its CR LF */
    struct wire_word token;
    char text[64]; /* the beginning of the line, enough to compare whole error lines */
};

#define WIRE_PACKET_HEADER 24

/* A binary packet, in either direction. */
struct wire_packet {
    uint8_t header[WIRE_PACKET_HEADER];
    uint8_t have;   /* bytes of the header */
    bool continued; /* packets of a longer reply came before this one */
    uint32_t body;  /* bytes of the body still to come */
};

/* What tells an ASCII login from plain stores, up to the first good reply. */
struct wire_auth {
    bool judged; /* the first good reply came */
    bool asked; /* a request that cannot be a login, and wants a reply, came before any `set` */
    bool set;   /* a `set` was sent before the first reply */
    bool spaced_set; /* and its value holds a space, as credentials do */
    bool no_auth;
    bool maybe;
};

struct wire {
    enum reason poison; /* REASON_NONE until something was not understood */
    uint8_t protocol;
    bool answered;  /* some request that demands a reply got it */
    bool unfenced;  /* quiet requests were sent after the last one that was answered */
    bool need_mn;   /* the quiet ones are such that only MN proves their end */
    bool known16;   /* the server answered MN: it is 1.6.0 or newer */
    bool has_nonce; /* the next NOOP answered must carry it */
    uint32_t nonce;
    struct wire_auth login;
    union {
        struct wire_text_request text;
        struct wire_packet packet;
    } request;
    union {
        struct wire_text_reply text;
        struct wire_packet packet;
    } reply;
    struct wire_queue queue;
};

/* Starts afresh, for a connection on which no byte was sent or received. */
void wire_init(struct wire *wire);

/* N bytes at BYTES were accepted by the kernel for the server: a look ahead at them and its
 * commit. */
void wire_sent(struct wire *wire, const void *bytes, size_t n);

/* SENDER: begins a look ahead at the next bytes to be sent on WIRE. Reads only what no other
 * thread changes while the caller is the only sender. Of AHEAD nothing but the functions below
 * must be asked; it may be thrown away at any time. */
void wire_look_ahead(struct wire *ahead, const struct wire *wire);

/* How many of the N bytes at AT, at least one, may be read; 0 when the first may not. */
typedef size_t wire_may_look(void *context, const void *at, size_t n);

/* Adds N bytes at BYTES to AHEAD. MAY_LOOK is asked with CONTEXT before bytes are read; values
 * are skipped, neither read nor asked about, unless they may be a login's. False when a byte
 * that must be read may not: AHEAD is useless then. */
bool wire_look_at(struct wire *ahead, const void *bytes, size_t n, wire_may_look *may_look,
                  void *context);

/* What AHEAD has looked at was sent, all of it and nothing else since it began. */
void wire_commit(struct wire *wire, const struct wire *ahead);

/* SENDER: whether the N bytes at BYTES, the next to be sent on WIRE, are from the first to the
 * last a `get` of one key, of at most WIRE_ONE_GET_MAX bytes: most of what is ever sent. Then
 * wire_sent_one_get() is as good as a look ahead and its commit. */
#define WIRE_ONE_GET_MAX 256
bool wire_is_one_get(const struct wire *wire, const void *bytes, size_t n);
void wire_sent_one_get(struct wire *wire);

/* N bytes at BYTES from the server were handed to the application. */
void wire_received(struct wire *wire, const void *bytes, size_t n);

enum wire_verdict wire_verdict(const struct wire *wire);

/* Why the verdict is not WIRE_CLEAN; REASON_NONE when it is. The first cause of WIRE_DIRTY
 * stays, except that an unused connection stops being one. */
enum reason wire_refusal(const struct wire *wire);

/* Where in a request or reply the tracker stopped, for people. */
struct wire_place {
    bool in_reply;
    const char *line;   /* the command, or the first word of the reply; NULL: not a known one */
    unsigned int word;  /* which word of the line, from 1; 0: the data behind it */
    const char *text;   /* its first KEPT bytes, no NUL behind; NULL for keys and values */
    size_t kept;        /* how many of its N bytes are at TEXT */
    size_t n;           /* the length of the word, or what is missing of the data */
    int opcode, status; /* of a binary packet; else -1 */
};

/* Fills PLACE for a connection whose refusal is REASON. False when there is no place to tell.
 */
bool wire_place(const struct wire *wire, enum reason reason, struct wire_place *place);

/* Which protocol the first byte chose. Any thread may ask at any time. */
enum wire_protocol wire_protocol(const struct wire *wire);

/* Which protocol a connection speaks whose first byte is FIRST. */
enum wire_protocol wire_protocol_of(uint8_t first);

/* Whether the N bytes at BYTES may be a goodbye (`quit`, Quit, QuitQ), on whatever connection.
 */
bool wire_may_be_quit(const void *bytes, size_t n);

/* Whether the N bytes at BYTES, which are about to be sent, are a goodbye and nothing else, in
 * the protocol of this connection. */
bool wire_quit(const struct wire *wire, const void *bytes, size_t n);

/* A goodbye that is answered (Quit) at BYTES: writes the answer, of WIRE_QUIT_ANSWER bytes.
 * False when it is not answered. */
#define WIRE_QUIT_ANSWER 24
bool wire_quit_answer(const struct wire *wire, const void *bytes, uint8_t *answer);

/* Whether the server was seen to understand `mn` on this connection. */
bool wire_knows_mn(const struct wire *wire);

/* Writes into BYTES, of WIRE_FENCE_MAX, the request whose answer proves that nothing sent
 * before it can still be answered, and returns its length: on a binary connection NOOP with the
 * opaque NONCE, which the tracker then demands of the answer; on a text one `mn`, or `version`
 * unless MN. Only for the verdicts WIRE_UNCONFIRMED and WIRE_UNPROVEN; `version` never clears
 * the latter. What was sent of it is to be fed as any request. */
#define WIRE_FENCE_MAX 24
size_t wire_fence(struct wire *wire, bool mn, uint32_t nonce, uint8_t *bytes);

/* Whether this connection has shown that the server does not ask for ASCII authentication: its
 * first request was not a `set` and was answered without an error. */
bool wire_shows_no_auth(const struct wire *wire);

/* Whether this connection may have been logged in by its first request: a `set` whose value
 * holds a space and which was answered STORED looks the same as `-Y` authentication. Not part
 * of the verdict: the caller may know better from another connection to the same server. */
bool wire_may_be_authenticated(const struct wire *wire);

#endif
