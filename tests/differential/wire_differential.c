/*
 * The wire tracker against a real memcached. Plays an application that sends valid, mutated,
 * pipelined, quiet and half-written requests, and reads at random. Whenever the tracker says
 * that no reply is outstanding, the server must agree: no byte is waiting, and the next bytes
 * answer a new question, about a value that another connection has just stored.
 *
 * usage: wire_differential HOST PORT [--sequences N] [--seconds S] [--seed N]
 *                                    [--protocol text|binary|both]
 *
 * HOST is a loopback address. Exits with 1 when the tracker was wrong, with 2 on other trouble.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wire/lone.h"
#include "wire/wire.h"

#define REQUEST_ROOM  (4u << 20)
#define REPLY_ROOM    (64u << 10)
#define LONG_VALUE    (1u << 20) /* just above the default item limit */
#define QUIET_MS      20         /* an outstanding reply that takes longer is given up */
#define PATIENCE_MS   5000
#define LINGER_ONE_IN 16 /* how often to wait for late bytes */

static struct options {
    struct sockaddr_in server;
    unsigned long sequences;
    unsigned seconds;
    uint64_t seed;
    bool text;
    bool binary;
} options = {.sequences = 100000, .text = true, .binary = true};

static struct counts {
    unsigned long sequences;
    unsigned long connections;
    unsigned long verified[WIRE_DIRTY + 1]; /* by the verdict that was tested */
    unsigned long fences_refused;
    unsigned long busy;
    unsigned long dirty;
} counts;

static void fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("wire_differential: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(2);
}

/* Random choices. */

static uint64_t random_state;

static uint64_t draw(void)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static size_t below(size_t n)
{
    return (size_t)(draw() % n);
}

static bool one_in(size_t n)
{
    return below(n) == 0;
}

#define PICK(list) (list)[below(sizeof(list) / sizeof(list)[0])]

/* The requests of one sequence. */

static char request[REQUEST_ROOM];
static size_t request_length;

static void put_bytes(const void *bytes, size_t n)
{
    if (n > REQUEST_ROOM - request_length)
        n = REQUEST_ROOM - request_length;
    memcpy(request + request_length, bytes, n);
    request_length += n;
}

static void put(const char *format, ...)
{
    char line[1024];
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    put_bytes(line, (size_t)n);
}

static const char *some_key(void)
{
    static char key[256];

    if (one_in(40)) {
        size_t length = one_in(2) ? 250 : 1 + below(250);

        memset(key, 'K', length);
        key[length] = '\0';
    } else {
        snprintf(key, sizeof key, "k%zu", below(12));
    }
    return key;
}

/* Values that look like requests and replies confuse a careless parser, or a careless
 * server. */
static size_t put_value(char *value, size_t room)
{
    static const char *const values[] = {
        "",
        "1",
        "17",
        "x",
        "version\r\n",
        "END\r\n",
        "MN\r\n",
        "set k1 0 0 5\r\n",
        "quit\r\n",
        "STORED\r\n",
        "get k1\r\nget k2\r\n",
        "VALUE k1 0 1\r\n",
        "mn\r\n",
        "some user",
        "\r\n\r\n",
        "mg k1 v\r\nmn\r\n",
    };
    const char *unit = PICK(values);
    size_t times = one_in(4) ? 1 + below(50) : 1;
    size_t length = 0;

    if (one_in(400))
        times = LONG_VALUE / 8;
    for (; times > 0 && length + strlen(unit) <= room; times--) {
        memcpy(value + length, unit, strlen(unit));
        length += strlen(unit);
    }
    if (one_in(300)) {
        length = LONG_VALUE - 64 + below(128);
        memset(value, 'v', length);
    }
    return length;
}

static char value[LONG_VALUE + 4096];

static const char *maybe_noreply(void)
{
    return one_in(4) ? " noreply" : "";
}

