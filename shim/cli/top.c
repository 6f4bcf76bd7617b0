/*
 * mcpool top: shows the connects per second of each process, and refreshes them in place.
 */
#include <curses.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/processes.h"

enum column { BY_CONNECTS, BY_REUSED, BY_OPENED, BY_HITS, BY_REFUSED, BY_IN_USE, BY_PID };

static const struct {
    char key;
    const char *name;
} columns[] = {
    [BY_CONNECTS] = {'c', "connects"}, [BY_REUSED] = {'r', "reused"},
    [BY_OPENED] = {'o', "opened"},     [BY_HITS] = {'h', "hits"},
    [BY_REFUSED] = {'k', "not kept"},  [BY_IN_USE] = {'u', "in use"},
    [BY_PID] = {'p', "pid"},
};

#define COLUMNS_TO_SORT_BY (sizeof(columns) / sizeof(columns[0]))

/* A line of the screen: a process and a server. Rates are per second since the last refresh. */
struct line {
    const struct process *process;
    const struct server *server;
    double connects, reused, opened, refused;
};

static void print_help(void)
{
    puts("usage: mcpool top [--delay SECONDS]\n\n"
         "Shows what each process does with its connections to memcached, refreshed in "
         "place.\n\n"
         "  --delay SECONDS  time between two refreshes (2)\n\n"
         "Keys: c r o h k u p sort by connects, reused, opened, hits, not kept, in use, pid;\n"
         "space refreshes at once; q quits. See mcpool-top(1).");
}

/* The counters of SERVER at the last refresh; NULL when it is new. */
static const struct numbers *before(const struct processes *last, const struct process *process,
                                    const struct server *server)
{
    for (size_t i = 0; i < last->count; i++) {
        if (last->list[i].pid != process->pid || last->list[i].since != process->since)
            continue;
        for (size_t j = 0; j < last->list[i].server_count; j++) {
            if (strcmp(last->list[i].servers[j].name, server->name) == 0)
                return &last->list[i].servers[j].numbers;
        }
    }
    return NULL;
}

static double rate(uint64_t now, uint64_t then, double seconds)
{
    return now > then && seconds > 0 ? (double)(now - then) / seconds : 0;
}

static struct line make_line(const struct process *process, const struct server *server,
                             const struct numbers *old, double seconds)
{
    const struct numbers *now = &server->numbers;
    struct line line = {.process = process, .server = server};

    if (!old)
        return line;
    line.connects = rate(now->stats[STAT_connects], old->stats[STAT_connects], seconds);
    line.reused = rate(now->stats[STAT_reused], old->stats[STAT_reused], seconds);
    line.opened = rate(now->stats[STAT_opened], old->stats[STAT_opened], seconds);
    line.refused = rate(now->all_refused, old->all_refused, seconds);
    return line;
}

static double key_of(const struct line *line, enum column column)
{
    switch (column) {
    case BY_CONNECTS:
        return line->connects;
    case BY_REUSED:
        return line->reused;
    case BY_OPENED:
        return line->opened;
    case BY_HITS:
        return numbers_hit_rate(&line->server->numbers);
    case BY_REFUSED:
        return line->refused;
    case BY_IN_USE:
        return (double)line->server->numbers.stats[STAT_in_use];
    default:
        return -(double)line->process->pid;
    }
}

static enum column sorted_by = BY_CONNECTS;

/* Largest first. Equal lines are sorted by pid, so that they keep their place. */
static int compare(const void *a, const void *b)
{
    double one = key_of(a, sorted_by), other = key_of(b, sorted_by);

    if (one == other) {
        one = key_of(a, BY_PID);
        other = key_of(b, BY_PID);
    }
    return (one < other) - (one > other);
}

