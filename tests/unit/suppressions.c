/*
 * Tells LeakSanitizer to be silent about Criterion, which loses a block now and then when tests
 * end at the same moment.
 */
const char *__lsan_default_suppressions(void);

const char *__lsan_default_suppressions(void)
{
    return "leak:libcriterion.so";
}