static void put_store(void)
{
    static const char *const verbs[] = {"set",     "set",    "set",    "add",
                                        "replace", "append", "prepend"};
    size_t length = put_value(value, sizeof value);

    if (one_in(8))
        put("cas %s %zu %d %zu %zu%s\r\n", some_key(), below(100), (int)below(100) - 1, length,
            below(50), maybe_noreply());
    else
        put("%s %s %zu 0 %zu%s\r\n", PICK(verbs), some_key(), below(70000), length,
            maybe_noreply());
    put_bytes(value, length);
    put("\r\n");
}

static void put_get(void)
{
    static const char *const verbs[] = {"get", "get", "gets"};
    size_t keys = one_in(50) ? 1 + below(400) : 1 + below(4);

    if (one_in(6))
        put("%s %zu", one_in(2) ? "gat" : "gats", below(1000));
    else
        put("%s", PICK(verbs));
    while (keys-- > 0)
        put(" %s", some_key());
    put("%s\r\n", one_in(10) ? "  " : "");
}

static void put_short(void)
{
    static const char *const stats[] = {"",       " items", " slabs", " settings",
                                        " conns", " sizes", " "};

    switch (below(9)) {
    case 0:
    case 1:
        put("incr %s %zu%s\r\n", some_key(), below(100), maybe_noreply());
        break;
    case 2:
        put("decr %s %zu%s\r\n", some_key(), below(100), maybe_noreply());
        break;
    case 3:
        put("touch %s %zu%s\r\n", some_key(), below(1000), maybe_noreply());
        break;
    case 4:
        put("delete %s%s%s\r\n", some_key(), one_in(5) ? " 0" : "", maybe_noreply());
        break;
    case 5:
        put("flush_all%s%s\r\n", one_in(3) ? " 0" : "", maybe_noreply());
        break;
    case 6:
        put("version\r\n");
        break;
    case 7:
        put("mn\r\n");
        break;
    default:
        put("stats%s\r\n", PICK(stats));
        break;
    }
}

static void put_flags(const char *const *flags, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (one_in(4))
            put(" %s", flags[i]);
    }
    put("\r\n");
}

static void put_meta(void)
{
    static const char *const get[] = {"v", "q", "k", "t", "f", "c", "s", "Oabc", "N30", "T60"};
    static const char *const set[] = {"q", "k", "c", "T60", "F5", "MS", "O1", "I"};
    static const char *const delete[] = {"q", "k", "O2", "I", "T30"};
    static const char *const arithmetic[] = {"q", "v", "t", "c", "N0", "J5", "D2", "MD", "k"};
    size_t length;

    switch (below(4)) {
    case 0:
        put("mg %s", some_key());
        put_flags(get, sizeof get / sizeof get[0]);
        break;
    case 1:
        length = put_value(value, sizeof value);
        put("ms %s %zu", some_key(), length);
        put_flags(set, sizeof set / sizeof set[0]);
        put_bytes(value, length);
        put("\r\n");
        break;
    case 2:
        put("md %s", some_key());
        put_flags(delete, sizeof delete / sizeof delete[0]);
        break;
    default:
        put("ma %s", some_key());
        put_flags(arithmetic, sizeof arithmetic / sizeof arithmetic[0]);
        break;
    }
}

