// Which implementation runs a convolution pass on CUDA: measured once per shape, remembered.
//
// Note [Choice of the convolution's implementation]
//   Candidates are the hand-written kernels (mma, wgmma) and cuDNN's deterministic algorithms. The
//   first time a pass meets a shape each is timed on the caller's own tensors, its result is held
//   against the first candidate's, and the fastest that agrees is kept. Timings decide, so two
//   runs could choose differently and then differ in the last bits. Hence, in this order:
//     1. what a checkpoint recorded (pin): a resumed run goes on with the algorithms it began with;
//     2. what this process chose before;
//     3. what the cache folder holds for the same GPU, driver, libraries and kernels;
//     4. a measurement, which is written to the cache folder.
//   RETORT_CONV2D=own, mma, wgmma or cudnn takes the choice away.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/conv2d/conv2d.h"

namespace retort::kernels {

/// Part of the cache's key. Raise it when a convolution kernel or the candidates change: old
/// timings are then void.
inline constexpr int kConv2dKernelsVersion = 2;

enum class Conv2dPass : std::uint8_t { kForward, kBackwardData, kBackwardWeight };
/// What a forward pass does beside the convolution: it costs a library a pass of its own.
enum class Conv2dExtra : std::uint8_t { kNone, kStatistics, kEpilogue };

/// Everything that a choice may depend on, within one environment.
struct Conv2dProblem {
  Conv2dPass pass;
  Conv2dShape shape;
  DType dtype, weight_dtype;
  bool tf32;
  bool aligned;  // all tensors to 16 bytes
  Conv2dExtra extra = Conv2dExtra::kNone;

  bool operator==(const Conv2dProblem&) const = default;
  bool operator<(const Conv2dProblem& o) const;
};

struct Conv2dChoice {
  std::string provider;     // "mma", "wgmma" or "cudnn"
  int algorithm = 0;        // the library's own number for it
  double microseconds = 0;  // as measured; of no further use
  bool same_as(const Conv2dChoice& o) const {
    return provider == o.provider && algorithm == o.algorithm;
  }
};

using Conv2dChoiceMap = std::map<Conv2dProblem, Conv2dChoice>;

/// What one file (or a checkpoint's text) says.
struct Conv2dChoiceFile {
  std::string environment;  // GPU, driver, libraries, version of the kernels
  Conv2dChoiceMap choices;
};

/// Note [Choice file]
///   retort conv2d choices 1
///   environment NVIDIA H200; driver 13000; cuDNN 9.19; kernels 1
///   forward 128 32 32 64 64 3 3 1 1 bf16 f32 0 1 statistics wgmma 0 41.5
///   end 1
/// Pass, N H W C K R S stride padding, dtypes, tf32, aligned, extra, provider, algorithm,
/// microseconds. At most 1 MiB and 8,192 choices; everything is checked and nothing is repaired.
std::string write_conv2d_choices(const Conv2dChoiceFile& file);
/// Throws Error(kBadInput) naming the line.
Conv2dChoiceFile parse_conv2d_choices(const std::string& text);

/// RETORT_CACHE, else $XDG_CACHE_HOME/retort, else ~/.cache/retort; "" if none of them is set.
std::string conv2d_cache_folder();
/// All files of a cache folder that parse, for `kdtrain doctor`. notes: one sentence for each that
/// does not.
std::vector<Conv2dChoiceFile> read_conv2d_cache(const std::string& folder,
                                                std::vector<std::string>* notes);

/// The choices of a process. Never throws for what the cache folder holds or refuses: it is a copy
/// of what can be measured again; notes() says what was wrong. Threads: safe.
class Conv2dChoices {
 public:
  /// folder "": nothing is read or written.
  explicit Conv2dChoices(std::string folder) : folder_(std::move(folder)) {}

  /// Names the environment, and reads its file. Once; a second call with the same does nothing.
  void open(const std::string& environment);
  std::optional<Conv2dChoice> find(const Conv2dProblem& problem);
  /// Remembers a measured choice, and adds it to the file (written beside it, renamed; what another
  /// process added meanwhile stays).
  void add(const Conv2dProblem& problem, const Conv2dChoice& choice);

  /// The choices that this process has used, as text for a checkpoint; "" if there are none.
  std::string used() const;
  /// They come first from now on. Throws Error(kBadInput) on a bad text.
  void pin(const std::string& text);
  /// Counts the calls of pin: what was found under an older number must be asked for again.
  std::uint64_t generation() const { return generation_.load(); }

  void note(const std::string& sentence);
  std::vector<std::string> notes() const;

 private:
  std::string file_path() const;
  void write_file();

  std::string folder_, environment_;
  mutable std::mutex mutex_;
  Conv2dChoiceMap pinned_, measured_, used_;
  std::vector<std::string> notes_;
  std::atomic<std::uint64_t> generation_{0};
};

/// Those of this process, in the cache folder of the environment.
Conv2dChoices& conv2d_choices();

/// One way to run a problem.
struct Conv2dCandidate {
  Conv2dChoice choice;
  std::function<bool()> run;  // false: refuses this problem
};

/// How candidates are compared on a device.
struct Conv2dBench {
  /// Microseconds of one run, negative if it was refused.
  std::function<double(const std::function<bool()>&)> time;
  /// Of the last result: pairs (sum of +-values with fixed signs, sum of magnitudes) per piece.
  std::function<std::vector<float>()> fingerprint;
};

/// Whether two fingerprints are of the same numbers, rounding aside. A NaN agrees with nothing.
bool conv2d_results_agree(const std::vector<float>& a, const std::vector<float>& b);

/// The index of the candidate to run: a remembered one if it is among the candidates, else the
/// fastest that runs and agrees with candidate 0, which must be sound. bench null (no measuring
/// now, a stream is being captured): 0, and nothing is remembered.
std::size_t choose_conv2d(const Conv2dProblem& problem, std::span<const Conv2dCandidate> candidates,
                          Conv2dChoices& choices, const Conv2dBench* bench);

}  // namespace retort::kernels
