/*
 * The interfaces between the files of the wire tracker. Other folders include only wire.h.
 */
#ifndef MCPOOL_INTERNAL_H
#define MCPOOL_INTERNAL_H

#include <string.h>

#include "base/compiler.h"
#include "wire/wire.h"

/* What a memcached without room sends in place of a reply, in either protocol, before it closes
 * the connection: "ERROR Too many open connections". As long as a binary header, which a client
 * may read alone. */
#define WIRE_SERVER_FULL "ERROR Too many open conn"

/* Classes of text requests. All requests of a class can have the same replies. */
enum text_class {
    CLASS_GET,
    CLASS_STORE,
    CLASS_ARITH,
    CLASS_TOUCH,
    CLASS_DELETE,
    CLASS_FLUSH,
    CLASS_VERSION,
    CLASS_STATS,
    CLASS_MN,
    CLASS_NOREPLY, /* any classic command with noreply: no reply to it is accepted */
    CLASS_QUIT,    /* never queued */
    CLASS_MG,
    CLASS_MS,
    CLASS_MD,
    CLASS_MA,
    TEXT_CLASSES
};

/* Kinds of lines in text replies. */
enum text_kind {
    KIND_END = 1 << 0,
    KIND_VALUE = 1 << 1,
    KIND_STORED = 1 << 2,
    KIND_NOT_STORED = 1 << 3,
    KIND_EXISTS = 1 << 4,
    KIND_NOT_FOUND = 1 << 5,
    KIND_NUMBER = 1 << 6,
    KIND_TOUCHED = 1 << 7,
    KIND_DELETED = 1 << 8,
    KIND_OK = 1 << 9,
    KIND_VERSION = 1 << 10,
    KIND_STAT = 1 << 11,
    KIND_MN = 1 << 12,
    KIND_HD = 1 << 13,
    KIND_VA = 1 << 14,
    KIND_EN = 1 << 15,
    KIND_NF = 1 << 16,
    KIND_NS = 1 << 17,
    KIND_EX = 1 << 18,
};

/* The longest value accepted in either direction. With lengths near 2^31 and 2^32 the
 * arithmetic of servers overflows. */
#define WIRE_VALUE_MAX (1u << 30)

#define WIRE_KEY_MAX 250

/* Gives the connection up for REASON. The first reason stays. */
COLD void wire_poison(struct wire *wire, enum reason reason);

/* Notes that a request that demands a reply got it, and that the reply was read in full. */
void wire_answered(struct wire *wire);

/* Access to fields that one thread may read while another one writes them: the sender reads
 * `poison` and `judged`, which the receiver writes, and any thread reads the protocol. Relaxed:
 * each value stands alone. Writers hold conn_trylock(); only readers without it need this. */
#define WIRE_GET(field)        __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define WIRE_SET(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELAXED)

/* queue.c: the requests that wait for their replies. */

/* Adds one request, those of RUN, or all of ASKED, oldest first. If there is no room, poisons
 * the connection. */
void queue_push(struct wire *wire, uint8_t class, bool quiet);
void queue_push_run(struct wire *wire, struct wire_run run);
void queue_push_all(struct wire *wire, const struct wire_queue *asked);

static inline struct wire_run *queue_run(struct wire_queue *queue, unsigned index)
{
    return &queue->runs[(queue->first + index) % WIRE_RUNS];
}

/* The run at INDEX, where 0 is the oldest; NULL past the newest. */
static inline struct wire_run *queue_at(struct wire_queue *queue, unsigned index)
{
    return index < queue->used ? queue_run(queue, index) : NULL;
}

static inline bool queue_empty(const struct wire_queue *queue)
{
    return queue->used == 0;
}

/* Removes the oldest run. An empty queue begins at entry 0 again, which is in the processor's
 * cache. */
static inline void queue_drop(struct wire_queue *queue)
{
    queue->used--;
    queue->first = (uint8_t)(queue->used == 0 ? 0 : (queue->first + 1) % WIRE_RUNS);
}

/* Removes the oldest request, which was answered. The queue must not be empty. */
static inline void queue_pop(struct wire_queue *queue)
{
    if (--queue_run(queue, 0)->count == 0)
        queue_drop(queue);
}

/* Whether the queue has a request that is quiet, or one that is not. */
bool queue_holds(const struct wire_queue *queue, bool quiet);

/* wire/word.c: the words of text lines. */

/* A whole word. If it came in pieces, TEXT has only its beginning; see struct wire_word. */
struct word {
    const char *text;
    size_t length;
};

/* Adds the N bytes at BYTES to TOKEN: a part of a word, but not its end. */
void word_add(struct wire_word *token, const uint8_t *bytes, size_t n);

/* Returns the word that TOKEN and the N bytes at BYTES make: these are its end, or all of it.
 * The word points into BYTES or TOKEN. TOKEN is empty afterwards, but keeps the text until the
 * next word_add(). */
struct word word_end(struct wire_word *token, const uint8_t *bytes, size_t n);

/* A constant word, for tables and word_is(). */
#define WORD(text)                                                                             \
    {                                                                                          \
        (text), sizeof(text) - 1                                                               \
    }

