#include <stdexcept>

#include "nn/extension.h"

namespace {

struct Early {
  Early() { throw std::runtime_error("too early"); }
} early;

}  // namespace

RETORT_EXTENSION {}
