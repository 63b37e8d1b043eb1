// What is checked of a recipe once its files are open: validate, plan and run ask here, so that what
// one of them passes the others do too.
#pragma once
#include "tools/kdtrain/teachers.h"

namespace retort::tools {

struct OpenedTask {
  ExperimentData data;
  TeacherSets sets;  // [model]: the given ones, one set each; the others are empty
  /// By arm or model: what is allowed and hardly wanted. For the report, and told where they arise.
  std::map<std::string, std::vector<std::string>> notes = {};
};

/// Opens data, given weights and orders of one task. Missing or foreign files, batches and stages that do
/// not fit the data, statistics over one value and a given teacher that knows nothing are told
/// here, before anything is trained or written; statistics over few values are noted, on stderr too.
/// checks_given: false leaves check_given() to the caller.
/// Errors    kUsage with the key's place; what files throw.
OpenedTask open_task(const JobList& jobs, Device device, bool checks_given = true);

/// Refuses a given teacher that knows nothing (check_teacher_set).
void check_given(const JobList& jobs, const ExperimentData& data, Device device, TeacherSets* sets,
                 const Once& once = kHere);

/// open_task() of each task of a recipe, on the CPU.
void check_files(const Recipe& recipe);

/// Samples of the smallest part of a batch that passes a network at once: of the last batch of an
/// epoch, of the smaller slice, or of the last micro-batch. samples: of an epoch, or of a run that
/// is shorter.
std::int64_t smallest_part(std::int64_t samples, std::int64_t batch, std::int64_t micro_batch,
                           std::int64_t slices = 1);

}  // namespace retort::tools
