// Starting a student from parts of its teacher.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "nn/module.h"

namespace retort::distill {

/// {student prefix, teacher prefix}: "layer1.0." takes from "layer1.0.", and "fc." from "fc.".
/// A whole name is a prefix too; {"", ""} is everything.
using LayerMap = std::vector<std::pair<std::string, std::string>>;

/// Copies parameters and buffers: for every name of the student that begins with a student prefix
/// (the first that fits), the teacher's tensor with the prefix replaced. Names that fit no prefix
/// stay as they are. Returns the names that were copied.
///
/// Errors    kUsage if the teacher has no such name or another shape (naming both), or if a prefix
///           fits nothing.
std::vector<std::string> copy_layers(nn::Module& student, const nn::Module& teacher,
                                     const LayerMap& map);

}  // namespace retort::distill
