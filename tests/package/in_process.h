// The rows of mine/ used by a program, and what a run with them left on disk.
#pragma once
#include <string>

/// Each row by its name, against numbers by hand. False, with lines on stderr, where one is wrong.
bool rows_work();

/// A run folder of my.toml: the metric, the scores and the order of the curriculum are those that
/// the models in it give.
bool run_is_right(const std::string& folder);
