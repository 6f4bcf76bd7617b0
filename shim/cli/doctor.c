/*
 * mcpool doctor: says in sentences what the counters mean, and what to do.
 *
 * The processes of a service are looked at together, for each server. Each function tell_X()
 * makes the sentences about one subject from a few counters.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/command.h"
#include "cli/explain.h"
#include "cli/families.h"
#include "cli/missing.h"
#include "cli/processes.h"
#include "cli/text.h"

/* What the library costs, and a real connect, in microseconds of the program's own processor
 * time, as bench/cost.py measures it. A send is one beyond the first of each connection; it
 * costs nothing that could be measured, and this is the upper quartile. */
#define COST_REUSED  2.0
#define COST_OPENED  3.0
#define COST_SEND    0.2
#define COST_CONNECT 27.0

/* Connections that memcached allows without -c; one is room for another client. */
#define USUAL_LIMIT 1024

/* Below this share of the connections, reasons are named, and no advice is given. */
#define RARE 0.01

/* A service that saves less than this share of its time, over at least so many seconds, gains
 * nothing: one millisecond in a minute. */
#define LITTLE         (0.001 / 60)
#define LITTLE_SECONDS 60

/* What one process of the service says of the server. */
struct member {
    const struct process *process;
    const struct server *server;
};

/* What all processes of a service say of one server. */
struct finding {
    const char *server;
    const struct process *first;     /* of the service */
    const struct families *families; /* of all services */
    struct member *members;
    size_t count;
    struct numbers total;
    bool dry;
    bool off;       /* switched off, see mcpool-switch(1) */
    double seconds; /* since the first connection of each process, together */
};

struct sentence {
    const char *about; /* a word for programs */
    char *text;
};

struct advice {
    struct sentence *list;
    size_t count;
};

static void print_help(void)
{
    puts("usage: mcpool doctor [--json] [PID...]\n\n"
         "Says in sentences what the counters mean: how many connections a service needs and\n"
         "holds, what that means for -c of the server, what was saved and what the library\n"
         "costs, why connections are not kept, and what to change. With PID, looks only at\n"
         "these processes.\n\n"
         "  --json  print one JSON object, for programs\n\n"
         "See mcpool-doctor(1).");
}

/* Ends the program when MEMORY is NULL. */
static void *must(void *memory)
{
    if (memory)
        return memory;
    perror("mcpool");
    exit(EXIT_FAILURE);
}

__attribute__((format(printf, 3, 4))) static void say(struct advice *advice, const char *about,
                                                      const char *format, ...)
{
    struct sentence *sentence;
    va_list arguments;
    char *text = NULL;

    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        text = NULL;
    va_end(arguments);
    advice->list = must(reallocarray(advice->list, advice->count + 1, sizeof(*advice->list)));
    sentence = &advice->list[advice->count++];
    *sentence = (struct sentence){about, must(text)};
}

static void free_advice(struct advice *advice)
{
    for (size_t i = 0; i < advice->count; i++)
        free(advice->list[i].text);
    free(advice->list);
}

/* "1 connection", "6 connections". Valid until the fourth call from then on. */
static const char *count_of(uint64_t n, const char *what)
{
    static char texts[4][64];
    static size_t next;
    char *text = texts[next++ % 4];

    snprintf(text, sizeof(texts[0]), "%" PRIu64 " %s%s", n, what,
             n == 1                          ? ""
             : what[strlen(what) - 1] == 's' ? "es"
                                             : "s");
    return text;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole > 0 ? 100.0 * (double)part / (double)whole : 0;
}

/* The value STAT of the process with the most, and in *PID that process. */
static uint64_t find_most(const struct finding *finding, enum stat_index stat, int *pid)
{
    uint64_t most = 0;

    for (size_t i = 0; i < finding->count; i++) {
        const struct member *member = &finding->members[i];

        if (i > 0 && member->server->numbers.stats[stat] <= most)
            continue;
        most = member->server->numbers.stats[stat];
        *pid = member->process->pid;
    }
    return most;
}