static inline bool word_is(struct word word, struct word name)
{
    size_t same = 0;

    if (word.length != name.length)
        return false;
    /* No memcmp(): for a name of a few letters the call takes longer than the loop. */
    while (same < name.length && word.text[same] == name.text[same])
        same++;
    return same == name.length;
}

/* Whether WORD is a decimal number of at most MAX without a sign; fills NUMBER. */
bool word_number(struct word word, uint64_t max, uint64_t *number);

/* Whether WORD is a decimal number of 31 bits, with an optional minus sign. */
bool word_is_int32(struct word word);

/* wire/auth.c: ASCII authentication, or plain stores? */

/* Notes a request that was sent in full. SET: it is a `set`. SPACED: its value has a space. */
void auth_asked(struct wire_auth *login, bool set, bool spaced, bool quiet);

/* auth_ahead() copies LOGIN for a look ahead. auth_commit() copies what the sender has changed
 * in AHEAD back, once the bytes were sent. */
struct wire_auth auth_ahead(const struct wire_auth *login);
void auth_commit(struct wire_auth *login, const struct wire_auth *ahead);

/* Notes a reply without error, to a request that is not quiet, that was read in full. */
void auth_answered(struct wire_auth *login, bool stored);

/* wire/text_request.c: the requests of the text protocol. */

/* Parses the next N bytes that are sent. */
void text_sent(struct wire *wire, const uint8_t *bytes, size_t n);

/* Skips the beginning of the next N bytes as far as it is a value that need not be read, and
 * counts it as sent. Returns its length. */
size_t text_skip(struct wire *wire, size_t n);

/* Whether the N bytes at BYTES are `quit` and nothing else. */
bool text_quit(const uint8_t *bytes, size_t n);

/* Parts of their namesakes in wire.h. */
void text_sent_whole(struct wire *wire, struct wire_run run);
bool text_request_place(const struct wire *wire, struct wire_place *place);

/* Whether the bytes sent so far end inside a request. */
static inline bool text_inside_request(const struct wire *wire)
{
    return wire->request.text.state != 0 || wire->request.text.line > 0;
}

/* wire/text_reply.c: the replies of the text protocol. */

/* Whether the next byte that is received begins a line. */
static inline bool text_at_line(const struct wire *wire)
{
    return wire->reply.text.state == 0 && wire->reply.text.line == 0;
}

/* Parses the next bytes that are received, up to the end of a line or value. Returns where it
 * stopped: at END if the connection is given up. There is at least one byte. */
const uint8_t *text_read_reply(struct wire *wire, const uint8_t *bytes, const uint8_t *end)
    __attribute__((noinline));

/* Part of wire_place(). */
bool text_reply_place(const struct wire *wire, struct wire_place *place);

/* Whether the bytes received so far end inside a reply. */
bool text_inside_reply(const struct wire *wire);

/* quick.c: the commonest requests and replies of the text protocol, in one pass. */

/* Part of wire_are_whole(). */
bool text_are_whole(const struct wire *wire, const uint8_t *bytes, size_t n,
                    struct wire_run *run);

/* Parses as many whole requests from AT on as it can. Returns where it stopped: at the
 * beginning of a request, as AT is. */
const uint8_t *text_sent_quickly(struct wire *wire, const uint8_t *at, const uint8_t *end);

/* Parses the bytes that are received from AT to END: in one pass where it can, else by
 * text_read_reply(). */
void text_received(struct wire *wire, const uint8_t *at, const uint8_t *end);

/* meta.c: flags and replies of mg, ms, md and ma. */

/* Adds the flag WORD to REQUEST. False when WORD is no flag, or REQUEST has it already. */
bool meta_add_flag(struct wire_text_request *request, struct word word);

/* The kinds of replies to a meta command of CLASS, a bit for each. */
unsigned meta_answers(enum text_class class, bool quiet);

/* binary.c: the binary protocol. */

#define BINARY_MAGIC_REQUEST 0x80

/* Whether the N bytes at BYTES are Quit or QuitQ and nothing else. */
bool binary_quit(const uint8_t *bytes, size_t n);

/* Parts of wire_quit_answer() and wire_place(). */
bool binary_quit_answer(const uint8_t *quit, uint8_t *answer);
bool binary_place(const struct wire *wire, struct wire_place *place);

/* Writes a NOOP with OPAQUE into BYTES, of WIRE_PACKET_HEADER bytes. Returns its length. */
size_t binary_noop(uint32_t opaque, uint8_t *bytes);

static inline bool binary_inside_request(const struct wire *wire)
{
    return wire->request.packet.have > 0;
}

/* As their namesakes of the text protocol. */
bool binary_are_whole(const struct wire *wire, const uint8_t *bytes, size_t n,
                      struct wire_run *run);
void binary_sent_whole(struct wire *wire, struct wire_run run);
void binary_sent(struct wire *wire, const uint8_t *bytes, size_t n);
size_t binary_skip(struct wire *wire, size_t n);
void binary_received(struct wire *wire, const uint8_t *bytes, size_t n);
bool binary_inside_reply(const struct wire *wire);

#endif
