// What most tests include, parsed once a program (retort_precompile).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/autograd/gradcheck.h"
#include "engine/ops/elementwise.h"
#include "engine/tensor/tensor.h"
#include "tests/support/close.h"
#include "tests/support/random.h"
#include "tools/cmake/precompiled.h"