static bool all_count(const struct finding *finding, enum stat_index stat)
{
    for (size_t i = 0; i < finding->count; i++) {
        if (!finding->members[i].process->has[stat])
            return false;
    }
    return true;
}

/* How many connections were closed by the program, as far as they were followed. */
static uint64_t closed(const struct finding *finding)
{
    return finding->total.stats[STAT_kept] + finding->total.all_refused;
}

/* What the library takes, in seconds. In a dry run each connect is counted as opened, also
 * those that would have been reused. */
static double cost(const struct finding *finding)
{
    const uint64_t *stats = finding->total.stats;
    uint64_t reused = stats[STAT_reused];
    uint64_t would = finding->dry ? reused : 0;
    uint64_t opened = stats[STAT_opened] > would ? stats[STAT_opened] - would : 0;
    uint64_t first = reused + opened;
    uint64_t more = stats[STAT_sends] > first ? stats[STAT_sends] - first : 0;

    return (COST_REUSED * (double)reused + COST_OPENED * (double)opened +
            COST_SEND * (double)more) /
           1e6;
}

static bool saves_little(const struct finding *finding)
{
    return finding->seconds >= LITTLE_SECONDS &&
           finding->total.seconds_avoided < LITTLE * finding->seconds;
}

static void tell_saved(struct advice *advice, const struct finding *finding)
{
    const uint64_t *stats = finding->total.stats;

    if (stats[STAT_reused] == 0)
        return;
    say(advice, "saved",
        "Of %s, %" PRIu64 " (%.1f %%) %s a pooled connection. That %s %s of waiting and %s in "
        "TIME_WAIT.",
        count_of(stats[STAT_connects], "connect"), stats[STAT_reused],
        numbers_hit_rate(&finding->total), finding->dry ? "would have got" : "got",
        finding->dry ? "would have saved" : "saved",
        text_duration(finding->total.seconds_avoided),
        count_of(finding->total.time_wait_avoided, "port"));
}

/* Says so where pooling gains nothing. */
static void tell_gain(struct advice *advice, const struct finding *finding)
{
    const uint64_t *stats = finding->total.stats;

    if (closed(finding) == 0)
        say(advice, "gain",
            "Nothing to gain here: it keeps its connections open. It made %s and has closed "
            "none. Do not preload the library into it.",
            count_of(stats[STAT_connects], "connection"));
    else if (stats[STAT_kept] == 0)
        say(advice, "gain",
            "Nothing to gain here until that changes: none of the %s that it closed could be "
            "kept. The reasons are below.",
            count_of(closed(finding), "connection"));
    else if (stats[STAT_reused] == 0)
        say(advice, "gain",
            "Nothing is gained so far: the library kept %s, and it has reused none.",
            count_of(stats[STAT_kept], "connection"));
    else if (cost(finding) >= finding->total.seconds_avoided)
        say(advice, "gain",
            "Nothing to gain here: most of its requests go over connections that stay open. "
            "The "
            "library takes more time than it saves. Do not preload it here.");
    else if (saves_little(finding))
        say(advice, "gain",
            "Nothing to gain here: it seldom connects. That is all that was saved in %s.",
            text_duration(finding->seconds));
    else if (finding->dry)
        say(advice, "gain", "Pooling is worth it here. To begin, end the dry run.");
}

static void tell_off(struct advice *advice, const struct finding *finding)
{
    if (finding->off)
        say(advice, "off",
            "It is switched off: its connections are not pooled or counted now. What follows "
            "is "
            "of the time before.");
}

