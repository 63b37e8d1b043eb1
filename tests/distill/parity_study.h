// Sparse parity, the task on which curriculum extraction is measured.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distill/metrics/degree_one.h"
#include "distill/schedules/staged.h"

namespace retort::test {

using distill::DegreeOneOptions;
using distill::DegreeOneResult;
using distill::Teacher;

/// Defaults are the settings of the published comparison: (40, 5) parity, two-layer ReLU networks
/// with logits (f, -f), softmax CE and KL at temperature 1, SGD 0.1, fresh samples in every step.
struct ParitySettings {
  std::int64_t bits = 40, support = 5;
  std::int64_t teacher_width = 1024, student_width = 32;
  std::int64_t batch = 32;
  double learning_rate = 0.1;
  std::int64_t teacher_steps = 30000;
  std::int64_t stage_steps = 1000;  // T1: of the first checkpoint, of the projection stage
  std::int64_t cap = 40000;         // a student that never gets there counts with this
  std::int64_t evaluate_steps = 100;
  std::int64_t evaluation_samples = 4096;
  std::int64_t calibration_samples = 2048;
  std::int64_t head_width = 16;
  double target = 0.99;           // accuracy
  double checkpoint_above = 0.7;  // progressive: the first checkpoint above this accuracy
};

enum class ParityArm : std::uint8_t {
  kLabels,          // cross-entropy alone
  kOneShot,         // the final teacher throughout
  kProgressive,     // the first checkpoint above checkpoint_above for T1 steps, then the final one
  kExtractionPost,  // T1 steps on projections of the final teacher's hidden layer, then its output
  kExtractionPre,   //
  kExtractionHead,  //
  kUntrainedControl,  // as kExtractionPost, the projections from the teacher before training
};
const char* name_of(ParityArm arm);

struct ParityTeacher {
  std::shared_ptr<const Teacher> untrained, checkpoint, trained;
  std::int64_t checkpoint_step = 0;  // 0: none was above, and `checkpoint` is the trained teacher
  double checkpoint_accuracy = 0, accuracy = 0;
  std::int64_t steps_to_target = 0;  // teacher_steps if never
};

/// Trains a teacher for exactly teacher_steps. Everything it draws follows from (settings, seed).
/// Cost: about 2 * batch * bits * teacher_width * 3 operations a step.
ParityTeacher train_parity_teacher(const ParitySettings& settings, std::uint64_t seed);

struct ParityRun {
  std::int64_t steps = 0;  // to the target, the first stage included; cap if never
  bool reached = false;
  double accuracy = 0;  // at the last evaluation
  std::vector<std::pair<std::int64_t, double>>
      accuracies;  // (step, accuracy), every evaluate_steps
};

/// One student of one arm, until it reaches the target or the cap. A pure function of its
/// arguments: runs of different arms and seeds may go on in several threads at once.
ParityRun run_parity_student(const ParitySettings& settings, ParityArm arm,
                             const ParityTeacher& teacher, std::uint64_t student_seed);

/// The degree-1 probe of one of the teacher's networks on this task.
DegreeOneResult probe_parity_teacher(const ParitySettings& settings, const Teacher& teacher,
                                     const DegreeOneOptions& options = {});

}  // namespace retort::test
