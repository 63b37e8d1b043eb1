// Which implementation runs a convolution: the choice, its file, and a second provider beside the
// hand-written kernels.
#include "kernels/conv2d/conv2d_choice.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "engine/runtime/device.h"
#include "tests/support/close.h"
#include "tests/support/random.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/wgmma.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace retort::test {
namespace {

using namespace kernels;

Conv2dProblem problem(std::int64_t batch = 8) {
  return {Conv2dPass::kForward,
          {batch, 6, 6, 64, 64, 3, 3, 1, 1},
          DType::kBF16,
          DType::kF32,
          false,
          true,
          Conv2dExtra::kStatistics};
}

Conv2dChoiceFile example() {
  Conv2dChoiceFile file{"NVIDIA X; driver 13000; kernels 1", {}};
  file.choices[problem()] = {"wgmma", 0, 41.5};
  Conv2dProblem p = problem(1);
  p.pass = Conv2dPass::kBackwardWeight;
  p.dtype = p.weight_dtype = DType::kF32;
  p.tf32 = true, p.aligned = false, p.extra = Conv2dExtra::kNone;
  file.choices[p] = {"cudnn", 7, 0.25};
  return file;
}

bool parses(const std::string& text) {
  try {
    parse_conv2d_choices(text);
    return true;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadInput) << e.what();
    EXPECT_NE(std::string(e.what()).find("[conv2d choices]"), std::string::npos) << e.what();
    return false;
  }
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Conv2dChoiceFile, says_what_the_note_says) {
  EXPECT_EQ(write_conv2d_choices(example()),
            "retort conv2d choices 1\n"
            "environment NVIDIA X; driver 13000; kernels 1\n"
            "forward 8 6 6 64 64 3 3 1 1 bf16 f32 0 1 statistics wgmma 0 41.5\n"
            "backward_weight 1 6 6 64 64 3 3 1 1 f32 f32 1 0 none cudnn 7 0.25\n"
            "end 2\n");
  const Conv2dChoiceFile again = parse_conv2d_choices(write_conv2d_choices(example()));
  EXPECT_EQ(again.environment, example().environment);
  ASSERT_EQ(again.choices.size(), 2u);
  for (const auto& [p, choice] : example().choices) {
    ASSERT_TRUE(again.choices.contains(p));
    EXPECT_TRUE(again.choices.at(p).same_as(choice));
    EXPECT_EQ(again.choices.at(p).microseconds, choice.microseconds);
  }
}

TEST(Conv2dChoiceFile, refuses_what_it_would_not_write) {
  const std::string good = write_conv2d_choices(example());
  ASSERT_TRUE(parses(good));
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"choices 1", "choices 2"},
           {"environment", "surroundings"},
           {"NVIDIA", "NV\x01IA"},
           {"NVIDIA", std::string("NV\0IA", 5)},
           {"forward 8", "sideways 8"},
           {"forward 8", "forward -8"},
           {"forward 8", "forward 0"},
           {"forward 8", "forward 2147483648"},
           {"forward 8", "forward 99999999999999999999"},
           {"forward 8", "forward 8x"},
           {"forward 8", "forward  8"},
           {"bf16 f32", "bf16 i32"},
           {"0 1 statistics", "0 2 statistics"},
           {"statistics", "statistic"},
           {"wgmma", "../../etc"},
           {"wgmma 0", "wgmma 65536"},
           {"41.5", "nan"},
           {"41.5", "inf"},
           {"41.5", "-1"},
           {"41.5", "1e300"},
           {"41.5", "41.5 more"},
           {" 41.5", ""},
           {"end 2", "end 1"},
           {"end 2", "end"},
           {"end 2\n", "end 2"},
           {"end 2\n", "end 2\nend 2\n"},
           {"end 2\n", ""},
           {"backward_weight 1 6 6 64 64 3 3 1 1 f32 f32 1 0 none cudnn 7 0.25",
            "forward 8 6 6 64 64 3 3 1 1 bf16 f32 0 1 statistics mma 0 1"}})
    EXPECT_FALSE(parses(replaced(good, from, to))) << from << " -> " << to;
  EXPECT_FALSE(parses(""));
  EXPECT_FALSE(parses(std::string(2 << 20, 'x')));
  EXPECT_FALSE(parses(replaced(good, "NVIDIA", std::string(700, 'x'))));
  std::string many = "retort conv2d choices 1\nenvironment e\n";
  for (int i = 1; i <= 8193; ++i)
    many += join("forward ", i, " 6 6 64 64 3 3 1 1 bf16 f32 0 1 none mma 0 1\n");
  EXPECT_FALSE(parses(many + "end 8193\n"));
}

