/*
 * mcpool explain: says what a reason means, and what to do about it. A reason is why
 * connections are not kept (reasons.def), or why a process shares none (share.def).
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/reasons.h"
#include "cli/command.h"
#include "cli/explain.h"
#include "cli/families.h"
#include "cli/text.h"

const struct explanation explanations[REASON_COUNT] = {
#define EXPLAIN(name, means, helps) [REASON_##name] = {means, helps},
#include "cli/explain.def"
#undef EXPLAIN
};

const struct explanation share_explanations[SHARES] = {
#define EXPLAIN_SHARE(name, means, helps) [SHARE_##name] = {means, helps},
#include "cli/explain_share.def"
#undef EXPLAIN_SHARE
};

static void print_help(void)
{
    puts("usage: mcpool explain [REASON...]\n\n"
         "Says what REASON means, for which connections are not kept, are discarded or\n"
         "are not shared, and what to do about it. Without REASON, lists all reasons.\n\n"
         "See mcpool-explain(1).");
}

static void list_all(void)
{
    for (int i = REASON_NONE + 1; i < REASON_COUNT; i++)
        printf("%-17s %s\n", reason_name((enum reason)i), reason_text((enum reason)i));
    for (int i = 0; i < SHARES; i++)
        printf("%-17s %s\n", share_name((enum share)i), share_text((enum share)i));
}

static void print_entry(const char *name, const char *text,
                        const struct explanation *explanation)
{
    printf("%s: %s\n\n", name, text);
    text_print_wrapped("  ", explanation->means);
    putchar('\n');
    text_print_wrapped("  ", explanation->helps);
}

static bool explain_reason(const char *name)
{
    for (int i = REASON_NONE + 1; i < REASON_COUNT; i++) {
        if (strcasecmp(name, reason_name((enum reason)i)) != 0)
            continue;
        print_entry(reason_name((enum reason)i), reason_text((enum reason)i), &explanations[i]);
        return true;
    }
    return false;
}

static int find_share(const char *name)
{
    int i = 0;

    while (i < SHARES && strcasecmp(name, share_name((enum share)i)) != 0)
        i++;
    return i;
}

/* A name may be in both lists. */
static bool explain(const char *name)
{
    bool is_reason = explain_reason(name);
    int share = find_share(name);

    if (share < SHARES) {
        if (is_reason)
            putchar('\n');
        print_entry(share_name((enum share)share), share_text((enum share)share),
                    &share_explanations[share]);
        return true;
    }
    if (!is_reason)
        fprintf(stderr, "mcpool: no such reason: %s\n", name);
    return is_reason;
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