/* Lines that servers answer differently, or that change the connection. */
static void put_nasty(void)
{
    static const char *const lines[] = {
        " get k1\r\n",
        "\r\n",
        "get\r\n",
        "mn\n",
        "mn x\r\n",
        "version x\r\n",
        "set k1 0 0 -1\r\nversion\r\n",
        "set k1 0 0 3x\r\nabc\r\n",
        "set k1 0 0 +3\r\nabc\r\n",
        "set k1 0 0 2147483647\r\nversion\r\n",
        "set k1 x 0 8\r\nversion\r\n\r\n",
        "set k1 0 x 9\r\nversion\r\n\r\n",
        "set k1 0 0\r\nversion\r\n",
        "set k1 0 0 3 junk\r\nabc\r\n",
        "set k1 0 0 9 junk noreply\r\nversion\r\n\r\n",
        "set k1 0 0 4294967299\r\nabc\r\n",
        "cas k1 0 0 9 noreply\r\nversion\r\n\r\n",
        "incr k1 noreply\r\n",
        "incr k1 -1\r\n",
        "delete k1 5\r\n",
        "delete k1 noreply 0\r\n",
        "ms k1 4 !\r\nmn\r\n\r\n",
        "ms k1 S2\r\nab\r\n",
        "me k1\r\n",
        "mg k1 v v\r\n",
        "ms k1 3 Tx q\r\nmn\r\r\n",
        "mg k1 O123456789012345678901234567890123456\r\n",
        "GET / HTTP/1.1\r\n",
        "lru_crawler metadump all\r\n",
        "watch\r\n",
        "stats reset\r\n",
        "stats detail dump\r\n",
        "stats cachedump 1 10\r\n",
        "slabs reassign 1 2\r\n",
        "refresh_certs\r\n",
        "quit\r\n",
        "get k1\tk2\r\n",
        "get k1\n",
        "touch k1\r\n",
        "gat k1\r\n",
        "flush_all -1\r\n",
        "cache_memlimit 1\r\n",
        "incr k1 18446744073709551616\r\n",
    };
    char key[300];

    if (one_in(6)) {
        memset(key, 'L', 251);
        key[251] = '\0';
        put("%s %s%s\r\n", one_in(2) ? "version\r\nget" : "set", key,
            one_in(2) ? "" : " 0 0 9\r\nversion\r\n");
    } else {
        put("%s", PICK(lines));
    }
}

static void put_text(void)
{
    switch (below(12)) {
    case 0:
    case 1:
    case 2:
        put_store();
        break;
    case 3:
    case 4:
    case 5:
    case 6:
        put_get();
        break;
    case 7:
    case 8:
        put_meta();
        break;
    default:
        put_short();
        break;
    }
}

static void put_packet(uint8_t opcode, const char *key, size_t extras, size_t length)
{
    size_t body = strlen(key) + extras + length;
    uint8_t header[WIRE_PACKET_HEADER] = {0x80, opcode, 0, (uint8_t)strlen(key),
                                          (uint8_t)extras};
    char zeros[20] = {0};

    header[8] = (uint8_t)(body >> 24);
    header[9] = (uint8_t)(body >> 16);
    header[10] = (uint8_t)(body >> 8);
    header[11] = (uint8_t)body;
    header[12] = (uint8_t)draw();
    header[15] = (uint8_t)draw();
    put_bytes(header, sizeof header);
    put_bytes(zeros, extras);
    put_bytes(key, strlen(key));
    put_bytes(value, length);
}

static void put_binary(void)
{
    static const uint8_t lookups[] = {0x00, 0x09, 0x0c, 0x0d, 0x04, 0x14};
    static const uint8_t touches[] = {0x1c, 0x1d, 0x1e, 0x23, 0x24};
    static const uint8_t stores[] = {0x01, 0x11, 0x02, 0x12, 0x03, 0x13};
    static const uint8_t appends[] = {0x0e, 0x0f, 0x19, 0x1a};
    static const uint8_t counters[] = {0x05, 0x06, 0x15, 0x16};
    static const uint8_t bare[] = {0x0a, 0x0b, 0x08, 0x18, 0x10};
    static const uint8_t nasty[] = {0x1b, 0x20, 0x21, 0x30, 0x77, 0x07, 0x17, 0x3d};

    switch (below(9)) {
    case 0:
    case 1:
        put_packet(PICK(stores), some_key(), 8, put_value(value, sizeof value));
        break;
    case 2:
        put_packet(PICK(appends), some_key(), 0, put_value(value, sizeof value));
        break;
    case 3:
    case 4:
        put_packet(PICK(lookups), some_key(), 0, 0);
        break;
    case 5:
        put_packet(PICK(touches), some_key(), 4, 0);
        break;
    case 6:
        put_packet(PICK(counters), some_key(), 20, 0);
        break;
    case 7:
        put_packet(PICK(bare), "", 0, 0);
        break;
    default:
        if (one_in(8))
            put_packet(PICK(nasty), one_in(2) ? "" : "abcd", 0, below(8));
        else
            put_packet(0x0a, "", 0, 0);
        break;
    }
}