// Every prefix, and single bytes changed at every place, through the fuzz target.
TEST(Conv2dChoiceFile, damaged_texts_never_do_more_than_throw) {
  const std::string good = write_conv2d_choices(example());
  const auto feed = [](const std::string& text) {
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  };
  for (std::size_t i = 0; i <= good.size(); ++i) feed(good.substr(0, i));
  for (std::size_t i = 0; i < good.size(); ++i)
    for (const char c : {'\0', '\n', ' ', '-', '9', 'e', '\xff'}) {
      std::string text = good;
      text[i] = c;
      feed(text);
    }
}

TEST(Conv2dChoices, a_later_process_finds_them_in_the_same_environment_only) {
  const TemporaryFolder folder;
  Conv2dChoices first(folder / "a/b");  // made when needed
  first.open("GPU one");
  EXPECT_FALSE(first.find(problem()).has_value());
  EXPECT_EQ(first.used(), "");
  first.add(problem(), {"wgmma", 0, 3});
  EXPECT_TRUE(first.find(problem())->same_as({"wgmma"}));

  Conv2dChoices second(folder / "a/b");
  EXPECT_FALSE(second.find(problem()).has_value()) << "before an environment is known";
  second.open("GPU one");
  ASSERT_TRUE(second.find(problem()).has_value());
  EXPECT_TRUE(second.find(problem())->same_as({"wgmma"}));
  second.open("GPU two");
  EXPECT_FALSE(second.find(problem()).has_value());
  second.add(problem(), {"mma", 0, 5});
  first.open("GPU two");
  EXPECT_TRUE(first.find(problem())->same_as({"mma"}));
  EXPECT_TRUE(first.notes().empty() && second.notes().empty());
  EXPECT_EQ(read_conv2d_cache(folder / "a/b", nullptr).size(), 2u);
  for (const auto& entry : std::filesystem::directory_iterator(folder / "a/b"))
    EXPECT_EQ(entry.path().extension(), ".txt") << "left behind";
}

TEST(Conv2dChoices, two_processes_add_to_one_file) {
  const TemporaryFolder folder;
  Conv2dChoices one(folder.path()), two(folder.path());
  one.open("GPU"), two.open("GPU");
  one.add(problem(1), {"mma", 0, 1});
  two.add(problem(2), {"cudnn", 1, 1});
  one.add(problem(3), {"wgmma", 0, 1});
  const auto files = read_conv2d_cache(folder.path(), nullptr);
  ASSERT_EQ(files.size(), 1u);
  EXPECT_EQ(files[0].choices.size(), 3u);
}

// The path of the one file that a Conv2dChoices of this environment writes.
std::string file_of(const TemporaryFolder& folder, const std::string& environment) {
  Conv2dChoices choices(folder.path());
  choices.open(environment);
  choices.add(problem(), {"mma", 0, 1});
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    return entry.path().string();
  return "";
}

TEST(Conv2dChoices, a_file_that_is_not_what_it_should_be_is_ignored_with_a_note_and_replaced) {
  const auto hostile = [](auto&& damage) {
    const TemporaryFolder folder;
    const std::string path = file_of(folder, "GPU");
    damage(path);
    Conv2dChoices choices(folder.path());
    choices.open("GPU");
    EXPECT_FALSE(choices.find(problem()).has_value());
    EXPECT_EQ(choices.notes().size(), 1u);
    choices.add(problem(2), {"wgmma", 0, 1});
    Conv2dChoices later(folder.path());
    later.open("GPU");
    return later.find(problem(2)).has_value();
  };
  EXPECT_TRUE(hostile([](const std::string& path) { spill(path, "nonsense"); }));
  EXPECT_TRUE(hostile([](const std::string& path) { spill(path, ""); }));
  EXPECT_TRUE(hostile([](const std::string& path) { spill(path, std::string(2 << 20, '\n')); }));
  EXPECT_TRUE(hostile([](const std::string& path) {  // another environment under this name
    spill(path, write_conv2d_choices({"other GPU", {{problem(), {"cudnn", 1, 1}}}}));
  }));
  EXPECT_TRUE(hostile([](const std::string& path) {
    std::filesystem::remove(path);
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  }));
  EXPECT_TRUE(hostile([](const std::string& path) {
    std::filesystem::remove(path);
    std::filesystem::create_symlink("/dev/zero", path);
  }));
  EXPECT_FALSE(hostile([](const std::string& path) {  // cannot be replaced
    std::filesystem::remove(path);
    std::filesystem::create_directory(path);
    spill(path + "/x", "y");
  }));
}

TEST(Conv2dChoices, a_folder_that_cannot_be_written_is_a_note) {
  const TemporaryFolder folder;
  spill(folder / "file", "");
  Conv2dChoices choices(folder / "file/below");
  choices.open("GPU");
  choices.add(problem(), {"mma", 0, 1});
  EXPECT_EQ(choices.notes().size(), 1u);
  EXPECT_TRUE(choices.find(problem()).has_value());
}

