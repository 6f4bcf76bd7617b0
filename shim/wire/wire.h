/*
 * The wire tracker: parses the bytes of a connection, and says whether the connection can be
 * reused. It can if the next user of the connection will receive no byte that belongs to this
 * user, and the server none that completes a request of this user.
 *
 * The tracker gets exactly the bytes that were sent and received, in order, in pieces of any
 * size. It knows only bytes: no fds, no clock, no allocation, no locks. The caller serialises
 * all calls on one struct wire, except for those marked SENDER.
 *
 * The bytes to be sent are parsed before the system call, as their memory may be gone after it.
 * But they count only once they were sent. So the parser of requests works on a copy, a look
 * ahead, which is committed when all of its bytes were sent.
 *
 * Source: doc/protocol.txt and doc/protocol-binary.txt of memcached. Servers differ from these
 * and from each other. The grammar accepted here is the part on which all servers agree;
 * anything else poisons the connection: it is given up for good.
 */
#ifndef MCPOOL_WIRE_H
#define MCPOOL_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reasons.h"

/* How many runs of requests can wait for their replies. Requests of the same class in a row are
 * one run. */
#define WIRE_RUNS 64

enum wire_protocol {
    WIRE_UNDECIDED, /* no byte was sent yet; the server goes by the first one */
    WIRE_TEXT,      /* classic and meta commands alike */
    WIRE_BINARY,
};

enum wire_verdict {
    WIRE_CLEAN,       /* between requests and replies; no reply can come any more */
    WIRE_UNCONFIRMED, /* quiet requests may still be answered: send a fence of any kind */
    WIRE_UNPROVEN,    /* a value may be executed as commands: only `mn` is a fence */
    WIRE_REPLY_OWED,  /* no request was sent in part; replies are outstanding */
    WIRE_BUSY,        /* a request was sent in part */
    WIRE_DIRTY,       /* never to be reused */
};

struct wire_run {
    uint16_t class; /* for the parsers: the class of a text request, or a binary opcode */
    uint16_t quiet; /* not every request of this run gets a reply */
    uint32_t count;
};

/* A ring of the requests that were sent in full and not answered yet, oldest first. */
struct wire_queue {
    uint8_t first;
    uint8_t used;
    struct wire_run runs[WIRE_RUNS];
};

/* The part of a word of a text line that has come so far. TEXT keeps its beginning, without a
 * NUL: enough for all of a number or a command name. LENGTH counts all bytes. */
struct wire_word {
    uint16_t length;
    char text[22];
};

struct wire_text_request {
    uint8_t state;
    uint8_t command; /* row of the table of commands plus one; 0 while the name is not read */
    uint8_t args;
    bool quiet;
    bool spaced;    /* the data block has a space in it */
    uint16_t line;  /* length of the line so far; stops counting one above the limit */
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
    char text[64]; /* the beginning of the line, without a NUL */
};

#define WIRE_PACKET_HEADER 24

/* A binary packet, in either direction. */
struct wire_packet {
    uint8_t header[WIRE_PACKET_HEADER];
    uint8_t have;   /* bytes of the header */
    bool continued; /* packets of a longer reply came before this one */
    uint32_t body;  /* bytes of the body still to come */
};

/* What tells an ASCII login from plain stores. Final after the first good reply. */
struct wire_auth {
    bool judged;     /* the first good reply has come: one that is no error */
    bool asked;      /* before any `set` came another request that is not quiet */
    bool set;        /* a `set` was sent before the first good reply */
    bool spaced_set; /* the value of such a `set` has a space in it, as a login has */
    bool no_auth;    /* see wire_shows_no_auth() */
    bool maybe;      /* see wire_may_be_authenticated() */
};

/* Bits. What a server may still execute as commands, each with a reply. Only `mn` is a fence
 * then. */