static void cut_out(size_t at, size_t n)
{
    memmove(request + at, request + at + n, request_length - at - n);
    request_length -= n;
}

static void mutate(void)
{
    static const char odd[] = "\r\n \t\0x0q\x80\x7f";
    size_t at = below(request_length);

    switch (below(6)) {
    case 0:
        request[at] = (char)(request[at] ^ (char)(1u << below(8)));
        break;
    case 1:
        request[at] = odd[below(sizeof odd - 1)];
        break;
    case 2:
        cut_out(at, 1);
        break;
    case 3:
        if (request_length < REQUEST_ROOM) {
            memmove(request + at + 1, request + at, request_length - at);
            request_length++;
        }
        break;
    case 4:
        cut_out(at, 1 + below(request_length - at));
        break;
    default:
        if (request[at] >= 'a' && request[at] <= 'z')
            request[at] = (char)(request[at] - 'a' + 'A');
        break;
    }
}

static void compose(bool binary)
{
    size_t requests = one_in(3) ? 1 + below(12) : 1;

    request_length = 0;
    while (requests-- > 0) {
        if (binary)
            put_binary();
        else if (one_in(60))
            put_nasty();
        else
            put_text();
    }
    if (one_in(6) && request_length > 0)
        mutate();
    if (one_in(30) && request_length > 0)
        request_length = 1 + below(request_length);
}

/* Connections. */

struct peer {
    int fd;
    bool binary;
    struct wire wire;
    struct wire_key key;
};

static int dial(void)
{
    const struct linger reset = {1, 0};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&options.server, sizeof options.server) < 0)
        fail("connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* Otherwise the ports run out in TIME_WAIT. */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    return fd;
}

static void open_peer(struct peer *peer)
{
    peer->fd = dial();
    peer->binary = options.binary && (!options.text || one_in(3));
    wire_init(&peer->wire);
    counts.connections++;
}

static void close_peer(struct peer *peer)
{
    close(peer->fd);
    peer->fd = -1;
}

static bool readable(int fd, int timeout_ms)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};

    return poll(&pollfd, 1, timeout_ms) > 0;
}

/* As many bytes as are in one page. */
static size_t may_look(void *context, const void *at, size_t n)
{
    size_t rest = 4096 - (uintptr_t)at % 4096;

    (void)context;
    return n < rest ? n : rest;
}

static void look(struct wire *ahead, const struct peer *peer, const char *bytes, size_t n)
{
    wire_look_ahead(ahead, &peer->wire);
    if (!wire_look_at(ahead, bytes, n, may_look, NULL))
        fail("a byte could not be looked at");
}

/* Moves bytes and tells the tracker of each, as the hooks do. Returns how many; -1 at the end
 * of the connection, 0 when none can move now. */
static ssize_t send_some(struct peer *peer, const char *bytes, size_t n)
{
    bool lone = lone_may_begin(&peer->wire) && lone_is_get(bytes, n);
    struct wire_run whole;
    struct wire ahead;
    ssize_t sent;

    look(&ahead, peer, bytes, n);
    if (lone)
        lone_keep_key(&peer->wire, &peer->key, bytes, n);
    sent = send(peer->fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EAGAIN)
        return 0;
    if (sent <= 0)
        return sent;
    if ((size_t)sent != n)
        look(&ahead, peer, bytes, (size_t)sent);
    if ((size_t)sent == n && lone)
        lone_sent(&peer->wire);
    else if ((size_t)sent == n && wire_are_whole(&peer->wire, bytes, n, &whole))
        wire_sent_whole(&peer->wire, whole);
    else
        wire_commit(&peer->wire, &ahead);
    return sent;
}

static ssize_t receive_some(struct peer *peer, char *bytes, size_t n)
{
    ssize_t received = recv(peer->fd, bytes, n, MSG_DONTWAIT);

    if (received > 0 && lone_received(&peer->wire, &peer->key, bytes, (size_t)received))
        return received;
    if (received > 0)
        wire_received(&peer->wire, bytes, (size_t)received);
    else if (received == 0)
        return -1;
    else if (errno == EAGAIN)
        return 0;
    return received;
}

/* The check of the tracker's verdict. */