static void tell_cost(struct advice *advice, const struct finding *finding)
{
    const uint64_t *stats = finding->total.stats;
    char spared[32];

    snprintf(spared, sizeof(spared), "%s",
             text_duration(COST_CONNECT * (double)stats[STAT_reused] / 1e6));
    if (stats[STAT_connects] == 0)
        return;
    say(advice, "cost",
        "The library %s about %s of the program's processor time%s%s%s. This is an estimate: "
        "%g "
        "us for each reused connection, %g us for each opened one, %g us for each further "
        "request.",
        finding->dry ? "would take" : "took", text_duration(cost(finding)),
        stats[STAT_reused] == 0 ? ""
        : finding->dry          ? ", and would spare it about "
                                : ", and spared it about ",
        stats[STAT_reused] == 0 ? "" : spared, stats[STAT_reused] == 0 ? "" : " of connecting",
        COST_REUSED, COST_OPENED, COST_SEND);
}

static void tell_need(struct advice *advice, const struct finding *finding)
{
    uint64_t all = finding->total.stats[STAT_most_in_use], most;
    int pid = 0;

    if (!all_count(finding, STAT_most_in_use)) {
        say(advice, "need",
            "How many connections it needs at once is not known: a process has an older "
            "version "
            "of the library. Restart it.");
        return;
    }
    most = find_most(finding, STAT_most_in_use, &pid);
    if (finding->count == 1)
        say(advice, "need", "It had up to %s in use at once.", count_of(all, "connection"));
    else
        say(advice, "need",
            "Its %zu processes together had at most %s in use at once. The busiest, process "
            "%d, "
            "had %" PRIu64 ".",
            finding->count, count_of(all, "connection"), pid, most);
}

static void tell_holds(struct advice *advice, const struct finding *finding)
{
    const uint64_t *stats = finding->total.stats;

    if (finding->dry)
        say(advice, "holds", "Now it has %s in use, and %" PRIu64 " more would be idle.",
            count_of(stats[STAT_in_use], "connection"), stats[STAT_idle]);
    else
        say(advice, "holds", "Now it holds %s: %" PRIu64 " in use, %" PRIu64 " idle.",
            count_of(stats[STAT_in_use] + stats[STAT_idle], "connection"), stats[STAT_in_use],
            stats[STAT_idle]);
}

/* The idle connections, to all servers, of the families that have members here. */
static uint64_t queued(const struct finding *finding)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < finding->families->count; i++) {
        const struct family *family = &finding->families->list[i];
        size_t j = 0;

        while (j < finding->count &&
               !families_share(family->first, finding->members[j].process))
            j++;
        sum += j < finding->count ? family->queued : 0;
    }
    return sum;
}

static size_t count_share(const struct finding *finding, enum share share)
{
    size_t n = 0;

    for (size_t i = 0; i < finding->count; i++)
        n += finding->members[i].process->share == share;
    return n;
}

static void tell_family(struct advice *advice, const struct finding *finding)
{
    const uint64_t *stats = finding->total.stats;
    size_t n = count_share(finding, SHARE_SHARED);

    if (n == 0)
        return;
    say(advice, "family",
        "%s %s idle connections with others of one ancestor: %" PRIu64 " given, %" PRIu64
        " taken. Not given were %" PRIu64 " for lack of room, %" PRIu64
        " that no other process would have looked after, and %" PRIu64
        " that the kernel refused. Now they have %s in common, to all servers together.",
        count_of(n, "process"), n == 1 ? "shares" : "share", stats[STAT_given],
        stats[STAT_taken], stats[STAT_not_given_full], stats[STAT_not_given_alone],
        stats[STAT_not_given_refused], count_of(queued(finding), "idle connection"));
}

/* Why some processes share nothing. */
static void tell_unshared(struct advice *advice, const struct finding *finding)
{
    for (enum share share = 0; share < SHARES; share++) {
        size_t n = count_share(finding, share);

        if (n > 0 && share_is_notable(share))
            say(advice, "family", "%s %s no idle connections: %s (%s). %s",
                count_of(n, "process"), n == 1 ? "shares" : "share", share_name(share),
                share_text(share), share_explanations[share].helps);
    }
}

/* How many connections the server must allow: each process keeps as many as it had in use at
 * once. What processes that have ended gave to their family comes on top of what the others
 * have. */
