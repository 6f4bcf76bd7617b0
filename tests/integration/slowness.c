/*
 * The time limits of all tests, of the unit tests too, where everything takes longer.
 */
#include "slowness.h"

#include <criterion/criterion.h>
#include <criterion/hooks.h>
#include <stdlib.h>

int slowness(void)
{
    const char *factor = getenv("TEST_SLOWNESS");

    return factor ? atoi(factor) : 1;
}

/* In the process that keeps the limits. A test that has none has its suite's. */
ReportHook(PRE_ALL)(struct criterion_test_set *tests)
{
    FOREACH_SET(struct criterion_suite_set * suite, tests->suites)
    {
        if (suite->suite.data)
            suite->suite.data->timeout *= slowness();
        FOREACH_SET(struct criterion_test * test, suite->tests)
        {
            test->data->timeout *= slowness();
        }
    }
}