static void print_escaped(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] >= ' ' && bytes[i] <= '~')
            putchar(bytes[i]);
        else
            printf("\\x%02x", (unsigned char)bytes[i]);
    }
    putchar('\n');
}

static void unsound(const struct peer *peer, const char *what, const char *bytes, size_t n)
{
    printf("UNSOUND: %s (seed %llu, sequence %lu, %s)\n", what,
           (unsigned long long)options.seed, counts.sequences,
           peer->binary ? "binary" : "text");
    printf("the last requests: ");
    print_escaped(request, request_length < 2000 ? request_length : 2000);
    printf("instead of the answer: ");
    print_escaped(bytes, n);
    exit(1);
}

static void store(int control, const char *key, const char *text)
{
    char line[128], reply[16] = "";
    int n = snprintf(line, sizeof line, "set %s 0 0 %zu\r\n%s\r\n", key, strlen(text), text);

    if (send(control, line, (size_t)n, MSG_NOSIGNAL) != n ||
        recv(control, reply, 8, MSG_WAITALL) != 8 || memcmp(reply, "STORED\r\n", 8) != 0)
        fail("the server does not store: %s", reply);
}

/* Reads exactly LENGTH bytes, or what came until the time is up. */
static size_t receive_exactly(struct peer *peer, char *bytes, size_t length)
{
    size_t have = 0;

    while (have < length && readable(peer->fd, PATIENCE_MS)) {
        ssize_t n = receive_some(peer, bytes + have, length - have);

        if (n < 0)
            break;
        have += (size_t)n;
    }
    return have;
}

static void send_all(struct peer *peer, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t sent = send_some(peer, bytes, n);

        if (sent < 0)
            return;
        bytes += sent;
        n -= (size_t)sent;
    }
}

struct question {
    char ask[128];
    size_t ask_length;
    char answer[128];
    size_t answer_length;
};

static void ask_in_text(struct question *question, const char *key, const char *text)
{
    question->ask_length =
        (size_t)snprintf(question->ask, sizeof question->ask, "get %s\r\n", key);
    question->answer_length =
        (size_t)snprintf(question->answer, sizeof question->answer,
                         "VALUE %s 0 %zu\r\n%s\r\nEND\r\n", key, strlen(text), text);
}

static void ask_in_binary(struct question *question, const char *key, const char *text)
{
    uint32_t opaque = (uint32_t)draw();

    memset(question, 0, sizeof *question);
    memcpy(question->ask, "\x80", 1);
    question->ask[3] = question->ask[11] = (char)strlen(key);
    memcpy(question->ask + 12, &opaque, sizeof opaque);
    strcpy(question->ask + WIRE_PACKET_HEADER, key);
    question->ask_length = WIRE_PACKET_HEADER + strlen(key);
    memcpy(question->answer, "\x81\0\0\0\4", 5);
    question->answer[11] = (char)(4 + strlen(text));
    memcpy(question->answer + 12, &opaque, sizeof opaque);
    strcpy(question->answer + WIRE_PACKET_HEADER + 4, text);
    question->answer_length = WIRE_PACKET_HEADER + 4 + strlen(text);
}

/* A value that no request has asked for: key and text are random. */
static bool answers_truly(struct peer *peer, int control, char *got, size_t *got_length)
{
    struct question question;
    char key[32], text[32];

    snprintf(key, sizeof key, "N%016llx", (unsigned long long)draw());
    snprintf(text, sizeof text, "%016llx", (unsigned long long)draw());
    store(control, key, text);
    if (peer->binary)
        ask_in_binary(&question, key, text);
    else
        ask_in_text(&question, key, text);
    send_all(peer, question.ask, question.ask_length);
    *got_length = receive_exactly(peer, got, question.answer_length);
    if (peer->binary && *got_length >= WIRE_PACKET_HEADER)
        memset(got + 16, 0, 8); /* the server's own cas number */
    return *got_length == question.answer_length &&
           memcmp(got, question.answer, question.answer_length) == 0;
}

