/*
 * Calls that take rights from the process, by libc's functions and by syscall(): seccomp
 * filters, Landlock, capabilities. pool/sandbox.h says what a sandbox means for the pool.
 */
#include "hooks/hooks.h"

#include "pool/sandbox.h"

#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum effect { NO_EFFECT, LESS_RIGHTS, SANDBOX };

/* With a null FILTER the call always fails: programs ask in this way what the kernel supports.
 */
static enum effect effect_of_filter(bool strict, long filter)
{
    return strict || filter != 0 ? SANDBOX : NO_EFFECT;
}

/* The effect of prctl(OPTION, FIRST, SECOND). */
static enum effect effect_of_option(long option, long first, long second)
{
    switch (option) {
    case PR_SET_SECCOMP:
        return effect_of_filter(first == SECCOMP_MODE_STRICT, second);
    case PR_CAPBSET_DROP:
    case PR_CAP_AMBIENT:
    case PR_SET_SECUREBITS:
        return LESS_RIGHTS;
    default:
        return NO_EFFECT;
    }
}

static enum effect effect_of(long nr, const long *a)
{
    switch (nr) {
    case SYS_prctl:
        return effect_of_option(a[0], a[1], a[2]);
    case SYS_seccomp:
        return effect_of_filter(a[0] == SECCOMP_SET_MODE_STRICT,
                                a[0] == SECCOMP_SET_MODE_FILTER ? a[2] : 0);
    case SYS_landlock_restrict_self:
        return SANDBOX;
    case SYS_capset:
        return LESS_RIGHTS;
    default:
        return NO_EFFECT;
    }
}

/* Before and after the real call. DUE is what before_confining() returned. */
static bool before_confining(enum effect effect)
{
    return effect == SANDBOX && sandbox_begin();
}

static void after_confining(enum effect effect, bool due, long result)
{
    if (due)
        sandbox_end(result != -1);
    if (effect == LESS_RIGHTS)
        hook_identity_changed(result == -1 ? -1 : 0);
}

long hook_confine(long nr, const long *a)
{
    enum effect effect = effect_of(nr, a);
    bool due = before_confining(effect);
    long result = real_syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);

    after_confining(effect, due, result);
    return result;
}

/* Passes four arguments on whatever OPTION takes, as libc does. */
HOOKED int prctl(int option, ...)
{
    unsigned long a[4];
    enum effect effect;
    va_list list;
    bool due;
    int result;

    va_start(list, option);
    for (int i = 0; i < 4; i++)
        a[i] = va_arg(list, unsigned long);
    va_end(list);
    effect = effect_of_option(option, (long)a[0], (long)a[1]);
    due = before_confining(effect);
    result = real_prctl(option, a[0], a[1], a[2], a[3]);
    after_confining(effect, due, result);
    return result;
}

HOOKED int capset(void *header, const void *data)
{
    int result = real_capset(header, data);

    after_confining(LESS_RIGHTS, false, result);
    return result;
}
