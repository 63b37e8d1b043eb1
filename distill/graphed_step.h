// A distillation step that is captured as one CUDA graph and replayed.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "distill/step.h"
#include "engine/runtime/graph.h"
#include "engine/runtime/upload_ring.h"
#include "nn/data/device_feed.h"
#include "nn/optim/optimizer.h"

namespace retort::distill {

struct GraphOptions {
  bool graph = true;  // false: every step runs eagerly
  /// The teacher of the next batch runs on a second stream beside the student's step, where the
  /// next batch is named.
  bool overlap = false;
};

using nn::FeedBatch;

/// The whole step: batch (from a feed), teacher forward, student forward and backward, loss, clip,
/// update, numbers. What changes from step to step (learning rate, step number, lambda,
/// temperature, place in the order, epoch, seed) lies in one small block of device memory that is
/// uploaded before each step, so one captured graph serves all steps of a shape. Nothing is read
/// back: the numbers go to the meter.
///
/// The first steps of a shape run eagerly, until they need no new memory; they also make what is
/// made at first use, such as a library's choice of algorithm. Then the step is captured. Cached
/// logits of the teacher are looked up before each step and uploaded; a batch with rows that are
/// not held waits for the teacher. A step that cannot be captured runs eagerly for good, and
/// reason() says why. Whether a step was replayed does not change a bit of its results.
///
/// Lifetime  student, optimizer and meter must outlive this object; the optimizer reads its
///           learning rate and step number here meanwhile. Nobody may move the student's parameters.
/// Threads   one thread uses it.
class GraphedStep {
 public:
  /// Teachers of the stage, in the order of its terms' answers; none, or a null one: no teacher.
  GraphedStep(std::vector<RunTeacher> teachers, Terms terms, nn::Model& student,
              nn::Optimizer& optimizer, StepMeter& meter, const GraphOptions& options = {});
  ~GraphedStep();
  GraphedStep(const GraphedStep&) = delete;
  GraphedStep& operator=(const GraphedStep&) = delete;

  /// One step on a batch in device memory. next: the batch of the next call, if it is there already
  /// (overlap only).
  /// Errors    those of distill_step, and as there: nothing of the step is left behind.
  void step(const nn::Batch& batch, const StepSettings& settings, double learning_rate,
            const nn::Batch* next = nullptr);
  /// One step on a batch that the step itself makes. next: that of the next call, if its order is
  /// uploaded already (overlap only).
  void step(const nn::DeviceFeed& feed, const FeedBatch& batch, const StepSettings& settings,
            double learning_rate, const FeedBatch* next = nullptr);

  /// Why the last step ran eagerly; empty if it was a replay.
  const std::string& reason() const { return reason_; }
  std::int64_t replays() const { return replays_; }
  std::int64_t graphs() const;
  /// What the graph of the last step holds; nothing if it ran eagerly.
  GraphInfo info() const;
  std::size_t memory_bytes() const { return memory_ ? memory_->reserved_bytes() : 0; }

 private:
  // What one step is made of, whatever its source.
  struct Job {
    const nn::DeviceFeed* feed = nullptr;
    FeedBatch at, next_at;
    std::int64_t order = 0;          // which of the feed's orders
    nn::Batch batch;                 // feed null
    nn::Inputs next_teacher_inputs;  // feed null
    std::int64_t samples = 0;
    bool gives_share = false;  // some lambda is not 0
    std::optional<nn::Want> of_teachers;
    bool from_cache = false;  // the teacher's logits are looked up on the host
    bool ahead = false;       // the next batch's teacher runs beside this step
    std::size_t lambdas = 1, temperatures = 1;
  };
  // Memory of a captured step that lasts: inputs that come as tensors are copied here before each
  // run, and with overlap these are the logits of the batch at hand and of the next.
  struct Lasting {
    nn::Batch batch;
    nn::Inputs next_teacher_inputs;
    Tensor logits, next_logits;
  };
  struct Entry {
    std::unique_ptr<Graph> graph;
    Lasting lasting;
    ColumnNames names;   // of the meter's row
    bool ready = false;  // the last rehearsal needed no new memory
    int rehearsals = 0, captures = 0;
    std::string failure;
  };
  struct Header;

  void run(Job job, const StepSettings& settings, double learning_rate);
  void run_entry(Job job, Entry& entry, const StepSettings& settings, double learning_rate,
                 std::int64_t row);
  static void join_again() noexcept;
  std::string obstacle(const Job& job, const StepSettings& settings) const;
  void make_block(std::int64_t samples);
  void upload(const Job& job, const StepSettings& settings, double learning_rate,
              std::int64_t slot);
  void run_eagerly(const Job& job, const StepSettings& settings);
  Entry* entry_of(const Job& job);
  void stage(const Job& job, Lasting& lasting) const;
  Tensor ask(const nn::Inputs& inputs) const;
  void look_ahead(const Job& job, Entry& entry);
  void look_up(const Job& job);
  void work(const Job& job, Entry& entry);
  nn::Batch batch_of(const Job& job, const Lasting& lasting) const;
  Rows rows_in_block(const Job& job, const nn::Batch& batch) const;
  nn::Inputs teacher_inputs(const Job& job, std::size_t cursor_offset) const;
  Tensor cursor(std::size_t offset) const;
  template <class T>
  Tensor in_block(std::size_t offset, const Shape& shape) const;

  const Teacher* teacher() const {
    return teachers_.empty() ? nullptr : teachers_[0].teacher.get();
  }
  std::size_t reading() const { return teachers_.empty() ? 0 : teachers_[0].reading; }

  std::vector<RunTeacher> teachers_;
  Terms terms_;
  nn::Model& student_;
  nn::Optimizer& optimizer_;
  StepMeter& meter_;
  GraphOptions options_;
  Device device_;

  std::unique_ptr<UploadRing> block_;
  std::int64_t block_samples_ = 0;
  std::unique_ptr<UploadRing> logits_;  // f32 (block_samples_, V), of a teacher with a cache
  std::shared_ptr<GraphMemory> memory_;
  std::map<std::string, Entry> entries_;

  // Overlap: the entry whose logits are those of the batch `ahead_`. Null: nobody's.
  const Entry* ahead_entry_ = nullptr;
  Job ahead_;
  std::string reason_;
  const Graph* replayed_ = nullptr;  // by the last step
  std::int64_t replays_ = 0;
};

}  // namespace retort::distill