static bool is_miss(const struct peer *peer, const char *got, size_t n)
{
    if (peer->binary)
        return n >= WIRE_PACKET_HEADER && got[7] == 1;
    return n == 5 && memcmp(got, "END\r\n", 5) == 0;
}

/* Asks twice. A miss may come from a mutated flush_all with a delay. A stream that is out of
 * step stays so, so the second answer decides as well as the first. False when the server hung
 * up and no bytes are outstanding. */
static bool verify(struct peer *peer, int control, enum wire_verdict claimed)
{
    char got[128];
    size_t n;

    if (readable(peer->fd, one_in(LINGER_ONE_IN) ? 1 : 0)) {
        ssize_t waiting = recv(peer->fd, got, sizeof got, MSG_DONTWAIT);

        if (waiting <= 0)
            return false;
        unsound(peer, "bytes are waiting on a connection called clean", got, (size_t)waiting);
    }
    if (!answers_truly(peer, control, got, &n)) {
        if (!is_miss(peer, got, n))
            unsound(peer, "the answer is another's", got, n);
        sleep(2);
        if (!answers_truly(peer, control, got, &n))
            unsound(peer, "the second answer is another's", got, n);
    }
    if (wire_verdict(&peer->wire) != WIRE_CLEAN)
        unsound(peer, "a get and its answer leave the tracker in doubt", got, n);
    if (one_in(LINGER_ONE_IN) && readable(peer->fd, 1))
        unsound(peer, "bytes follow the answer", got, n);
    counts.verified[claimed]++;
    return true;
}

/* True when the answer to the fence is exactly the expected one. */
static bool fenced(struct peer *peer)
{
    uint8_t fence[WIRE_FENCE_MAX];
    char answer[WIRE_FENCE_MAX] = "MN\r\n";
    char got[WIRE_FENCE_MAX];
    size_t length = wire_fence(&peer->wire, true, (uint32_t)draw(), fence);

    if (peer->binary) {
        memcpy(answer, fence, length);
        answer[0] = '\x81';
    }
    send_all(peer, (const char *)fence, length);
    if (receive_exactly(peer, got, length) != length || memcmp(got, answer, length) != 0 ||
        readable(peer->fd, 0))
        return false;
    if (wire_verdict(&peer->wire) != WIRE_CLEAN)
        unsound(peer, "a fence and its answer leave the tracker in doubt", got, length);
    return true;
}

/* The application that sends and reads. */

/* How it sends and reads one sequence. */
struct manner {
    bool eager;      /* reads a byte or two, and no more than the tracker asks for */
    bool impatient;  /* may stop before everything is sent */
    size_t fragment; /* sends at most so many bytes at once */
};

#define EAGER_BYTES 3000 /* so that long values do not take minutes */

static struct manner some_manner(void)
{
    static const size_t fragments[] = {1, 3, 20, 1000, 20000, REQUEST_ROOM, REQUEST_ROOM};
    struct manner manner = {.eager = one_in(2), .impatient = one_in(10)};

    manner.fragment = PICK(fragments);
    if (request_length / manner.fragment > EAGER_BYTES)
        manner.fragment = request_length;
    return manner;
}

static size_t read_size(const struct manner *manner, size_t received)
{
    if (manner->eager && received < EAGER_BYTES)
        return 1 + below(2);
    return 1 + below(one_in(2) ? 100 : REPLY_ROOM);
}

/* True when nothing is left to wait for. */
static bool settled(const struct peer *peer)
{
    return wire_verdict(&peer->wire) != WIRE_REPLY_OWED;
}

static bool given_up(const struct peer *peer)
{
    return wire_verdict(&peer->wire) == WIRE_DIRTY &&
           wire_refusal(&peer->wire) != REASON_UNUSED;
}

