/*
 * Reads from the header of a file of counters which values it has, and where they are.
 */
#include "cli/layout.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/reasons.h"

/* The limit for the size of a header, and for that of a slot. No library writes larger ones. */
#define MOST_BYTES 65536

const struct stat_row stat_rows[STATS] = {
#define STAT(kind, name, text)                                                                 \
    {#name, text, sizeof(#kind) == sizeof("gauge"), sizeof(text) == sizeof("")},
#include "stats/stats.def"
#undef STAT
};

/* Files of release 0.1.0 have layout 1. There the header has no names, but a digest of their
 * list. The values are listed here with the names of today: rename them here too. */
#define LAYOUT_0_1_0      1
#define DIGEST_0_1_0      UINT64_C(0x8b34162ae12dda2b)
#define HEADER_SIZE_0_1_0 88
#define VALUES_AT_0_1_0   136

static const char names_0_1_0[] =
    "gauge in_use\0gauge idle\0counter connects\0counter reused\0counter opened\0"
    "counter kept\0counter fences\0counter drained\0counter swapped\0"
    "counter swap_failed\0counter connects_timed\0counter connect_us\0reason none\0"
    "reason UNUSED\0reason REQUEST_PARTIAL\0reason REPLY_OWED\0"
    "reason REPLY_PARTIAL\0reason UNCONFIRMED\0reason META\0reason TLS\0"
    "reason QUIT\0reason TAKEOVER\0reason UNKNOWN_COMMAND\0reason BAD_REQUEST\0"
    "reason TOO_DEEP\0reason ERROR_REPLY\0reason UNEXPECTED_REPLY\0"
    "reason UNSOLICITED\0reason AUTH\0reason MAYBE_AUTH\0reason NOT_ESTABLISHED\0"
    "reason UNSEEN_BYTES\0reason NO_PROOF\0reason OTHER_SOCKET\0reason ODD_FLAGS\0"
    "reason IN_FLIGHT\0reason CONCURRENT\0reason DUPLICATED\0reason PASSED\0"
    "reason STDIO\0reason FORKED\0reason SHUT_DOWN\0reason RECONNECTED\0"
    "reason BOUND\0reason OPTION\0reason OPTION_FAILED\0reason UNTRACKED_IO\0"
    "reason RAW_SYSCALL\0reason EPOLL_SETS\0reason EPOLL_MODE\0"
    "reason EPOLL_UNKNOWN\0reason CLOSED_IN_BULK\0reason IDENTITY\0reason NAMESPACE\0"
    "reason IO_URING\0reason REENTERED\0reason POOL_UNUSABLE\0reason NO_FENCE\0"
    "reason DRAIN_TIMEOUT\0reason DRAIN_LIMIT\0reason TOO_OLD\0reason IDLE_TIMEOUT\0"
    "reason ENDPOINT_FULL\0reason POOL_FULL\0reason FD_PRESSURE\0reason NO_ROOM\0";

/* Names of values that the command calculates. Such a value in a file is not shown. */
static const char *const taken_names[] = {
    "connect_duration_seconds",
    "connect_duration_seconds_bucket",
    "connect_duration_seconds_count",
    "connect_duration_seconds_sum",
    "connect_seconds",
    "connect_seconds_avoided",
    "discarded",
    "endpoint",
    "family_queued",
    "hit_rate",
    "idle_age_seconds",
    "idle_age_seconds_bucket",
    "idle_age_seconds_count",
    "idle_age_seconds_sum",
    "idle_limit_seconds",
    "process_info",
    "refused",
    "time_wait_avoided",
    "usual_connect_seconds",
};

static const struct {
    const char *prefix;
    enum value_kind kind;
} kinds[] = {{"gauge ", VALUE_GAUGE}, {"counter ", VALUE_COUNTER}, {"reason ", VALUE_REASON}};

/* Fills KIND from the first word of TEXT. Returns the text behind it; NULL if it is no kind. */
static const char *parse_kind(const char *text, enum value_kind *kind)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t n = strlen(kinds[i].prefix);

        if (strncmp(text, kinds[i].prefix, n) != 0)
            continue;
        *kind = kinds[i].kind;
        return text + n;
    }
    return NULL;
}

static bool is_good_name(const char *name)
{
    size_t n = 0;

    while (isalnum((unsigned char)name[n]) || name[n] == '_')
        n++;
    return name[n] == '\0' && n > 0 && n < VALUE_NAME_SIZE;
}