static uint64_t plan(const struct finding *finding)
{
    uint64_t sum = 0, now = queued(finding);

    for (size_t i = 0; i < finding->count; i++) {
        const uint64_t *stats = finding->members[i].server->numbers.stats;
        uint64_t held = stats[STAT_in_use] + stats[STAT_idle];

        sum += held > stats[STAT_most_in_use] ? held : stats[STAT_most_in_use];
        now += held;
    }
    return now > sum ? now : sum;
}

static void tell_server(struct advice *advice, const struct finding *finding)
{
    uint64_t n = plan(finding);

    say(advice, "server",
        "Count %" PRIu64 " for it in -c of the server, on each host that runs it, and add what "
        "other clients need. %s",
        n,
        n < USUAL_LIMIT ? "The default of -c is 1024."
                        : "That is more than the default of -c, which is 1024: raise it.");
}

/* A number of connections that one process may have most of. */
struct part {
    uint64_t n;
    uint64_t most;
    int pid;
};

static struct part add_part(const struct finding *finding,
                            uint64_t (*number)(const struct numbers *numbers, int which),
                            int which)
{
    struct part part = {0};

    for (size_t i = 0; i < finding->count; i++) {
        uint64_t n = number(&finding->members[i].server->numbers, which);

        part.n += n;
        if (n <= part.most)
            continue;
        part.most = n;
        part.pid = finding->members[i].process->pid;
    }
    return part;
}

/* ", most in process 123"; empty if there is one process, or none has most. Valid until the
 * next call. */
static const char *where(const struct finding *finding, const struct part *part)
{
    static char text[48];

    text[0] = '\0';
    if (finding->count > 1 && part->most > part->n / 2)
        snprintf(text, sizeof(text), ", most in process %d", part->pid);
    return text;
}

/* Connections that were closed while replies were outstanding. */
static uint64_t unread(const struct numbers *numbers, int which)
{
    (void)which;
    return numbers->stats[STAT_given_up] + numbers->refused[REASON_REPLY_OWED] +
           numbers->refused[REASON_REPLY_PARTIAL];
}

static void tell_unread(struct advice *advice, const struct finding *finding)
{
    struct part part = add_part(finding, unread, 0);

    if (part.n == 0)
        return;
    say(advice, "unread",
        "The client left replies unread %s (%.1f %% of its closes%s). %s Look for timeouts "
        "that "
        "are shorter than the server needs, and for threads or greenlets that are killed while "
        "they wait.",
        count_of(part.n, "time"), percent(part.n, closed(finding)), where(finding, &part),
        finding->dry ? "Without the dry run, the library reads them and reuses most of these "
                       "connections."
                     : "The library reads them before it reuses the connection.");
}

static uint64_t fences(const struct numbers *numbers, int which)
{
    (void)which;
    return numbers->stats[STAT_fences];
}

static void tell_fences(struct advice *advice, const struct finding *finding)
{
    struct part part = add_part(finding, fences, 0);

    if (part.n == 0)
        return;
    say(advice, "fences",
        "The client ended with a quiet or noreply command %s (%.1f %% of its closes%s). Each "
        "time the library sends the server one more request. Let the client ask for replies if "
        "there are many.",
        count_of(part.n, "time"), percent(part.n, closed(finding)), where(finding, &part));
}

static uint64_t refused(const struct numbers *numbers, int reason)
{
    return numbers->refused[reason];
}

static uint64_t discarded(const struct numbers *numbers, int reason)
{
    return numbers->discarded[reason];
}

/* What happens to a connection for a reason. */
static const struct ending {
    const char *about;
    const char *what;
    uint64_t (*number)(const struct numbers *numbers, int reason);
} endings[] = {{"refused", "not kept at close()", refused},
               {"discarded", "discarded while idle", discarded}};

