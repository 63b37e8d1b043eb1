// Text by the names that recipes use.
#pragma once
#include "nn/data/registry.h"

namespace retort::nn {

/// Samples of text in files, tokenised: "text", "jsonl" or "tsv".
DataKind text_kind(const std::string& name);
/// "bioasq": yes/no questions with their snippets.
DataKind bioasq_kind();
/// "tokens": ids in files.
DataKind tokens_kind();

}  // namespace retort::nn
