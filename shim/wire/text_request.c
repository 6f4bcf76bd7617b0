/*
 * The parser of text requests: a strict grammar. On all server versions tried, a request that
 * follows it gets exactly one well-formed reply, or is known to be quiet. On other requests the
 * servers differ: some even execute the data block of a refused request as commands.
 */
#include "wire/internal.h"

/* After 2048 bytes without a line feed servers close the connection, and replies are lost. Only
 * a line that begins with `get ` or `gets ` may be longer. */
#define LINE_LIMIT 2040

/* No command has a longer name. */
#define COMMAND_LIMIT 15

enum state { IN_LINE, AT_LF, IN_DATA, AT_DATA_CR, AT_DATA_LF };

/* Forms of arguments. The table of commands spells the arguments with these letters. */
enum arg {
    ARG_NONE = '\0',
    ARG_KEY = 'k',
    ARG_U32 = 'u',
    ARG_U64 = 'U',
    ARG_EXPTIME = 'e',
    ARG_DELAY = 'd',  /* an exptime that is not in the past */
    ARG_LENGTH = 'l', /* of the data block */
    ARG_ZERO = '0',   /* the historical delay of `delete` */
    ARG_TOPIC = 't',  /* of `stats`: only topics that change nothing */
    ARG_FLAG = 'm',   /* of a meta command */
    ARG_REPEAT = '*', /* the argument before, any number of times */
};

enum trait {
    NOREPLY = 1,    /* may have `noreply` as its last word */
    DATA = 2,       /* a data block follows the line */
    ANY_LENGTH = 4, /* its line may be longer than LINE_LIMIT */
    LOGIN = 8,      /* may be an ASCII login */
    META = 16,
};

struct command {
    struct word name;
    const char *args;
    uint8_t required; /* how many of the arguments */
    uint8_t class;
    uint8_t traits;
    enum reason refused; /* the reason to give up the connection at this command */
};

/* The positions of two arguments of `set`. */
#define SET_FLAGS  1
#define SET_EXPIRY 2

