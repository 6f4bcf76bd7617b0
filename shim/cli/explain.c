/*
 * mcpool explain: says what a reason means, and what to do about it.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/reasons.h"
#include "cli/command.h"
#include "cli/explain.h"
#include "cli/text.h"

const struct explanation explanations[REASON_COUNT] = {
#define EXPLAIN(name, means, helps) [REASON_##name] = {means, helps},
#include "cli/explain.def"
#undef EXPLAIN
};

static void print_help(void)
{
    puts("usage: mcpool explain [REASON...]\n\n"
         "Says what REASON means, for which connections are not kept or are discarded,\n"
         "and what to do about it. Without REASON, lists all reasons.\n\n"
         "See mcpool-explain(1).");
}

static void list_all(void)
{
    for (int i = REASON_NONE + 1; i < REASON_COUNT; i++)
        printf("%-17s %s\n", reason_name((enum reason)i), reason_text((enum reason)i));
}

static bool explain(const char *name)
{
    for (int i = REASON_NONE + 1; i < REASON_COUNT; i++) {
        if (strcasecmp(name, reason_name((enum reason)i)) != 0)
            continue;
        printf("%s: %s\n\n", reason_name((enum reason)i), reason_text((enum reason)i));
        text_print_wrapped("  ", explanations[i].means);
        putchar('\n');
        text_print_wrapped("  ", explanations[i].helps);
        return true;
    }
    fprintf(stderr, "mcpool: no such reason: %s\n", name);
    return false;
}

int command_explain(int argc, char **argv)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    bool known = true;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h')
            return print_help(), flushed(EXIT_SUCCESS);
        return usage_error("explain");
    }
    if (optind == argc)
        list_all();
    for (int i = optind; i < argc; i++) {
        if (i > optind)
            putchar('\n');
        known &= explain(argv[i]);
    }
    return flushed(known ? EXIT_SUCCESS : EXIT_NO);
}