/* One sequence, until the application stops; false when the server hung up. */
static bool play(struct peer *peer)
{
    static char reply[REPLY_ROOM];
    struct manner manner = some_manner();
    size_t sent = 0, received = 0;

    while (!given_up(peer)) {
        ssize_t n = 0;

        if (sent < request_length) {
            size_t rest = request_length - sent;
            size_t size = 1 + below(manner.fragment);

            if ((n = send_some(peer, request + sent, size < rest ? size : rest)) < 0)
                return false;
            sent += (size_t)n;
            if (sent < request_length && n > 0 && !one_in(3))
                continue;
        }
        if (manner.eager && sent == request_length && settled(peer))
            return true;
        if ((n = receive_some(peer, reply, read_size(&manner, received))) < 0)
            return false;
        received += (size_t)n;
        if (manner.impatient && wire_verdict(&peer->wire) == WIRE_CLEAN)
            return true;
        if (n == 0 && sent == request_length &&
            (settled(peer) || !readable(peer->fd, QUIET_MS)))
            return true;
    }
    return true;
}

/* Does what the pool would do with the connection now; false when the pool would close it. */
static bool judge(struct peer *peer, int control)
{
    enum wire_verdict verdict = wire_verdict(&peer->wire);

    /* A mutated first byte selects the other protocol. */
    peer->binary = wire_protocol(&peer->wire) == WIRE_BINARY;
    switch (verdict) {
    case WIRE_CLEAN:
        return verify(peer, control, verdict);
    case WIRE_UNCONFIRMED:
    case WIRE_UNPROVEN:
        if (fenced(peer))
            return verify(peer, control, verdict);
        counts.fences_refused++;
        return false;
    case WIRE_REPLY_OWED:
    case WIRE_BUSY:
        counts.busy++;
        return false;
    case WIRE_DIRTY:
        counts.dirty++;
        return false;
    }
    return false;
}

static void run(void)
{
    time_t end = time(NULL) + (time_t)options.seconds;
    struct peer peer = {.fd = -1};
    int control = dial();

    while (counts.sequences < options.sequences && (options.seconds == 0 || time(NULL) < end)) {
        counts.sequences++;
        if (peer.fd < 0)
            open_peer(&peer);
        compose(peer.binary);
        if (!play(&peer) || !judge(&peer, control))
            close_peer(&peer);
    }
    close(control);
}

static bool parse_protocol(const char *text)
{
    options.text = strcmp(text, "binary") != 0;
    options.binary = strcmp(text, "text") != 0;
    return !options.text || !options.binary || strcmp(text, "both") == 0;
}

static bool parse_option(const char *name, const char *text)
{
    char *end;
    unsigned long long number;

    if (strcmp(name, "--protocol") == 0)
        return parse_protocol(text);
    number = strtoull(text, &end, 10);
    if (*text == '\0' || *end != '\0')
        return false;
    if (strcmp(name, "--sequences") == 0)
        options.sequences = (unsigned long)number;
    else if (strcmp(name, "--seconds") == 0)
        options.seconds = (unsigned)number;
    else if (strcmp(name, "--seed") == 0)
        options.seed = number;
    else
        return false;
    return true;
}

static bool parse_arguments(int argc, char **argv)
{
    if (argc < 3 || argc % 2 == 0 ||
        inet_pton(AF_INET, argv[1], &options.server.sin_addr) != 1 ||
        ntohl(options.server.sin_addr.s_addr) >> 24 != 127)
        return false;
    options.server.sin_family = AF_INET;
    options.server.sin_port = htons((uint16_t)atoi(argv[2]));
    for (int i = 3; i < argc; i += 2) {
        if (!parse_option(argv[i], argv[i + 1]))
            return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    options.seed = (uint64_t)time(NULL);
    if (!parse_arguments(argc, argv))
        fail("usage: wire_differential HOST PORT [--sequences N] [--seconds S] [--seed N] "
             "[--protocol text|binary|both]");
    random_state = options.seed;
    printf("seed %llu\n", (unsigned long long)options.seed);
    fflush(stdout);
    run();
    printf(
        "%lu sequences on %lu connections: verified %lu clean, %lu unconfirmed, %lu unproven; "
        "%lu fences refused, %lu busy, %lu dirty\n",
        counts.sequences, counts.connections, counts.verified[WIRE_CLEAN],
        counts.verified[WIRE_UNCONFIRMED], counts.verified[WIRE_UNPROVEN],
        counts.fences_refused, counts.busy, counts.dirty);
    return 0;
}
