// The emulator stops a kernel that is wrong, with this fault and these words.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "kernels/simt/emu.h"

namespace retort::planted {

template <class F>
void expect_fault(simt::emu::Fault fault, F run, const std::string& part_of_message) {
  try {
    run();
    ADD_FAILURE() << "no fault reported, expected " << to_string(fault);
  } catch (const simt::emu::Error& e) {
    EXPECT_EQ(e.fault, fault) << e.what();
    EXPECT_NE(std::string(e.what()).find(part_of_message), std::string::npos) << e.what();
  }
}

}  // namespace retort::planted
