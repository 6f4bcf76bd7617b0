/*
 * A library whose constructor clears the environment. Preloaded after libmcpool it is
 * initialised before it.
 */
#include <stdlib.h>

__attribute__((constructor)) static void begin(void)
{
    clearenv();
}
