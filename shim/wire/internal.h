/*
 * What the files of the wire tracker share among themselves; the outside sees wire.h only.
 */
#ifndef MCPOOL_INTERNAL_H
#define MCPOOL_INTERNAL_H

#include <string.h>

#include "base/compiler.h"
#include "wire/wire.h"

/* What a text request asks for, as far as its reply is concerned. */
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
    CLASS_NOREPLY, /* any classic command with noreply: answered by nothing we accept */
    CLASS_QUIT,    /* never queued */
    CLASS_MG,
    CLASS_MS,
    CLASS_MD,
    CLASS_MA,
    TEXT_CLASSES
};

/* What a line of a text reply says. */
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

/* The longest value accepted in either direction. Servers wrap lengths near 2^31 and 2^32. */
#define WIRE_VALUE_MAX (1u << 30)

#define WIRE_KEY_MAX 250

/* The first reason stays. */
COLD void wire_poison(struct wire *wire, enum reason reason);

/* A request that demands a reply got it, and the reply was read in full. */
void wire_answered(struct wire *wire);

/* What one thread reads while another one may write it: the sender's what the receiver knows, a
 * fork's the protocol. */
#define WIRE_GET(field)        __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define WIRE_SET(field, value) __atomic_store_n(&(field), value, __ATOMIC_RELAXED)

/* queue.c: what is owed. */

/* One more request, or all those of ASKED, oldest first, wait for their replies; poisons the
 * connection when there is no room. */
void queue_push(struct wire *wire, uint8_t class, bool quiet);
void queue_push_all(struct wire *wire, const struct wire_queue *asked);

static inline bool queue_empty(const struct wire_queue *queue)
{
    return queue->used == 0;
}

/* The run at INDEX from the oldest; NULL past the newest. */
struct wire_run *queue_at(struct wire_queue *queue, unsigned index);

/* Forgets the oldest run, one of quiet requests that were not answered. */
COLD void queue_drop(struct wire_queue *queue);

/* The oldest request was answered. The queue must not be empty. */
void queue_take(struct wire_queue *queue);

/* Whether any request of that kind waits. */
bool queue_holds(const struct wire_queue *queue, bool quiet);

/* wire/word.c: the words of text lines. */

/* A whole word; of one that came in pieces TEXT holds only the beginning, see wire_word. */
struct word {
    const char *text;
    size_t length;
};

/* N bytes at BYTES are a part of a word, but not its end. */
void word_add(struct wire_word *token, const uint8_t *bytes, size_t n);

/* They are its end, or all of it: the word, which lasts as long as BYTES and TOKEN do. TOKEN is
 * left for the next one. */
struct word word_end(struct wire_word *token, const uint8_t *bytes, size_t n);

/* A name of a table, for word_is(). */
#define WORD(text)                                                                             \
    {                                                                                          \
        (text), sizeof(text) - 1                                                               \
    }

static inline bool word_is(struct word word, struct word name)
{
    size_t same = 0;

    if (word.length != name.length)
        return false;
    /* Names are shorter than a call of memcmp(). */
    while (same < name.length && word.text[same] == name.text[same])
        same++;
    return same == name.length;
}

/* Whether it is a decimal number of at most MAX without sign, and which. */
bool word_number(struct word word, uint64_t max, uint64_t *number);

/* Whether it is a decimal number of 32 bits, with an optional minus sign. */
bool word_is_int32(struct word word);

/* wire/auth.c: telling ASCII authentication from stores. */

/* A request was sent in full. */
void auth_asked(struct wire_auth *login, bool set, bool spaced, bool quiet);

/* The sender's half of LOGIN for a look ahead, and back when what it saw was sent. */
struct wire_auth auth_ahead(const struct wire_auth *login);
void auth_commit(struct wire_auth *login, const struct wire_auth *ahead);

/* A demanded reply without error was read in full; STORED says it was that one. */
void auth_answered(struct wire_auth *login, bool stored);

/* wire/text_request.c and text_reply.c: the classic protocol. */

/* Whether the N bytes at BYTES are a goodbye. */
bool text_quit(const uint8_t *bytes, size_t n);

/* Parts of wire_place(). */
bool text_request_place(const struct wire *wire, struct wire_place *place);
bool text_reply_place(const struct wire *wire, struct wire_place *place);

void text_sent(struct wire *wire, const uint8_t *bytes, size_t n);

/* How many of the next N bytes are a value that need not be seen: they have been sent then. */
size_t text_skip(struct wire *wire, size_t n);

/* As wire_is_one_get() and wire_sent_one_get(). */
bool text_is_one_get(const struct wire *wire, const uint8_t *bytes, size_t n);
void text_sent_one_get(struct wire *wire);
void text_received(struct wire *wire, const uint8_t *bytes, size_t n);
bool text_inside_request(const struct wire *wire);
bool text_inside_reply(const struct wire *wire);

/* meta.c: what is peculiar to mg, ms, md and ma. */

/* Takes WORD of REQUEST as a flag; false when it is none, or not a new one. */
bool meta_take_flag(struct wire_text_request *request, struct word word);

/* The kinds that can answer a meta command of that class. */
unsigned meta_answers(enum text_class class, bool quiet);

/* binary.c: the binary protocol. */

#define BINARY_MAGIC_REQUEST 0x80

/* As text_quit(), and the namesakes in wire.h. */
bool binary_quit(const uint8_t *bytes, size_t n);
bool binary_quit_answer(const uint8_t *goodbye, uint8_t *answer);
size_t binary_noop(uint32_t opaque, uint8_t *bytes);

bool binary_place(const struct wire *wire, struct wire_place *place);

void binary_sent(struct wire *wire, const uint8_t *bytes, size_t n);
size_t binary_skip(struct wire *wire, size_t n);
void binary_received(struct wire *wire, const uint8_t *bytes, size_t n);
bool binary_inside_request(const struct wire *wire);
bool binary_inside_reply(const struct wire *wire);

#endif
