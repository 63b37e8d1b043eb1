#include <stdexcept>

#include "nn/extension.h"

RETORT_EXTENSION { throw std::runtime_error("no row today"); }