/* A sentence for each reason, and one for those that are rare. */
static void tell_reasons(struct advice *advice, const struct finding *finding,
                         const struct ending *ending)
{
    char rare[2048] = "";
    size_t n = 0;

    for (int i = REASON_NONE + 1; i < REASON_COUNT; i++) {
        struct part part = add_part(finding, ending->number, i);
        const char *name = reason_name((enum reason)i);

        if (part.n == 0)
            continue;
        if ((double)part.n >= RARE * (double)closed(finding))
            say(advice, ending->about, "%s (%.1f %% of its closes%s) %s %s: %s (%s). %s",
                count_of(part.n, "connection"), percent(part.n, closed(finding)),
                where(finding, &part), part.n == 1 ? "was" : "were", ending->what, name,
                reason_text((enum reason)i), explanations[i].helps);
        else if (n < sizeof(rare))
            n += (size_t)snprintf(rare + n, sizeof(rare) - n, "%s%" PRIu64 " for %s",
                                  n > 0 ? ", " : "", part.n, name);
    }
    if (n > 0)
        say(advice, ending->about,
            "A few were %s: %s. That needs no attention; `mcpool explain` says what it means.",
            ending->what, rare);
}

/* Reasons of a library that is newer than this command. */
static void tell_unknown(struct advice *advice, const struct finding *finding)
{
    uint64_t known = 0;

    for (int i = 0; i < REASON_COUNT; i++)
        known += finding->total.refused[i];
    if (finding->total.all_refused > known)
        say(advice, "refused",
            "%s not kept for reasons that this mcpool does not know. Update it.",
            count_of(finding->total.all_refused - known, "connection"));
}

static void tell_failures(struct advice *advice, const struct finding *finding)
{
    const uint64_t *stats = finding->total.stats;

    if (stats[STAT_connect_failed] > 0)
        say(advice, "failed",
            "The server could not be reached, or refused, in %s (%.1f %% of those opened). The "
            "program got the error. Look at the server, and at its -c.",
            count_of(stats[STAT_connect_failed], "connect"),
            percent(stats[STAT_connect_failed], stats[STAT_opened]));
    if (stats[STAT_swap_failed] > 0)
        say(advice, "failed",
            "The program got an error %s because no new connection could take the place of a "
            "pooled one. Look at the server, and at its -c.",
            count_of(stats[STAT_swap_failed], "time"));
}

static struct advice advise(const struct finding *finding)
{
    struct advice advice = {0};

    tell_off(&advice, finding);
    tell_saved(&advice, finding);
    tell_gain(&advice, finding);
    tell_cost(&advice, finding);
    tell_need(&advice, finding);
    tell_holds(&advice, finding);
    tell_family(&advice, finding);
    tell_unshared(&advice, finding);
    tell_server(&advice, finding);
    tell_unread(&advice, finding);
    tell_fences(&advice, finding);
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++)
        tell_reasons(&advice, finding, &endings[i]);
    tell_unknown(&advice, finding);
    tell_failures(&advice, finding);
    return advice;
}

/* Whether both belong to the same service in the same container, and are in the same mode. */
static bool is_same_service(const struct process *one, const struct process *other)
{
    return strcmp(one->service, other->service) == 0 &&
           strcmp(one->container, other->container) == 0 && one->mode == other->mode;
}

static size_t count_service(const struct process *first, size_t most)
{
    size_t n = 1;

    while (n < most && is_same_service(&first[n], first))
        n++;
    return n;
}

static void add_member(struct finding *finding, const struct process *process,
                       const struct server *server)
{
    finding->members[finding->count++] = (struct member){process, server};
    finding->seconds += difftime(time(NULL), (time_t)process->since);
    numbers_add(&finding->total, &server->numbers);
}

/* What the N processes at FIRST, one service, say of the server NAME. */
static struct finding find(const struct families *families, const struct process *first,
                           size_t n, const char *name)
{
    struct finding finding = {.server = name,
                              .first = first,
                              .families = families,
                              .dry = first->mode == MODE_DRY,
                              .off = first->mode == MODE_OFF};

    finding.members = must(calloc(n, sizeof(*finding.members)));
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < first[i].server_count; j++) {
            if (strcmp(first[i].servers[j].name, name) == 0)
                add_member(&finding, &first[i], &first[i].servers[j]);
        }
    }
    return finding;
}

