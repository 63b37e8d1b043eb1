// Teachers of a run once their weights exist: loaded, checked, evaluated, scored.
#pragma once
#include "tools/kdtrain/jobs.h"
#include "tools/kdtrain/run_folder.h"

namespace retort::tools {

/// Loads weights into a model of section "teacher". The normalisation that the file names goes to
/// *normalize, unless the recipe sets teacher.normalize.
std::shared_ptr<distill::Teacher> load_teacher(const Settings& settings,
                                               std::shared_ptr<nn::Model> model,
                                               const std::string& file, const std::string& name,
                                               Device device, nn::Normalize* normalize);

/// Where load_teacher_set finds what it needs.
struct TeacherFiles {
  std::string final;      // weights of the finished teacher
  std::string snapshots;  // folder of the snapshots; unused without progressive arms
};

/// Loads teacher `t`, and refuses a broken or untrained one (distill/teacher/preflight.h).
/// Errors    what the loader and preflight throw; kUsage for a snapshot that was never taken.
TeacherSet load_teacher_set(const JobList& jobs, std::size_t t, const ExperimentData& data,
                            Device device, const TeacherFiles& files);

/// Evaluates, scores the students' samples if an arm wants it, and attaches the cache of logits.
void measure_teacher(const JobList& jobs, const ExperimentData& data, Device device,
                     TeacherSet* set);

/// A cache for the teacher's logits as the recipe asks for it; null where there is none.
std::shared_ptr<distill::LogitCache> make_cache(const Settings& settings,
                                                const ExperimentData& data, Device device,
                                                const distill::Teacher& teacher);

/// What preflight would have refused of the untrained teacher, which the arm allows; else nothing.
std::vector<std::string> notes_of_arm(const Arm& arm, const TeacherSet& set,
                                      const ExperimentData& data, Device device);

/// Lines of a teacher that came from a file.
void log_given_teacher(const TeacherSet& set, const ExperimentData& data,
                       const std::map<std::string, double>& more_metrics, double seconds,
                       MetricsLog* log, std::size_t log_job);

/// Parity: the degree-1 probe of a trained and an untrained teacher's hidden layer, as metrics.
std::map<std::string, double> probe_teacher(const std::shared_ptr<nn::Model>& trained,
                                            const std::shared_ptr<nn::Model>& untrained,
                                            const Settings& settings, const ExperimentData& data,
                                            Device device);

}  // namespace retort::tools
