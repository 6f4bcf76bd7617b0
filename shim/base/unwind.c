#include "base/unwind.h"

#include "base/compiler.h"

AT_START struct unwind unwind;