/* Whether one of the processes from FIRST to before LAST has the server NAME. */
static bool is_known(const struct process *first, const struct process *last, const char *name)
{
    for (; first < last; first++) {
        for (size_t i = 0; i < first->server_count; i++) {
            if (strcmp(first->servers[i].name, name) == 0)
                return true;
        }
    }
    return false;
}

static void print_text(const struct finding *finding)
{
    const struct process *first = finding->first;
    struct advice advice = advise(finding);

    printf("%s%s%s, %zu process%s, %s%s\n", first->service, first->container[0] ? " in " : "",
           first->container, finding->count, finding->count == 1 ? "" : "es", finding->server,
           finding->dry   ? ", dry run"
           : finding->off ? ", switched off"
                          : "");
    for (size_t i = 0; i < advice.count; i++)
        text_print_wrapped("  - ", advice.list[i].text);
    free_advice(&advice);
}

/* What other users choose is quotable already, see processes.h. */
static void print_json(const struct finding *finding)
{
    const struct process *first = finding->first;
    struct advice advice = advise(finding);

    printf("{\"service\": \"%s\", \"container\": \"%s\", \"endpoint\": \"%s\", \"dry_run\": "
           "%s, \"pids\": [",
           first->service, first->container, finding->server, finding->dry ? "true" : "false");
    for (size_t i = 0; i < finding->count; i++)
        printf("%s%d", i > 0 ? ", " : "", finding->members[i].process->pid);
    printf("], \"sentences\": [");
    for (size_t i = 0; i < advice.count; i++)
        printf("%s\n  {\"about\": \"%s\", \"text\": \"%s\"}", i > 0 ? "," : "",
               advice.list[i].about, advice.list[i].text);
    printf("]}");
    free_advice(&advice);
}

/* Calls SHOW for each server of each service, and prints BETWEEN between two. */
static void show_all(const struct processes *processes,
                     void (*show)(const struct finding *finding), const char *between)
{
    struct families families = families_find(processes);
    const char *before = "";

    for (size_t at = 0, n; at < processes->count; at += n) {
        const struct process *first = &processes->list[at];

        n = count_service(first, processes->count - at);
        for (const struct process *process = first; process < first + n; process++) {
            for (size_t i = 0; i < process->server_count; i++) {
                struct finding finding;

                if (is_known(first, process, process->servers[i].name))
                    continue;
                finding = find(&families, first, n, process->servers[i].name);
                fputs(before, stdout);
                show(&finding);
                before = between;
                free(finding.members);
            }
        }
    }
    families_free(&families);
}

static int examine(const int *pids, size_t n, bool json)
{
    struct processes processes = processes_read(pids, n);
    bool any = processes.count > 0;

    if (json)
        fputs("{\"findings\": [", stdout);
    show_all(&processes, json ? print_json : print_text, json ? ",\n " : "\n");
    if (json)
        puts("]}");
    missing_tell(&processes, pids, n);
    processes_free(&processes);
    return flushed(any ? EXIT_SUCCESS : EXIT_NO);
}

int command_doctor(int argc, char **argv)
{
    static const struct option options[] = {
        {"json", no_argument, NULL, 'j'}, {"help", no_argument, NULL, 'h'}, {0}};
    bool json = false, good = true;
    size_t n = 0;
    int option, code;
    int *pids;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h')
            return print_help(), flushed(EXIT_SUCCESS);
        if (option != 'j')
            return usage_error("doctor");
        json = true;
    }
    pids = must(calloc((size_t)argc, sizeof(*pids)));
    for (; optind < argc; optind++)
        good &= parse_pid(argv[optind], &pids[n++]);
    code = good ? examine(pids, n, json) : usage_error("doctor");
    free(pids);
    return code;
}