enum wire_need {
    WIRE_NEED_QUIET = 1, /* the value of a quiet request that it refused */
    WIRE_NEED_VALUE = 2, /* the value of a store that it answered with an error */
};

/* The one request that is outstanding on a settled connection, if it is. A text connection is
 * settled when its verdict is CLEAN and its first good reply was judged: then a common request
 * and its whole reply change nothing else in struct wire, see wire/lone.h. */
enum wire_lone {
    WIRE_UNSETTLED, /* what is outstanding is in the queue, and in the parsers */
    WIRE_SETTLED,   /* nothing is */
    WIRE_LONE_GET,  /* a `get` of the key in a struct wire_key */
    WIRE_LONE_RUN,  /* plus its class: another whole request */
};

/* The longest key of a WIRE_LONE_GET. */
#define WIRE_LONE_KEY 64

struct wire {
    enum reason poison; /* why the connection was given up; else REASON_NONE */
    uint8_t protocol;
    uint8_t lone;        /* enum wire_lone */
    uint8_t lone_length; /* of the key of a WIRE_LONE_GET */
    bool answered;       /* a request that is not quiet was answered */
    bool unfenced;       /* quiet requests were sent after the last request that was answered */
    uint8_t need_mn;     /* enum wire_need: why only MN proves that no reply is to come */
    bool known16;        /* the server answered MN, so it is 1.6.0 or newer */
    bool has_nonce;      /* the next reply to a NOOP must have the opaque NONCE */
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

/* The key of a WIRE_LONE_GET. It is no part of struct wire, of which calls have a copy on the
 * stack. Its last eight bytes are a word. */
struct wire_key {
    uint64_t words[WIRE_LONE_KEY / sizeof(uint64_t)];
};

/* For a new connection, on which no byte was sent or received. */
void wire_init(struct wire *wire);

/* The N bytes at BYTES were sent. The same as a look ahead and its commit. */
void wire_sent(struct wire *wire, const void *bytes, size_t n);

/* SENDER: begins a look ahead at the next bytes to be sent on WIRE. Needs no lock while the
 * caller is the only sender: what another thread may write meanwhile is read atomically. AHEAD
 * is only for wire_look_at() and wire_commit(), and needs no clean-up. */
void wire_look_ahead(struct wire *ahead, const struct wire *wire);

/* How many of the N bytes at AT can be read without a fault; 0 when the first cannot. N is at
 * least 1. */
typedef size_t wire_may_look(void *context, const void *at, size_t n);

/* Adds the N bytes at BYTES to AHEAD. Calls MAY_LOOK with CONTEXT before it reads them. Skips
 * values, without MAY_LOOK, unless one may be a login. False when a byte that must be read
 * cannot: AHEAD is of no use then. */
bool wire_look_at(struct wire *ahead, const void *bytes, size_t n, wire_may_look *may_look,
                  void *context);

/* All bytes that were added to AHEAD were sent, and no others since wire_look_ahead(). */
void wire_commit(struct wire *wire, const struct wire *ahead);

/* SENDER: a fast path for the commonest requests, which needs no look ahead. Whether the N
 * bytes at BYTES, the next to be sent on WIRE, are whole `get`s, or whole `set`s, and nothing
 * else; fills RUN. If they are sent, wire_sent_whole() does the same as a look ahead and its
 * commit.
 */
bool wire_are_whole(const struct wire *wire, const void *bytes, size_t n, struct wire_run *run);
void wire_sent_whole(struct wire *wire, struct wire_run run);

/* One whole `get` was sent. */
void wire_sent_get(struct wire *wire);

/* The program received the N bytes at BYTES. */
void wire_received(struct wire *wire, const void *bytes, size_t n);

enum wire_verdict wire_verdict(const struct wire *wire);

/* Why the verdict is not WIRE_CLEAN; REASON_NONE when it is. The first reason for WIRE_DIRTY
 * stays, except for UNUSED, which goes with the first reply. */
enum reason wire_refusal(const struct wire *wire);

/* The place in a request or reply at which the tracker stopped, for the log. */
struct wire_place {
    bool in_reply;
    const char *line;   /* the command, or the first word of the reply; NULL: an unknown one */
    unsigned int word;  /* the number of the word in the line, from 1; 0: in the data */
    const char *text;   /* its first KEPT bytes, no NUL behind; NULL for keys and values */
    size_t kept;        /* how many of its N bytes are at TEXT */
    size_t n;           /* the length of the word, or what is missing of the data */
    int opcode, status; /* of a binary packet; else -1 */
};

/* Fills PLACE for a connection that is refused for REASON. False when that has no place. The
 * texts in PLACE are parts of WIRE, or static. */
bool wire_place(const struct wire *wire, enum reason reason, struct wire_place *place);

/* The protocol of the connection. Any thread may call it at any time. */
enum wire_protocol wire_protocol(const struct wire *wire);

/* The protocol of a connection on which the first byte sent is FIRST. */
enum wire_protocol wire_protocol_of(uint8_t first);

/* Whether a quit can have N bytes: `quit` with its CR LF, or a binary header alone. */
static inline bool wire_quit_has_length(size_t n)
{
    return n == 6 || n == WIRE_PACKET_HEADER;
}

/* Whether the N bytes at BYTES are a quit (`quit`, Quit or QuitQ) in one of the protocols, and
 * nothing else. */
bool wire_may_be_quit(const void *bytes, size_t n);

/* Whether the N bytes at BYTES, which are about to be sent, are a quit and nothing else in the
 * protocol of this connection. */
bool wire_quit(const struct wire *wire, const void *bytes, size_t n);

/* BYTES is a quit. If the server answers it, as it does Quit: writes the reply, of
 * WIRE_QUIT_ANSWER bytes, to ANSWER. Else false. */
#define WIRE_QUIT_ANSWER 24
bool wire_quit_answer(const struct wire *wire, const void *bytes, uint8_t *answer);

/* What is known of a clean connection beside its bytes, to be kept while another process has
 * it. All bytes have a meaning: any content is that of some connection. */
struct wire_saved {
    uint8_t protocol;
    uint8_t facts; /* bits, see wire.c */
};

/* Fills SAVED; WIRE must be clean. */
void wire_save(const struct wire *wire, struct wire_saved *saved);

/* Makes WIRE the clean connection that was saved. False when SAVED is that of none. */
bool wire_restore(struct wire *wire, const struct wire_saved *saved);

/* Whether the server has answered `mn` on this connection. */
bool wire_knows_mn(const struct wire *wire);

/* Writes a fence to BYTES, of WIRE_FENCE_MAX bytes, and returns its length. A fence is a
 * request whose reply proves that no request before it can still be answered. On a binary
 * connection it is a NOOP with the opaque NONCE, which the reply must have. On a text
 * connection it is `mn` if MN, else `version`. Only for the verdicts WIRE_UNCONFIRMED and
 * WIRE_UNPROVEN; `version` never clears the latter. The caller sends the fence, and calls
 * wire_sent_fence(), which does the same as wire_sent(). */
#define WIRE_FENCE_MAX 24
size_t wire_fence(struct wire *wire, bool mn, uint32_t nonce, uint8_t *bytes);
void wire_sent_fence(struct wire *wire, const uint8_t *bytes, size_t n);

/* Whether this connection has shown that the server asks for no ASCII login: its first request
 * was no `set`, and was answered without an error. */
bool wire_shows_no_auth(const struct wire *wire);

/* Whether this connection may be logged in: a `set` whose value has a space, and that is
 * answered with STORED first, looks like a login (memcached -Y). Not part of the verdict, as
 * another connection may have shown that the server asks for no login. */
bool wire_may_be_authenticated(const struct wire *wire);

/* Another connection has shown that. */
void wire_rule_out_login(struct wire *wire);

#endif
