// Starting a student from parts of its teacher.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "nn/models/transformer/transformer.h"
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

/// How a transformer starts from a deeper one: layer i from layer 2i (of as many layers: from layer
/// i), embeddings, norms and the head with them. Parts that one of the two does not have stay as
/// they are: token types that DistilBERT leaves out, a classifier's first map where one is BERT's
/// pooler and the other DistilBERT's, a head of another kind.
///
/// Errors    kUsage if there is no layer 2i for some i, or the families' layers differ (gpt2).
/// Source    Sanh et al. 2019, arXiv:1910.01108, section 3.
LayerMap every_second_layer(const nn::Transformer& student, const nn::Transformer& teacher);

}  // namespace retort::distill
