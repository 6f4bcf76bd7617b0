/*
 * Objects loaded with RTLD_DEEPBIND. Those named in the configuration meet the hooks, others do
 * not. The RUNPATH of the object that calls dlopen() still counts. plugin.c is there three
 * times, in TEST_PLUGINS: memcached.so and other.so, whose RUNPATH is the folder `below`, and
 * below/hidden.so, which they open.
 */
#include "harness.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct plugin {
    int (*speak)(int port);
    void *(*load)(const char *file);
};

/* ASan ends a program that uses RTLD_DEEPBIND, and its own dlopen() hides the caller. */
static struct plugin load(const char *name, int flags)
{
    char path[4096];
    struct plugin plugin;
    void *object;

    not_under_asan();
    snprintf(path, sizeof(path), "%s/%s", getenv("TEST_PLUGINS"), name);
    object = dlopen(path, RTLD_NOW | flags);
    cr_assert(object != NULL, "%s", dlerror());
    *(void **)&plugin.speak = dlsym(object, "speak");
    *(void **)&plugin.load = dlsym(object, "load");
    cr_assert(plugin.speak && plugin.load);
    return plugin;
}

Test(deepbind, named_objects_meet_the_hooks, .timeout = 20)
{
    struct plugin plugin = load("memcached.so", RTLD_DEEPBIND);

    for (int i = 0; i < 3; i++)
        cr_expect(plugin.speak(server_port()) == 0);
    cr_expect(log_count(": kept") == 3);
    cr_expect(log_count(": reused as ") == 2);
}

Test(deepbind, others_do_not, .timeout = 20)
{
    struct plugin plugin = load("other.so", RTLD_DEEPBIND);

    for (int i = 0; i < 3; i++)
        cr_expect(plugin.speak(server_port()) == 0);
    cr_expect(log_count(": kept") == 0);
    cr_expect(log_count("debug: 127.0.0.1:") == 0);
}

Test(deepbind, runpath_of_the_caller, .timeout = 20)
{
    struct plugin plugin = load("other.so", 0);

    cr_expect(plugin.load("hidden.so") != NULL, "%s", dlerror());
    cr_expect(dlopen("hidden.so", RTLD_NOW | RTLD_NOLOAD) != NULL);
    cr_expect(dlopen("below/hidden.so", RTLD_NOW) == NULL);
    cr_expect(dlopen("no-such-object.so", RTLD_NOW) == NULL);
    cr_expect(dlopen(NULL, RTLD_NOW) != NULL);
}

Test(deepbind, runpath_is_not_everybodys, .timeout = 20)
{
    cr_expect(dlopen("hidden.so", RTLD_NOW) == NULL);
}

/* The environment: MCPOOL_DEEPBIND=other.so. */
Test(other_deepbind, the_variable_decides, .timeout = 20)
{
    struct plugin named = load("other.so", RTLD_DEEPBIND);
    struct plugin unnamed = load("memcached.so", RTLD_DEEPBIND);

    cr_expect(named.speak(server_port()) == 0);
    cr_expect(log_count(": kept") == 1);
    cr_expect(unnamed.speak(server_port()) == 0);
    cr_expect(log_count(": kept") == 1);
}
