/*
 * A library whose constructor clears the environment. Preloaded after the shim it is
 * initialised before it.
 */
#include <stdlib.h>

__attribute__((constructor)) static void begin(void)
{
    clearenv();
}