TEST(Conv2dChoices, the_folder_follows_the_environment) {
  const auto with = [](const char* own, const char* xdg, const char* home) {
    const char* const names[] = {"RETORT_CACHE", "XDG_CACHE_HOME", "HOME"};
    const char* const values[] = {own, xdg, home};
    std::string before[3];
    bool had[3];
    for (int i = 0; i < 3; ++i) {
      const char* const old = std::getenv(names[i]);
      had[i] = old != nullptr, before[i] = old ? old : "";
      values[i] ? ::setenv(names[i], values[i], 1) : ::unsetenv(names[i]);
    }
    const std::string folder = conv2d_cache_folder();
    for (int i = 0; i < 3; ++i)
      had[i] ? ::setenv(names[i], before[i].c_str(), 1) : ::unsetenv(names[i]);
    return folder;
  };
  EXPECT_EQ(with("/a", "/b", "/c"), "/a");
  EXPECT_EQ(with(nullptr, "/b", "/c"), "/b/retort");
  EXPECT_EQ(with("", "relative", "/c"), "/c/.cache/retort");
  EXPECT_EQ(with(nullptr, nullptr, nullptr), "");
}

// ---------------------------------------------------------------------------------- the choice

// Candidates with fixed times that leave fixed results.
struct Fake {
  struct Way {
    Conv2dChoice choice;
    double time;  // negative: refuses
    std::vector<float> result;
  };
  std::vector<Way> ways;
  int timed = 0;
  std::vector<float> last = {};

  std::size_t choose(Conv2dChoices& choices, bool measure = true) {
    std::vector<Conv2dCandidate> candidates;
    for (const Way& way : ways)
      candidates.push_back({way.choice, [&] {
                              last = way.result;
                              return way.time >= 0;
                            }});
    const Conv2dBench bench{[&](const std::function<bool()>& run) {
                              ++timed;
                              const std::size_t i =
                                  static_cast<std::size_t>(timed - 1) % ways.size();
                              return run() ? ways[i].time : -1.0;
                            },
                            [&] { return last; }};
    return choose_conv2d(problem(), candidates, choices, measure ? &bench : nullptr);
  }
};
const std::vector<float> kRight{1, 10, -2, 5}, kRounded{1.02f, 10.01f, -2, 5}, kWrong{3, 10, -2, 5};

TEST(Conv2dChoices, the_fastest_that_agrees_is_chosen_once) {
  Conv2dChoices choices("");
  Fake fake{{{{"mma"}, 9, kRight},
             {{"wgmma"}, 4, kRounded},
             {{"cudnn", 0}, 1, kWrong},
             {{"cudnn", 1}, -1, kRight},
             {{"cudnn", 2}, 5, kRight}}};
  EXPECT_EQ(fake.choose(choices), 1u);
  EXPECT_EQ(fake.timed, 5);
  ASSERT_EQ(choices.notes().size(), 1u);
  EXPECT_NE(choices.notes()[0].find("cudnn:0 gives other numbers"), std::string::npos);
  EXPECT_EQ(fake.choose(choices), 1u);
  EXPECT_EQ(fake.timed, 5) << "measured again";
  EXPECT_NE(choices.used().find("wgmma 0 4"), std::string::npos);
}

TEST(Conv2dChoices, nothing_is_remembered_while_nothing_can_be_measured) {
  Conv2dChoices choices("");
  Fake fake{{{{"mma"}, 9, kRight}, {{"wgmma"}, 4, kRight}}};
  EXPECT_EQ(fake.choose(choices, false), 0u);
  EXPECT_EQ(fake.timed, 0);
  EXPECT_EQ(fake.choose(choices), 1u);
  EXPECT_EQ(fake.choose(choices, false), 1u) << "known by now";
}

TEST(Conv2dChoices, nan_decides_nothing) {
  Conv2dChoices choices("");
  Fake fake{{{{"mma"}, 9, {NAN, NAN}}, {{"wgmma"}, 4, {NAN, NAN}}}};
  EXPECT_EQ(fake.choose(choices), 0u);
  EXPECT_FALSE(choices.find(problem()).has_value());
  EXPECT_FALSE(conv2d_results_agree({1, NAN}, {1, NAN}));
  EXPECT_FALSE(conv2d_results_agree({1, INFINITY}, {1, INFINITY}));
  EXPECT_FALSE(conv2d_results_agree({1, 2}, {1, 2, 3, 4}));
  EXPECT_TRUE(conv2d_results_agree({0, 0}, {0, 0}));
  EXPECT_FALSE(conv2d_results_agree({0, 1}, {0, 2}));
}