static int find_reason(const char *name)
{
    for (int i = 0; i < REASON_COUNT; i++) {
        if (strcmp(name, reason_name((enum reason)i)) == 0)
            return i;
    }
    return VALUE_UNKNOWN;
}

/* Also true for a gauge whose name ends in "_total": for Prometheus, metrics.c appends "_total"
 * to the names of counters, and a counter could get the same name. */
static bool is_taken(const char *name, enum value_kind kind)
{
    size_t n = strlen(name);

    for (size_t i = 0; i < sizeof(taken_names) / sizeof(taken_names[0]); i++) {
        if (strcmp(name, taken_names[i]) == 0)
            return true;
    }
    return kind == VALUE_GAUGE && n >= strlen("_total") &&
           strcmp(name + n - strlen("_total"), "_total") == 0;
}

static int find_stat(const char *name, enum value_kind kind)
{
    for (int i = 0; i < STATS; i++) {
        if (strcmp(name, stat_rows[i].name) == 0)
            return i;
    }
    return is_taken(name, kind) ? VALUE_REPLACED : VALUE_UNKNOWN;
}

static bool has_value(const struct layout *layout, const char *name, bool is_reason)
{
    for (size_t i = 0; i < layout->value_count; i++) {
        if ((layout->values[i].kind == VALUE_REASON) == is_reason &&
            strcmp(layout->values[i].name, name) == 0)
            return true;
    }
    return false;
}

/* TEXT is "KIND NAME". */
static bool add_value(struct layout *layout, const char *text)
{
    enum value_kind kind;
    const char *name = parse_kind(text, &kind);
    bool is_reason = name && kind == VALUE_REASON;
    struct value *value;

    if (!name || !is_good_name(name) || layout->value_count == MOST_VALUES ||
        (layout->reason_count > 0 && !is_reason) || has_value(layout, name, is_reason))
        return false;
    value = &layout->values[layout->value_count++];
    layout->reason_count += is_reason;
    value->kind = kind;
    value->index = is_reason ? find_reason(name) : find_stat(name, kind);
    snprintf(value->name, sizeof(value->name), "%s", name);
    return true;
}

static bool add_values(struct layout *layout, const char *names, size_t n)
{
    if (n == 0 || names[n - 1] != '\0')
        return false;
    for (const char *at = names; at < names + n; at += strlen(at) + 1) {
        if (!add_value(layout, at))
            return false;
    }
    return true;
}

static bool read_0_1_0(struct layout *layout, const struct stats_header *header)
{
    uint64_t digest;

    memcpy(&digest, (const char *)header + offsetof(struct stats_header, names_size),
           sizeof(digest));
    layout->values_at = VALUES_AT_0_1_0;
    return digest == DIGEST_0_1_0 && layout->slots_at == HEADER_SIZE_0_1_0 &&
           add_values(layout, names_0_1_0, sizeof(names_0_1_0) - 1);
}

static bool read_names(struct layout *layout, const struct stats_header *header)
{
    uint64_t names_at = header->names_at, names_size = header->names_size;

    layout->values_at = header->values_at;
    layout->tells_share = names_at >= offsetof(struct stats_header, names);
    return names_at + names_size <= layout->slots_at &&
           layout->values_at >= offsetof(struct stats_slot, endpoint) &&
           add_values(layout, (const char *)header + names_at, names_size);
}

bool layout_read(struct layout *layout, const void *bytes, size_t n)
{
    const struct stats_header *header = bytes;
    bool known = false;

    memset(layout, 0, sizeof(*layout));
    if (n < LAYOUT_LEAST || header->header_size > n || header->header_size > MOST_BYTES ||
        header->slot_size > MOST_BYTES)
        return false;
    layout->slots_at = header->header_size;
    layout->slot_size = header->slot_size;
    if (header->layout == LAYOUT_0_1_0)
        known = read_0_1_0(layout, header);
    else if (header->layout == STATS_LAYOUT)
        known = read_names(layout, header);
    return known && layout->values_at < MOST_BYTES &&
           layout->values_at +
                   (layout->value_count + layout->reason_count) * sizeof(uint64_t) <=
               layout->slot_size;
}

uint64_t layout_value(const struct layout *layout, const void *slot, size_t i)
{
    uint64_t value;

    memcpy(&value, (const char *)slot + layout->values_at + i * sizeof(value), sizeof(value));
    return value;
}

uint64_t layout_discarded(const struct layout *layout, const void *slot, size_t i)
{
    return layout_value(layout, slot, i + layout->reason_count);
}