/* Searched in this order, so common commands come first. */
static const struct command commands[] = {
    {WORD("get"), "k*", 1, CLASS_GET, ANY_LENGTH, 0},
    {WORD("set"), "kuel", 4, CLASS_STORE, NOREPLY | DATA | LOGIN, 0},
    {WORD("gets"), "k*", 1, CLASS_GET, ANY_LENGTH, 0},
    {WORD("delete"), "k0", 1, CLASS_DELETE, NOREPLY, 0},
    {WORD("incr"), "kU", 2, CLASS_ARITH, NOREPLY, 0},
    {WORD("decr"), "kU", 2, CLASS_ARITH, NOREPLY, 0},
    {WORD("add"), "kuel", 4, CLASS_STORE, NOREPLY | DATA, 0},
    {WORD("cas"), "kuelU", 5, CLASS_STORE, NOREPLY | DATA, 0},
    {WORD("touch"), "ke", 2, CLASS_TOUCH, NOREPLY, 0},
    {WORD("replace"), "kuel", 4, CLASS_STORE, NOREPLY | DATA, 0},
    {WORD("append"), "kuel", 4, CLASS_STORE, NOREPLY | DATA, 0},
    {WORD("prepend"), "kuel", 4, CLASS_STORE, NOREPLY | DATA, 0},
    {WORD("gat"), "ek*", 2, CLASS_GET, 0, 0},
    {WORD("gats"), "ek*", 2, CLASS_GET, 0, 0},
    {WORD("mn"), "", 0, CLASS_MN, 0, 0},
    {WORD("version"), "", 0, CLASS_VERSION, 0, 0},
    {WORD("stats"), "t", 0, CLASS_STATS, 0, 0},
    {WORD("flush_all"), "d", 0, CLASS_FLUSH, NOREPLY, 0},
    {WORD("quit"), "", 0, CLASS_QUIT, 0, 0},
    {WORD("mg"), "km*", 1, CLASS_MG, META, 0},
    {WORD("ms"), "klm*", 2, CLASS_MS, META | DATA, 0},
    {WORD("md"), "km*", 1, CLASS_MD, META, 0},
    {WORD("ma"), "km*", 1, CLASS_MA, META, 0},
    {WORD("me"), "", 0, 0, 0, REASON_META},
    {WORD("watch"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("lru_crawler"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("lru"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("slabs"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("cache_memlimit"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("verbosity"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("shutdown"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("extstore"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("refresh_certs"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("debugtime"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("debugitem"), "", 0, 0, 0, REASON_TAKEOVER},
    {WORD("misbehave"), "", 0, 0, 0, REASON_TAKEOVER},
};

static const struct command *command_of(const struct wire_text_request *request)
{
    return &commands[request->command - 1];
}

static void resolve_command(struct wire *wire, struct word word)
{
    struct wire_text_request *request = &wire->request.text;

    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (word_is(word, commands[i].name)) {
            request->command = (uint8_t)(i + 1);
            if (commands[i].refused)
                wire_poison(wire, commands[i].refused);
            return;
        }
    }
    wire_poison(wire, REASON_UNKNOWN_COMMAND);
}

static enum arg arg_at(const char *args, unsigned index)
{
    enum arg last = ARG_NONE;

    for (; *args != '\0'; args++) {
        if (*args == ARG_REPEAT)
            return last;
        last = (enum arg) * args;
        if (index-- == 0)
            return last;
    }
    return ARG_NONE;
}

static bool is_topic(struct word word)
{
    static const struct word topics[] = {WORD("items"), WORD("slabs"), WORD("settings"),
                                         WORD("conns"), WORD("sizes")};

    for (size_t i = 0; i < sizeof topics / sizeof topics[0]; i++) {
        if (word_is(word, topics[i]))
            return true;
    }
    return false;
}

static bool arg_fits(enum arg arg, struct wire_text_request *request, struct word word)
{
    uint64_t number;

    switch (arg) {
    case ARG_KEY:
        return true;
    case ARG_U32:
        return word_number(word, UINT32_MAX, &number);
    case ARG_U64:
        return word_number(word, UINT64_MAX, &number);
    case ARG_EXPTIME:
        return word_is_int32(word);
    case ARG_DELAY:
        return word_number(word, INT32_MAX, &number);
    case ARG_LENGTH:
        if (!word_number(word, WIRE_VALUE_MAX, &number))
            return false;
        request->data = (uint32_t)number;
        return true;
    case ARG_ZERO:
        return word_is(word, (struct word)WORD("0"));
    case ARG_TOPIC:
        return is_topic(word);
    case ARG_FLAG:
        return meta_add_flag(request, word);
    default:
        return false;
    }
}

/* The reason for WORD, which does not fit as argument INDEX. AUTH for an underscore as flags or
 * expiry of a `set`: clients put it there to log in, as memcached's
 * try_read_command_asciiauth() reads only the length. A server without -Y refuses it. */
static enum reason misfit(const struct wire *wire, unsigned index, struct word word)
{
    const struct wire_text_request *request = &wire->request.text;
    bool is_login = command_of(request)->traits & LOGIN && !wire->login.judged &&
                    (index == SET_FLAGS || index == SET_EXPIRY) &&
                    word_is(word, (struct word)WORD("_"));

    return is_login ? REASON_AUTH : REASON_BAD_REQUEST;
}

static void parse_arg(struct wire *wire, struct word word)
{
    struct wire_text_request *request = &wire->request.text;
    const struct command *command = command_of(request);
    unsigned index = request->args;

    if (request->args < UINT8_MAX)
        request->args++;
    if (request->quiet && command->traits & NOREPLY)
        wire_poison(wire, REASON_BAD_REQUEST);
    else if (arg_fits(arg_at(command->args, index), request, word))
        return;
    else if (command->traits & NOREPLY && index >= command->required &&
             word_is(word, (struct word)WORD("noreply")))
        request->quiet = true;
    else
        wire_poison(wire, misfit(wire, index, word));
}

/* Whether only MN proves that no reply is outstanding. memcached up to 1.5.22 may execute the
 * data block of a refused noreply request as commands, each with a reply. It also has other
 * meta commands. A server that answers `mn` is newer. */
static bool needs_mn(const struct wire_text_request *request)
{
    uint8_t traits = command_of(request)->traits;

    return traits & META || (request->quiet && traits & DATA);
}

/* Adds the request to the queue, now that it was sent in full: a reply that comes earlier is
 * not its reply. */
static void end_request(struct wire *wire)
{
    struct wire_text_request *request = &wire->request.text;
    const struct command *command = command_of(request);

    if (command->class == CLASS_QUIT) {
        wire_poison(wire, REASON_QUIT);
        return;
    }
    if (request->quiet)
        wire->unfenced = true;
    if (!wire->known16 && needs_mn(request))
        wire->need_mn |= WIRE_NEED_QUIET;
    queue_push(wire,
               request->quiet && command->traits & NOREPLY ? CLASS_NOREPLY : command->class,
               request->quiet);
    auth_asked(&wire->login, command->traits & LOGIN, request->spaced, request->quiet);
    memset(request, 0, sizeof *request);
}

/* A byte of a word in a request: no blank and no control character. */
static bool is_word_char(uint8_t byte)
{
    return byte > ' ' && byte != 0x7f;
}

/* LENGTH is that of the word so far: a word may be too long before its end has come. */
static void check_length(struct wire *wire, size_t length)
{
    if (wire->request.text.command == 0 && length > COMMAND_LIMIT)
        wire_poison(wire, REASON_UNKNOWN_COMMAND);
    else if (length > WIRE_KEY_MAX)
        wire_poison(wire, REASON_BAD_REQUEST);
}

static void add_word(struct wire *wire, const uint8_t *bytes, size_t n)
{
    struct wire_word *token = &wire->request.text.token;

    word_add(token, bytes, n);
    check_length(wire, token->length);
}

/* Keeps WORD, at which the connection was given up, for wire_place(). */
static void keep_word(struct wire_word *token, struct word word)
{
    if (word.text == token->text)
        token->length = (uint16_t)word.length;
    else
        word_add(token, (const uint8_t *)word.text, word.length);
}

static void end_word(struct wire *wire, const uint8_t *bytes, size_t n)
{
    struct wire_text_request *request = &wire->request.text;
    struct word word = word_end(&request->token, bytes, n);

    check_length(wire, word.length);
    if (word.length == 0)
        return;
    if (!wire->poison && request->command == 0)
        resolve_command(wire, word);
    else if (!wire->poison)
        parse_arg(wire, word);
    if (wire->poison)
        keep_word(&request->token, word);
}

static void count_line(struct wire *wire, size_t n)
{
    struct wire_text_request *request = &wire->request.text;
    size_t room = (size_t)(LINE_LIMIT + 1 - request->line);

    request->line = (uint16_t)(request->line + (n < room ? n : room));
    if (request->line > LINE_LIMIT &&
        !(request->command && command_of(request)->traits & ANY_LENGTH))
        wire_poison(wire, REASON_BAD_REQUEST);
}

/* Reads what follows a word: spaces, or the CR. */
static const uint8_t *read_separator(struct wire *wire, const uint8_t *at, const uint8_t *end)
{
    if (*at == '\r') {
        wire->request.text.state = AT_LF;
        return at + 1;
    }
    while (at < end && *at == ' ')
        at++;
    return at;
}

/* Reads the line as far as it has come, its CR included. The line must begin with a word. */
static const uint8_t *read_line(struct wire *wire, const uint8_t *start, const uint8_t *end)
{
    struct wire_text_request *request = &wire->request.text;
    const uint8_t *at = start;

    if (request->line == 0 && !is_word_char(*at))
        wire_poison(wire, REASON_BAD_REQUEST);
    while (at < end && request->state == IN_LINE && !wire->poison) {
        const uint8_t *word = at;

        while (at < end && is_word_char(*at))
            at++;
        if (at < end && (*at == ' ' || *at == '\r')) {
            end_word(wire, word, (size_t)(at - word));
            at = read_separator(wire, at, end);
        } else {
            add_word(wire, word, (size_t)(at - word));
            if (at < end)
                wire_poison(wire, REASON_BAD_REQUEST);
        }
    }
    count_line(wire, (size_t)(at - start) - (request->state == AT_LF));
    return at;
}

static void end_line(struct wire *wire)
{
    struct wire_text_request *request = &wire->request.text;
    const struct command *command = command_of(request);

    if (request->args < command->required)
        wire_poison(wire, REASON_BAD_REQUEST);
    else if (command->traits & DATA)
        request->state = request->data > 0 ? IN_DATA : AT_DATA_CR;
    else
        end_request(wire);
}

/* Whether the value must be read: that of a possible login is searched for a space. */
static bool must_see_data(const struct wire *wire)
{
    const struct wire_text_request *request = &wire->request.text;

    return command_of(request)->traits & LOGIN && !wire->login.judged && !request->spaced;
}

/* Counts up to N bytes as data. Returns how many. */
static size_t count_data(struct wire_text_request *request, size_t n)
{
    if (n > request->data)
        n = request->data;
    request->data -= (uint32_t)n;
    if (request->data == 0)
        request->state = AT_DATA_CR;
    return n;
}

static const uint8_t *read_data(struct wire *wire, const uint8_t *at, const uint8_t *end)
{
    struct wire_text_request *request = &wire->request.text;
    bool must_see = must_see_data(wire);
    size_t n = count_data(request, (size_t)(end - at));

    if (must_see)
        request->spaced = memchr(at, ' ', n) != NULL;
    return at + n;
}

size_t text_skip(struct wire *wire, size_t n)
{
    struct wire_text_request *request = &wire->request.text;

    return request->state == IN_DATA && !must_see_data(wire) ? count_data(request, n) : 0;
}

bool text_quit(const uint8_t *bytes, size_t n)
{
    static const char quit[] = "quit\r\n";

    return n == sizeof quit - 1 && memcmp(bytes, quit, n) == 0;
}

void text_sent_whole(struct wire *wire, struct wire_run run)
{
    if (run.class >= CLASS_MG && !wire->known16)
        wire->need_mn |= WIRE_NEED_QUIET;
    queue_push_run(wire, run);
    auth_asked(&wire->login, run.class == CLASS_STORE, false, false);
}

void text_sent(struct wire *wire, const uint8_t *bytes, size_t n)
{
    struct wire_text_request *request = &wire->request.text;
    const uint8_t *end = bytes + n;

    while (bytes < end && !wire->poison) {
        switch ((enum state)request->state) {
        case IN_LINE:
            if (request->line == 0)
                bytes = text_sent_quickly(wire, bytes, end);
            if (bytes == end || wire->poison)
                break;
            bytes = read_line(wire, bytes, end);
            if (bytes == end || wire->poison)
                break;
            /* fall through */
        case AT_LF:
            if (*bytes++ == '\n')
                end_line(wire);
            else
                wire_poison(wire, REASON_BAD_REQUEST);
            break;
        case IN_DATA:
            bytes = read_data(wire, bytes, end);
            if (bytes == end)
                break;
            /* fall through */
        case AT_DATA_CR:
            request->state = AT_DATA_LF;
            if (*bytes++ != '\r')
                wire_poison(wire, REASON_BAD_REQUEST);
            break;
        case AT_DATA_LF:
            if (*bytes++ == '\n')
                end_request(wire);
            else
                wire_poison(wire, REASON_BAD_REQUEST);
            break;
        }
    }
}

/* Whether an unknown first word may be shown. It may be a part of a value; if it has only
 * letters and underscores, it is probably meant as a command. */
static bool is_name(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((text[i] < 'a' || text[i] > 'z') && text[i] != '_')
            return false;
    }
    return true;
}

/* How many bytes of the word are kept. */
static size_t kept_of(const struct wire_word *token)
{
    return token->length < sizeof token->text ? token->length : sizeof token->text;
}

bool text_request_place(const struct wire *wire, struct wire_place *place)
{
    const struct wire_text_request *request = &wire->request.text;
    const struct command *command = request->command ? command_of(request) : NULL;
    /* The word at which the connection was given up may be counted in `args` already, or not.
     * So both positions are tested for a key. */
    unsigned int args = request->args - (wire->poison && request->args > 0);
    bool is_key = command && (arg_at(command->args, args) == ARG_KEY ||
                              arg_at(command->args, request->args) == ARG_KEY);

    place->line = command ? command->name.text : NULL;
    place->n = request->data;
    if (request->state != IN_LINE && request->state != AT_LF)
        return true;
    place->word = command && !command->refused ? args + 2 : 1;
    place->n = request->token.length;
    if (command ? !is_key : is_name(request->token.text, kept_of(&request->token))) {
        place->text = request->token.text;
        place->kept = kept_of(&request->token);
    }
    return true;
}
