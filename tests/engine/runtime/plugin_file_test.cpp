#include "engine/runtime/plugin_file.h"

#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>

#include "tests/support/temporary_folder.h"

namespace retort::test {
namespace {

using ::testing::HasSubstr;

std::string broken(int kind) { return join(RETORT_BROKEN_PLUGINS, "/broken_plugin_", kind, ".so"); }

TEST(PluginFile, the_emulated_plugin_is_whole) {
  EXPECT_EQ(plugin_file_problem(RETORT_EMULATED_PLUGIN), "");
}

// Mapped, a page behind the end of a cut file would be a SIGBUS.
TEST(PluginFile, a_library_cut_anywhere_is_refused_before_it_is_opened) {
  const TemporaryFolder folder;
  const std::string cut = folder / "cut.so";
  std::filesystem::copy_file(broken(0), cut);
  const auto whole = std::filesystem::file_size(cut);
  for (std::uintmax_t bytes = whole; bytes-- > 0;) {
    if (bytes % 7 != 0 && bytes + 4096 < whole) continue;
    std::filesystem::resize_file(cut, bytes);
    ASSERT_NE(plugin_file_problem(cut), "") << bytes << " of " << whole;
  }
  const std::string half = folder / "half.so";
  std::filesystem::copy_file(RETORT_EMULATED_PLUGIN, half);
  std::filesystem::resize_file(half, std::filesystem::file_size(half) / 2);
  CudaRuntime runtime;
  EXPECT_THAT(open_plugin(half, &runtime), HasSubstr("no CUDA plug-in: " + half + ": it was cut"));
}

TEST(PluginFile, what_is_no_library_for_this_machine_is_refused) {
  const TemporaryFolder folder;
  const std::string path = folder / "p.so", good = slurp(broken(0));
  const auto problem_with = [&](const std::string& bytes) {
    spill(path, bytes);
    return plugin_file_problem(path);
  };
  EXPECT_THAT(problem_with(""), HasSubstr("not a shared library"));
  EXPECT_THAT(problem_with(std::string(5000, 'x')), HasSubstr("not a shared library"));
  const auto with_head = [&](auto&& change) {
    std::string bytes = good;
    Elf64_Ehdr head;
    std::memcpy(&head, bytes.data(), sizeof head);
    change(head);
    std::memcpy(bytes.data(), &head, sizeof head);
    return problem_with(bytes);
  };
  EXPECT_EQ(with_head([](Elf64_Ehdr&) {}), "");
  EXPECT_NE(with_head([](Elf64_Ehdr& h) { h.e_machine = EM_S390; }), "");
  EXPECT_NE(with_head([](Elf64_Ehdr& h) { h.e_type = ET_EXEC; }), "");
  EXPECT_NE(with_head([](Elf64_Ehdr& h) { h.e_phoff = ~Elf64_Off{0}; }), "");
  EXPECT_NE(with_head([](Elf64_Ehdr& h) { h.e_phnum = 0; }), "");
  EXPECT_NE(with_head([](Elf64_Ehdr& h) { h.e_shoff = ~Elf64_Off{0} - 100; }), "");
  // A tail that a crashed copy left as zeros.
  std::string zeros = good;
  std::fill(zeros.begin() + static_cast<std::ptrdiff_t>(good.size() * 3 / 4), zeros.end(), '\0');
  EXPECT_THAT(problem_with(zeros), HasSubstr("damaged"));
  ASSERT_EQ(::mkfifo((folder / "pipe.so").c_str(), 0600), 0);
  EXPECT_THAT(plugin_file_problem(folder / "pipe.so"), HasSubstr("got a pipe"));
  EXPECT_THAT(plugin_file_problem(folder / "none.so"), HasSubstr("No such file"));
}

TEST(PluginFile, every_fault_of_an_entry_is_one_sentence) {
  const char* const says[] = {"does not say how it was built", "does not say how it was built",
                              "built from other headers",      "does not say how it was built",
                              "the entry is broken",           "open is broken",
                              "it leaves functions out",       "not a Retort plug-in"};
  for (int kind = 0; kind < 8; ++kind) {
    CudaRuntime runtime;
    runtime.release = [](void*) noexcept { return Status{}; };
    const std::string problem = open_plugin(broken(kind), &runtime);
    EXPECT_THAT(problem, HasSubstr(says[kind])) << kind;
    EXPECT_THAT(problem, HasSubstr("no CUDA plug-in: " + broken(kind) + ": "));
    EXPECT_EQ(problem.find('\n'), std::string::npos);
    EXPECT_EQ(runtime.device_count, nullptr);
  }
}

}  // namespace
}  // namespace retort::test
