// Teachers of a run once their weights exist: loaded, checked, evaluated, scored.
#pragma once
#include "tools/kdtrain/jobs.h"
#include "tools/kdtrain/progress.h"
#include "tools/kdtrain/run_folder.h"

namespace retort::tools {

/// Where load_teacher_set finds what it needs.
struct TeacherFiles {
  std::string final;   // weights of the finished model
  std::string folder;  // of the job that trained it, with its snapshots; "": it was given
};

/// A set with models of fresh weights, for a plan; and what the loader fills in.
TeacherSet fresh_teacher_set(const JobList& jobs, std::size_t model, std::size_t t,
                             const ExperimentData& data, Device device);

/// Loads what others learn from: `model` of teacher seed `t`. check_teacher_set() comes next.
/// Errors    what the loader throws; kUsage for a snapshot that was never taken.
TeacherSet load_teacher_set(const JobList& jobs, std::size_t model, std::size_t t,
                            const ExperimentData& data, Device device, const TeacherFiles& files);

/// Gives what body works out; with several ranks one of them does, for all.
using Once = std::function<std::string(const std::function<std::string()>& body)>;
inline const Once kHere = [](const std::function<std::string()>& body) { return body(); };

/// Refuses a broken or untrained one (distill/teacher/preflight.h); keeps what is allowed.
/// Errors    what preflight throws.
void check_teacher_set(const JobList& jobs, std::size_t model, const ExperimentData& data,
                       Device device, TeacherSet* set, const Once& once = kHere);

/// Evaluates it, scores the students' samples if somebody wants that, and attaches the cache of
/// logits.
/// progress: is told; may be null.
void measure_teacher(const JobList& jobs, std::size_t model, const ExperimentData& data,
                     Device device, Progress* progress, TeacherSet* set,
                     Communicator* ranks = nullptr);

/// Whether what it answers is kept in make_cache(): as teacher.cache says; "auto" keeps what somebody
/// asks for again.
bool keeps_answers(const Settings& settings, const ExperimentData& data, const TeacherSet& set);

/// A cache for the teacher's logits, or of words for its features, as the recipe asks for it; null
/// where there is none. One that keeps nothing has the teacher asked in the same passes.
std::shared_ptr<distill::LogitCache> make_cache(const Settings& settings,
                                                const ExperimentData& data, Device device,
                                                const TeacherSet& set);

/// What preflight would have refused of the teachers that an arm learns from, and the arm allows.
std::vector<std::string> notes_of_arm(const Settings& arm, const TeacherSet& set,
                                      const ExperimentData& data, Device device,
                                      const Once& once = kHere);

/// Parity: the degree-1 probe of a trained and an untrained teacher's hidden layer, as metrics.
distill::Metrics probe_teacher(const std::shared_ptr<nn::Model>& trained,
                               const std::shared_ptr<nn::Model>& untrained,
                               const ExperimentData& data, Device device);

}  // namespace retort::tools
