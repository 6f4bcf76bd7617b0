#include "base/unwind.h"

struct unwind unwind;