TEST(Conv2dChoices, a_pinned_choice_wins_and_one_that_is_gone_is_measured_anew) {
  Conv2dChoices choices("");
  Fake fake{{{{"mma"}, 9, kRight}, {{"wgmma"}, 4, kRight}, {{"cudnn", 3}, 7, kRight}}};
  EXPECT_EQ(fake.choose(choices), 1u);
  EXPECT_EQ(choices.generation(), 0u);
  choices.pin(write_conv2d_choices({"elsewhere", {{problem(), {"cudnn", 3, 1}}}}));
  EXPECT_EQ(choices.generation(), 1u);
  EXPECT_EQ(fake.choose(choices), 2u) << "the checkpoint comes first";
  choices.pin(write_conv2d_choices({"elsewhere", {{problem(), {"cudnn", 5, 1}}}}));
  fake.timed = 0;
  EXPECT_EQ(fake.choose(choices), 1u);
  EXPECT_EQ(fake.timed, 3);
  EXPECT_NE(choices.notes().back().find("cudnn:5"), std::string::npos);
  EXPECT_EQ(fake.choose(choices), 1u);
  EXPECT_EQ(fake.timed, 3) << "the pin that could not be kept came back";
  EXPECT_THROW(choices.pin("nonsense"), Error);
}

TEST(Conv2dChoices, a_first_candidate_that_refuses_is_an_error) {
  Conv2dChoices choices("");
  Fake fake{{{{"mma"}, -1, kRight}, {{"wgmma"}, 4, kRight}}};
  EXPECT_THROW(fake.choose(choices), Error);
}

// The emulated kernels and a fake library in one choice, on real tensors.
TEST(Conv2dChoices, a_second_provider_beside_the_kernels) {
  if (const std::string why = wgmma_unavailable_reason(); !why.empty()) GTEST_SKIP() << why;
  const Conv2dShape s = problem().shape;
  const Tensor x = randn({s.batch, 6, 6, 64}, 1, DType::kBF16).to(Device::kCuda),
               weight = randn({64, 3, 3, 64}, 2, DType::kBF16).to(Device::kCuda),
               y = Tensor::empty({s.batch, 6, 6, 64}, DType::kBF16, Device::kCuda);
  const Context& context = context_of(Device::kCuda);
  const auto own = [&](Conv2dAlgorithm algorithm) {
    conv2d(context,
           {y.raw(), x.raw(), weight.raw(), s, DType::kBF16, DType::kBF16, {}, nullptr, algorithm});
    return true;
  };
  bool broken = false;
  const auto library = [&] {  // the CPU's convolution, or a wrong one
    const Tensor there = x.to(Device::kCpu), filter = weight.to(Device::kCpu),
                 result = Tensor::empty(y.shape(), DType::kBF16);
    conv2d(context_of(Device::kCpu),
           {result.raw(), there.raw(), filter.raw(), s, DType::kBF16, DType::kBF16});
    y.copy_from(broken ? there : result);
    return true;
  };
  const std::vector<Conv2dCandidate> candidates{
      {{"mma"}, [&] { return own(Conv2dAlgorithm::kMma); }},
      {{"wgmma"}, [&] { return own(Conv2dAlgorithm::kWgmma); }},
      {{"cudnn", 7}, library}};
  double next = 0;
  const Conv2dBench bench{[&](const std::function<bool()>& run) {
                            EXPECT_TRUE(run());
                            return next += 10;  // the first is the fastest
                          },
                          [&] {
                            std::vector<float> sums;
                            const std::vector<float> v = y.to_vector<float>();
                            for (std::size_t i = 0; i < v.size(); i += 256) {
                              float sum = 0, size = 0;
                              for (std::size_t k = i; k < std::min(v.size(), i + 256); ++k) {
                                sum += static_cast<std::uint32_t>(k) * 0x9E3779B1u >> 31 ? -v[k]
                                                                                         : v[k];
                                size += std::abs(v[k]);
                              }
                              sums.insert(sums.end(), {sum, size});
                            }
                            return sums;
                          }};
  const Conv2dBench backwards{[&](const std::function<bool()>& run) {
                                EXPECT_TRUE(run());
                                return next -= 10;  // the last is the fastest
                              },
                              bench.fingerprint};
  Conv2dChoices upwards(""), downwards(""), careful("");
  EXPECT_EQ(choose_conv2d(problem(), candidates, upwards, &bench), 0u);
  EXPECT_TRUE(upwards.notes().empty()) << "all three agree";
  next = 100;
  EXPECT_EQ(choose_conv2d(problem(), candidates, downwards, &backwards), 2u);
  broken = true, next = 100;
  EXPECT_EQ(choose_conv2d(problem(), candidates, careful, &backwards), 1u);
  EXPECT_EQ(careful.notes().size(), 1u);
}

}  // namespace
}  // namespace retort::test

#include "tests/fuzz/conv2d_choices_fuzz.cpp"
