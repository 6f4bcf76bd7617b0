/*
 * The texts of reasons, of the place in the dialogue, and of the summary.
 */
#include "pool/report.h"

#include "stats/log.h"
#include "conn/endpoint.h"
#include "pool/pool.h"
#include "base/fmt.h"

#define PLACE_SIZE 160

static size_t put_word(const struct wire_place *place, char *text, size_t room)
{
    char word[80];
    size_t n = 0;

    if (!place->text)
        return fmt_print(text, room, "%u bytes", (unsigned int)place->n);
    for (; n < place->kept && n < sizeof(word) - 1; n++) {
        char c = place->text[n];

        word[n] = (char)(c < ' ' || c > '~' ? '?' : c);
    }
    word[n] = '\0';
    return fmt_print(text, room, "'%s'", word);
}

static size_t put_packet(const struct wire_place *place, char *text, size_t room)
{
    size_t n = fmt_print(text, room, "; at the binary %s %d",
                         place->in_reply ? "reply" : "request", place->opcode);

    if (place->status >= 0)
        n += fmt_print(text + n, room - n, ", status %d", place->status);
    return n;
}

static size_t put_line(const struct wire_place *place, char *text, size_t room)
{
    size_t n = fmt_print(text, room, "; at the %s%s%s", place->in_reply ? "reply" : "request",
                         place->line ? " " : "", place->line ? place->line : "");

    if (place->word == 0)
        return n + fmt_print(text + n, room - n, ", %u bytes before the end of its data",
                             (unsigned int)place->n);
    n += fmt_print(text + n, room - n, ", word %u: ", place->word);
    return n + put_word(place, text + n, room - n);
}

/* TEXT is empty if the tracker knows no place. */
static void put_place(const struct conn *conn, enum reason reason, char *text)
{
    struct wire_place place;

    text[0] = '\0';
    if (!wire_place(&conn->wire, reason, &place))
        return;
    if (place.opcode >= 0)
        put_packet(&place, text, PLACE_SIZE);
    else if (wire_protocol(&conn->wire) == WIRE_TEXT)
        put_line(&place, text, PLACE_SIZE);
}

static void report(const struct conn *conn, enum reason reason, const char *what,
                   unsigned int kind)
{
    char place[PLACE_SIZE], others[48];

    if (!log_wants(LOG_INFO) || !log_again(kind, others, sizeof(others)))
        return;
    put_place(conn, reason, place);
    log_line(LOG_INFO, "%s: %s: %s (%s)%s%s", conn->endpoint->text, what, reason_name(reason),
             reason_text(reason), place, others);
}

void report_refused(const struct conn *conn, enum reason reason)
{
    report(conn, reason, "not kept", (unsigned int)reason);
}

void report_discarded(const struct conn *conn, enum reason reason)
{
    report(conn, reason, "discarded", REASON_COUNT + (unsigned int)reason);
}

static void sum_up_reasons(const struct endpoint *endpoint, const char *what,
                           _Atomic uint64_t *counters)
{
    for (int i = 0; i < REASON_COUNT; i++) {
        uint64_t n = stats_read(&counters[i]);

        if (n > 0)
            log_line(LOG_INFO, "%s: %s %lu: %s (%s)", endpoint->text, what, (unsigned long)n,
                     reason_name((enum reason)i), reason_text((enum reason)i));
    }
}

static void sum_up(struct endpoint *endpoint)
{
    struct stats *stats = endpoint->stats;

    log_line(LOG_INFO, "%s: connects %lu, %s %lu, opened %lu, kept %lu", endpoint->text,
             (unsigned long)stats_read(&stats->connects),
             pool_is_dry_run() ? "would be reused" : "reused",
             (unsigned long)stats_read(&stats->reused),
             (unsigned long)stats_read(&stats->opened),
             (unsigned long)stats_read(&stats->kept));
    log_line(LOG_INFO, "%s: fences %lu, drained %lu, swapped %lu, swaps failed %lu",
             endpoint->text, (unsigned long)stats_read(&stats->fences),
             (unsigned long)stats_read(&stats->drained),
             (unsigned long)stats_read(&stats->swapped),
             (unsigned long)stats_read(&stats->swap_failed));
    sum_up_reasons(endpoint, "not kept", stats->refused);
    sum_up_reasons(endpoint, "discarded", stats->discarded);
}

void report_all(void)
{
    if (log_wants(LOG_INFO))
        endpoint_for_each(sum_up);
}
