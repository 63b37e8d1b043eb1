// Samples by index, and what is done to them on their way into a model.
//
//   Dataset   samples as they are stored or drawn; knows nothing of models, devices or training
//   Source    the same with a treatment (augmentation, masking) and the readings of the models that
//             look at them, on a device: makes batches
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nn/inputs.h"
#include "nn/options.h"

namespace retort::nn {

class DeviceFeed;
class Source;

/// What the rows of logits of a text are about, and so which head a model of it needs.
enum class TextTask : std::uint8_t {
  kNone,            // not text
  kMaskedLm,        // a row a predicted position: the id that stood there
  kCausalLm,        // a row a position but the last of a sequence: the id behind it
  kClassification,  // a row a sample: its class
  kMultipleChoice,  // a row a sample: which of its sequences (Inputs::choices)
};
/// "masked_lm", "causal_lm", "classification", "multiple_choice"; "none".
const char* name_of(TextTask task);
/// Errors    kUsage for another word.
TextTask parse_text_task(const std::string& text);

/// What data gives, as those who join it with models and orders need to know.
struct DataFacts {
  Reads gives = Reads::kFeatures;
  std::int64_t size = 0;        // samples; 0: without end, every index is another sample
  std::int64_t epoch_size = 0;  // samples that count as one epoch
  std::int64_t classes = 0;
  Shape input = {};            // of one sample: (n), (H, W, C); tokens: ()
  bool labelled = true;        // one class a sample: orders may be stratified by it
  bool scalar_target = false;  // two classes that are the sign of one number
  TextTask task = TextTask::kNone;
  std::int64_t ids = 0;         // of tokens: all are below it
  std::int64_t choices = 1;     // sequences of one sample
  std::string vocabulary = {};  // hash of the words that ids stand for; "": none
  bool redrawn = false;         // what is asked of a sample is drawn anew in each epoch (masking)

  bool endless() const { return size == 0; }
  /// One past the largest index.
  std::int64_t indices() const { return endless() ? std::int64_t{1} << 48 : size; }
};

/// A batch of B samples with N rows of logits; see Inputs. sample[b] and variant[b] say which
/// sample it is and all that was done to it (two rows with both equal are equal), so that scores,
/// per-sample weights and cached teacher outputs find their row.
struct Batch {
  std::vector<Inputs> inputs;  // by reading, the student's first; equal ones share
                               // memory; undefined: nobody asked for it
  Tensor targets;              // i32 (N)
  Tensor sample_of_row;        // i32 (N), ascending in [0, B). Undefined: row i is sample i
  std::vector<std::int32_t> sample_of_row_on_host;  // its values, for whoever cuts a batch
  std::vector<std::int64_t> sample;                 // (B); may be empty where nobody asks
  std::vector<std::uint32_t> variant;               // (B) or empty: 0, as stored

  Batch() = default;
  /// A batch of one reading whose samples have no names.
  Batch(Inputs student, Tensor labels) : inputs{std::move(student)}, targets(std::move(labels)) {}

  std::int64_t size() const { return inputs.empty() ? 0 : inputs[0].samples(); }     // B
  std::int64_t rows() const { return targets.defined() ? targets.dim(0) : size(); }  // N
  /// What reader r sees; the student's inputs where the batch has no such reading.
  const Inputs& read_by(std::size_t r) const { return inputs[r < inputs.size() ? r : 0]; }
  /// Samples [begin, end), with the rows that are theirs.
  Batch slice(std::int64_t begin, std::int64_t end) const;
  /// From now on row i is of sample of_row[i]. Errors    kUsage unless ascending in [0, B).
  void set_rows(std::vector<std::int32_t> of_row);
  /// Errors    kUsage naming the field that does not fit the others.
  void check() const;
};

/// How one model reads samples: options of the data kind's `reading` keys ({"normalize": ...}).
struct Reading {
  DType dtype = DType::kF32;  // or kBF16; of inputs and activations
  Options options = {};
  bool operator==(const Reading&) const = default;
  /// "f32 normalize=\"cifar\"": equal texts are equal readings.
  std::string str() const;
};

struct SourceOptions {
  Device device = Device::kCpu;
  std::uint64_t seed = 0;  // of everything that is drawn
  Options treatment = {};  // options of the data kind's `treatment` keys; empty: as stored
  std::vector<Reading> readings = {Reading{}};
  /// Of texts that are masked: 0, masks are drawn in each epoch; K, every position is predicted once
  /// over the "epochs" 0 .. K - 1 (nn::mask_in_turn).
  std::int64_t masks_in_turn = 0;
};

/// Const and thread-safe.
class Dataset : public std::enable_shared_from_this<Dataset> {
 public:
  virtual ~Dataset() = default;
  virtual const DataFacts& facts() const = 0;
  std::int64_t size() const { return facts().size; }
  std::int64_t classes() const { return facts().classes; }
  /// Of content and format: equal hashes mean equal samples in equal order.
  virtual std::uint64_t hash() const = 0;
  /// What it is, for messages and reports: "cifar10, 10000 images".
  virtual std::string describe() const = 0;
  /// The class of every sample, in [0, classes()). Empty unless facts().labelled and there is an
  /// end.
  virtual std::vector<std::int32_t> labels() const { return {}; }
  /// A number of every sample that needs no model, by the name of the score that reads it
  /// ("text_length"); empty: this data has no such number.
  virtual std::vector<float> measured(const std::string& /*score*/) const { return {}; }
  /// The word that an id stands for; "": not known.
  virtual std::string word(std::int32_t /*id*/) const { return ""; }
  /// These samples, renumbered from 0. Errors    kUsage without end, or for an index outside.
  virtual std::shared_ptr<const Dataset> subset(std::span<const std::int64_t> samples) const = 0;
  /// Errors    kUsage for an option that this data does not know.
  virtual std::shared_ptr<const Source> source(const SourceOptions& options) const = 0;

 protected:
  void check_samples(std::span<const std::int64_t> samples) const;
};

/// Const and thread-safe.
class Source : public std::enable_shared_from_this<Source> {
 public:
  virtual ~Source() = default;
  virtual const DataFacts& facts() const = 0;
  virtual const SourceOptions& options() const = 0;
  Device device() const { return options().device; }
  /// Rows in the order of `samples` (repeats allowed). The treatment is a function of (seed, epoch,
  /// sample) alone. Errors    kUsage for an index outside.
  virtual Batch make(std::span<const std::int64_t> samples, std::uint32_t epoch = 0) const = 0;
  /// Batch::variant of these samples, without making them.
  virtual std::vector<std::uint32_t> variants(std::span<const std::int64_t> samples,
                                              std::uint32_t epoch) const;
  /// What a captured step makes its batches from (device_feed.h); null where there is no such way.
  virtual std::unique_ptr<DeviceFeed> device_feed() const;
};

/// The first `count` samples of a source: [0, count), or all if there are fewer. Files are often
/// sorted: what is to stand for all is drawn (drawn.h).
Batch first_samples(const Source& source, std::int64_t count);

/// "f3a1..." 16 hex digits, as hashes are shown.
std::string hex(std::uint64_t hash);

}  // namespace retort::nn