static void draw_head(const struct processes *processes, const struct line *lines, size_t n)
{
    struct line all = {0};
    char now[16];
    time_t seconds = time(NULL);
    bool dry = false;

    for (size_t i = 0; i < n; i++) {
        all.connects += lines[i].connects;
        all.reused += lines[i].reused;
        all.opened += lines[i].opened;
        dry |= lines[i].process->dry_run;
    }
    strftime(now, sizeof(now), "%H:%M:%S", localtime(&seconds));
    mvprintw(0, 0, "mcpool top - %s, %zu process%s, by %s%s", now, processes->count,
             processes->count == 1 ? "" : "es", columns[sorted_by].name,
             dry ? "; some in a dry run (*): there, reused is what would be" : "");
    mvprintw(1, 0, "per second: %.1f connects, %.1f reused, %.1f opened", all.connects,
             all.reused, all.opened);
    attron(A_REVERSE);
    mvprintw(3, 0, "%7s  %-20s %-22s %6s %5s %9s %9s %9s %9s %6s", "PID", "SERVICE", "SERVER",
             "IN USE", "IDLE", "CONNECT/s", "REUSED/s", "OPENED/s", "NOT KEPT", "HITS");
    attroff(A_REVERSE);
}

static void draw_line(int row, const struct line *line)
{
    const struct numbers *numbers = &line->server->numbers;

    mvprintw(
        row, 0,
        "%7d%c %-20.20s %-22.22s %6" PRIu64 " %5" PRIu64 " %9.1f %9.1f %9.1f %9.1f %5.1f%%",
        line->process->pid, line->process->dry_run ? '*' : ' ', line->process->service,
        line->server->name, numbers->stats[STAT_in_use], numbers->stats[STAT_idle],
        line->connects, line->reused, line->opened, line->refused, numbers_hit_rate(numbers));
}

static void draw(const struct processes *now, const struct processes *last, double seconds)
{
    struct line *lines;
    size_t n = 0, most = 1;

    for (size_t i = 0; i < now->count; i++)
        most += now->list[i].server_count;
    lines = calloc(most, sizeof(*lines));
    if (!lines)
        return;
    for (size_t i = 0; i < now->count; i++) {
        const struct process *process = &now->list[i];

        for (size_t j = 0; j < process->server_count; j++) {
            const struct server *server = &process->servers[j];

            lines[n++] = make_line(process, server, before(last, process, server), seconds);
        }
    }
    qsort(lines, n, sizeof(*lines), compare);
    erase();
    draw_head(now, lines, n);
    for (size_t i = 0; i < n && 4 + (int)i < LINES; i++)
        draw_line(4 + (int)i, &lines[i]);
    refresh();
    free(lines);
}

static bool sort_by_key(int key)
{
    for (size_t i = 0; i < COLUMNS_TO_SORT_BY; i++) {
        if (columns[i].key != key)
            continue;
        sorted_by = (enum column)i;
        return true;
    }
    return false;
}

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void look_until_quit(double delay)
{
    struct processes last = {0}, now = processes_read(NULL, 0);
    double then = seconds_now(), between = 0;
    int key;

    timeout((int)(delay * 1000));
    while (true) {
        draw(&now, &last, between);
        key = getch();
        if (key == 'q' || key == 'Q')
            break;
        if (sort_by_key(key) || key == KEY_RESIZE)
            continue;
        processes_free(&last);
        last = now;
        now = processes_read(NULL, 0);
        between = seconds_now() - then;
        then += between;
    }
    processes_free(&last);
    processes_free(&now);
}

int command_top(int argc, char **argv)
{
    static const struct option options[] = {
        {"delay", required_argument, NULL, 'd'}, {"help", no_argument, NULL, 'h'}, {0}};
    double delay = 2;
    char *end;
    int option;

    while ((option = getopt_long(argc, argv, "d:", options, NULL)) != -1) {
        if (option == 'h')
            return print_help(), flushed(EXIT_SUCCESS);
        if (option != 'd')
            return usage_error("top");
        delay = strtod(optarg, &end);
        if (end == optarg || *end != '\0' || !(delay >= 0.1 && delay <= 3600))
            return usage_error("top");
    }
    if (optind < argc)
        return usage_error("top");
    if (!isatty(STDOUT_FILENO) || !initscr()) {
        fputs("mcpool: top needs a terminal; see mcpool stat --watch\n", stderr);
        return EXIT_NO;
    }
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    look_until_quit(delay);
    endwin();
    return EXIT_SUCCESS;
}
